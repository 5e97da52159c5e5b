//! Measures the rates behind forecasts: some seconds, a few sizes, the fastest of a few runs.

use super::BenchError;
use super::device::{DeviceCase, HostMatrix};
use super::host::HostRows;
use super::kernel::Kernel;
use super::limits::ReadFloor;
use super::sampling::{Repeats, Sample, sample, timed};
use crate::engine::backend::calibration::{Calibration, Curve, DeviceCalibration, Host, Rates};
use crate::gpu::Gpu;
use crate::gpu::job::{GpuError, Options};
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use rayon::ThreadPool;
use std::collections::BTreeMap;

/// The numbers of rows of measured kernels.
const ROWS: [usize; 7] = [4, 8, 16, 32, 64, 128, 256];

/// The numbers of rows of measured mixtures, whose cost grows with the square.
const MIXED_ROWS: [usize; 3] = [8, 32, 64];

/// Values of all rows on the host. Tiles stay in caches, as between reading and computing in a merge.
const HOST_VALUES: usize = 2 << 20;

/// Values of all rows on a device: several slots.
const DEVICE_VALUES: usize = 16 << 20;

/// Values of all rows on a software adapter.
const SOFTWARE_VALUES: usize = 1 << 19;

/// Clients and parameters of the updates for the read floor: 64 MiB.
const FILES: (usize, usize) = (8, 2 << 20);

const REPEATS: Repeats = Repeats { warm_up: 1, samples: 3 };

/// Measures this host, and the device that the options choose if there are options.
///
/// # Errors
///
/// When files cannot be written or read, the device fails, or a signal asked to stop.
pub fn calibrate(pool: &ThreadPool, isa: Isa, options: Option<&Options>) -> Result<Calibration, BenchError> {
    let updates =
        SyntheticUpdates::write(None, FILES.0, FILES.1, Dtype::F32).map_err(BenchError::NotWritten)?;
    let read = ReadFloor::of(&updates)?.bytes_per_s(pool)?;
    drop(updates);
    let on_host = |kernel: Kernel, rows: usize| {
        let parameters = HOST_VALUES / rows;
        let tiles = HostRows::<f32>::new(kernel, rows, parameters);
        fastest(|| Ok(tiles.run(kernel, isa, pool))).map(|seconds| Some((parameters, seconds)))
    };
    let cpu = rates(on_host)?;
    let device = options.map(|options| device(options, pool)).transpose()?;
    Ok(Calibration::new(Host::here(isa, pool.current_num_threads()), read, cpu, device))
}

fn fastest(run: impl FnMut() -> Result<Sample, BenchError>) -> Result<f64, BenchError> {
    Ok(sample(REPEATS, run)?.total.min_ns as f64 / 1e9)
}

/// Measures kernels at all sizes. `measure` returns parameters and seconds, or `None` if the number of rows is too
/// large.
fn rates(
    mut measure: impl FnMut(Kernel, usize) -> Result<Option<(usize, f64)>, BenchError>,
) -> Result<Rates, BenchError> {
    let mut measured: BTreeMap<(&'static str, usize), (usize, f64)> = BTreeMap::new();
    for kernel in Kernel::ALL.into_iter().filter(|kernel| *kernel != Kernel::Norms) {
        for rows in ROWS {
            let is_wanted = match kernel {
                Kernel::MixingMedian => MIXED_ROWS.contains(&rows),
                // The number of rows changes nothing but the number of values.
                Kernel::Noise => rows == ROWS[0],
                _ => true,
            };
            if let Some(found) = if is_wanted { measure(kernel, rows)? } else { None } {
                measured.insert((kernel.name(), rows), found);
            }
        }
    }
    let curve = |kernel: Kernel, work: &dyn Fn(usize, usize) -> f64, without_median: bool| {
        let of_kernel = measured.iter().filter(|((name, _), _)| *name == kernel.name());
        let points = of_kernel.map(|((_, rows), (parameters, seconds))| {
            let median = measured.get(&(Kernel::Median.name(), *rows)).map_or(0.0, |(_, seconds)| *seconds);
            // The difference must not vanish in the noise of both.
            let seconds = if without_median { (seconds - median).max(seconds / 10.0) } else { *seconds };
            (*rows, work(*rows, *parameters) / seconds)
        });
        Curve::new(points.collect())
    };
    let values = |rows: usize, parameters: usize| (rows * parameters) as f64;
    let bytes = |rows: usize, parameters: usize| values(rows, parameters) * size_of::<f32>() as f64;
    let sums = |kernel: Kernel| move |rows: usize, parameters: usize| kernel.multiply_adds(rows, parameters);
    Ok(Rates {
        sum_bytes_per_s: curve(Kernel::WeightedSum, &bytes, false),
        median_values_per_s: curve(Kernel::Median, &values, false),
        trimmed_values_per_s: curve(Kernel::TrimmedMean, &values, false),
        near_values_per_s: curve(Kernel::MeanNearMedian, &values, false),
        pairs_multiply_adds_per_s: curve(Kernel::Pairs, &sums(Kernel::Pairs), true),
        mix_multiply_adds_per_s: curve(Kernel::MixingMedian, &sums(Kernel::MixingMedian), true),
        integer_bytes_per_s: curve(Kernel::Integers, &bytes, false),
        noise_values_per_s: curve(Kernel::Noise, &values, false),
    })
}

fn device(options: &Options, pool: &ThreadPool) -> Result<DeviceCalibration, BenchError> {
    let (open, gpu) = timed(|| Gpu::open(options));
    let gpu = gpu?;
    let threads = pool.current_num_threads();
    let adapter = gpu.adapter().clone();
    let few = HostMatrix::new::<f32>(4, 64);
    // A first pass has the most kernels to compile.
    let (compile, case) = timed(|| DeviceCase::new::<f32>(Kernel::Pairs, &gpu, &few, threads));
    let case = case?;
    let latency_s = fastest(|| case.stream(pool))?;
    let all = if adapter.is_software() { SOFTWARE_VALUES } else { DEVICE_VALUES };
    let (ingest, upload) = ingest(&gpu, all, pool)?;
    let rates = rates(|kernel, rows| {
        let matrix = HostMatrix::new::<f32>(rows, all / rows);
        let case = match DeviceCase::new::<f32>(kernel, &gpu, &matrix, 1) {
            Ok(case) => case,
            Err(GpuError::TooMany { .. } | GpuError::NotCompiled { .. }) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        let inputs = case.upload()?;
        fastest(|| case.run_resident(&inputs)).map(|seconds| Some((all / rows, seconds)))
    })?;
    Ok(DeviceCalibration {
        is_software: adapter.is_software(),
        adapter: adapter.name,
        driver: adapter.driver,
        start_s: (open + compile).as_secs_f64(),
        latency_s,
        slot_bytes: gpu.options().slot_bytes as u64,
        ingest_bytes_per_s: ingest,
        upload_bytes_per_s: upload,
        resident_bytes: gpu.resident_bytes(),
        rates,
    })
}

/// Bytes per second through the whole ring, and bytes per second of the upload alone.
fn ingest(gpu: &Gpu, values: usize, pool: &ThreadPool) -> Result<(f64, f64), BenchError> {
    const ROWS: usize = 32;
    // A sum costs the device the least, so the time is that of sending rows.
    let matrix = HostMatrix::new::<f32>(ROWS, 2 * values / ROWS);
    let bytes = (2 * values * size_of::<f32>()) as f64;
    let case = DeviceCase::new::<f32>(Kernel::WeightedSum, gpu, &matrix, pool.current_num_threads())?;
    let latency = sample(REPEATS, || case.stream(pool))?;
    let ingest = bytes * 1e9 / latency.total.min_ns as f64;
    let upload = latency.transfer.map_or(ingest, |time| bytes * 1e9 / time.min_ns as f64);
    Ok((ingest, upload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::backend::forecast::{GeometryWork, Merge, Reduced, Work, forecast};
    use crate::gpu::adapters;
    use rayon::ThreadPoolBuilder;

    /// A merge that uses every rate but one.
    fn work() -> Work {
        let geometry = GeometryWork { rows: 20, points: 21, mixed: true, differences: true };
        let merge = Merge { clients: 40, mixtures: Some(20), reduction: Reduced::Median };
        Work { clients: 40, parameters: 1_000_000, value_bytes: 4, geometry: vec![geometry], merge }
    }

    #[test]
    fn what_is_measured_can_be_forecast_from_and_never_chooses_software() {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let adapter = adapters().into_iter().next();
        let options = adapter.map(|adapter| Options { adapter: Some(adapter.name), ..Options::default() });
        let found = calibrate(&pool, Isa::detect(), options.as_ref()).unwrap();
        println!("{found:#?}");
        let text = serde_json::to_string(&found).unwrap();
        assert!(serde_json::from_str::<Calibration>(&text).is_ok());
        let predicted = forecast(&found, &work());
        println!("{predicted}");
        assert!(predicted.cpu_s.is_finite() && predicted.cpu_s > 0.0);
        assert_eq!(predicted.gpu_s.is_some(), options.is_some());
        assert!(predicted.gpu_s.is_none_or(|s| s.is_finite() && s > 0.0));
        if found.device.is_some_and(|device| device.is_software) {
            assert!(!predicted.choice.is_gpu());
        }
    }
}
