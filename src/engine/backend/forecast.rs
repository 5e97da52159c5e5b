//! Predicts the time of a merge on the CPU and the GPU, and picks one for `--backend auto`.
//!
//! A CPU thread reads a tile, then computes on it, so its times add up. The GPU works as a ring: threads read files
//! into slots while the device works. The device has one queue, so its copies and kernels add up. A pass takes as long
//! as the slowest of reading, filling slots and the device. A second pass over updates that stayed on the device reads
//! nothing. The forecast leaves out opening files and publishing: they take the same time on both.

use crate::engine::backend::calibration::{Calibration, DeviceCalibration, Rates};
use std::fmt;

/// auto takes the GPU if the CPU needs more than this many times as long.
pub const LEAST_RATIO: f64 = 1.3;

/// auto takes the GPU if it saves more than this many seconds.
pub const LEAST_SAVED_S: f64 = 1.0;

/// The work of a merge.
#[derive(Clone, PartialEq, Debug)]
pub struct Work {
    /// The number of updates.
    pub clients: usize,
    /// The number of parameters of each.
    pub parameters: usize,
    /// Bytes of one stored parameter.
    pub value_bytes: usize,
    /// The geometry passes, in order.
    pub geometry: Vec<GeometryWork>,
    /// The pass that merges.
    pub merge: Merge,
}

/// A geometry pass, over pairs of points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeometryWork {
    /// The number of rows: clients, or mixtures of them.
    pub rows: usize,
    /// The number of rows and references.
    pub points: usize,
    /// Whether the rows are mixtures.
    pub mixed: bool,
    /// Whether squared differences are summed as well.
    pub differences: bool,
}

/// The pass that merges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Merge {
    /// The number of clients with weight.
    pub clients: usize,
    /// The number of mixtures that the pass reduces; `None` if it reduces the clients' rows.
    pub mixtures: Option<usize>,
    /// The reduction.
    pub reduction: Reduced,
}

/// The reduction of the rows of a coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the kernels'")]
pub enum Reduced {
    WeightedSum,
    Median,
    TrimmedMean,
    MeanNearMedian,
    /// The sum of integers on a grid, and noise on it.
    NoisedSum,
}

impl Work {
    fn bytes(&self, clients: usize) -> f64 {
        clients as f64 * self.parameters as f64 * self.value_bytes as f64
    }

    fn geometry_s(&self, rates: &Rates, geometry: &GeometryWork) -> f64 {
        let d = self.parameters as f64;
        let pairs = |points: usize| points as f64 * (points as f64 + 1.0) / 2.0;
        let terms = pairs(geometry.points) + if geometry.differences { pairs(geometry.rows) } else { 0.0 };
        let mix = if geometry.mixed { self.mix_s(rates, self.clients, geometry.rows) } else { 0.0 };
        // The centre is a median, or costs nearly as much.
        let centre = geometry.rows as f64 * d / rates.median_values_per_s.at(geometry.rows);
        mix + centre + terms * d / rates.pairs_multiply_adds_per_s.at(geometry.points)
    }

    fn merge_s(&self, rates: &Rates) -> f64 {
        let Merge { clients, mixtures, reduction } = self.merge;
        let rows = mixtures.unwrap_or(clients);
        let values = rows as f64 * self.parameters as f64;
        let mix = mixtures.map_or(0.0, |rows| self.mix_s(rates, clients, rows));
        mix + match reduction {
            Reduced::WeightedSum => self.bytes(rows) / rates.sum_bytes_per_s.at(rows),
            Reduced::Median => values / rates.median_values_per_s.at(rows),
            Reduced::TrimmedMean => values / rates.trimmed_values_per_s.at(rows),
            Reduced::MeanNearMedian => values / rates.near_values_per_s.at(rows),
            Reduced::NoisedSum => {
                self.bytes(rows) / rates.integer_bytes_per_s.at(rows)
                    + self.parameters as f64 / rates.noise_values_per_s.at(1)
            }
        }
    }

    fn mix_s(&self, rates: &Rates, clients: usize, mixtures: usize) -> f64 {
        let multiply_adds = mixtures as f64 * clients as f64 * self.parameters as f64;
        multiply_adds / rates.mix_multiply_adds_per_s.at(clients)
    }
}

/// Seconds of a pass on one backend.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct PassTime {
    /// Reading the files.
    pub read_s: f64,
    /// Filling slots and copying them to the device.
    pub ingest_s: f64,
    /// Kernels.
    pub compute_s: f64,
    /// The whole pass: less than the sum where the parts overlap.
    pub total_s: f64,
}

impl PassTime {
    fn on_cpu(bytes: f64, compute_s: f64, calibration: &Calibration) -> Self {
        let read_s = bytes / calibration.read_bytes_per_s;
        Self { read_s, ingest_s: 0.0, compute_s, total_s: read_s + compute_s }
    }

    fn on_device(bytes: f64, compute_s: f64, read_bytes_per_s: f64, device: &DeviceCalibration) -> Self {
        let resident = Self::resident(bytes, compute_s, device);
        let read_s = bytes / read_bytes_per_s;
        let ingest_s = bytes / device.ingest_bytes_per_s;
        let device_s = bytes / device.upload_bytes_per_s + resident.compute_s;
        Self { read_s, ingest_s, total_s: read_s.max(ingest_s).max(device_s), ..resident }
    }

    /// The time of a pass over rows that stayed on the device.
    fn resident(bytes: f64, compute_s: f64, device: &DeviceCalibration) -> Self {
        let runs = (bytes / device.slot_bytes as f64).ceil();
        let compute_s = compute_s + runs * device.latency_s;
        Self { read_s: 0.0, ingest_s: 0.0, compute_s, total_s: compute_s }
    }
}

/// The forecast of a pass on both backends.
#[derive(Clone, PartialEq, Debug)]
pub struct PassForecast {
    /// The name of the pass.
    pub name: &'static str,
    /// The time on the CPU.
    pub cpu: PassTime,
    /// The time on the GPU; `None` without one.
    pub gpu: Option<PassTime>,
}

/// The forecast of a merge on both backends.
#[derive(Clone, PartialEq, Debug)]
pub struct Forecast {
    /// The passes, in order.
    pub passes: Vec<PassForecast>,
    /// Seconds to open the GPU.
    pub start_s: Option<f64>,
    /// Seconds of the merge on the CPU.
    pub cpu_s: f64,
    /// Seconds of the merge on the GPU; `None` without one.
    pub gpu_s: Option<f64>,
    /// The name of the GPU; `None` without one.
    pub adapter: Option<String>,
    /// The backend that auto takes.
    pub choice: Prediction,
}

/// The backend that auto takes, and why.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Prediction {
    Cpu { why: String },
    Gpu { why: String },
}

impl Prediction {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            Self::Cpu { why } | Self::Gpu { why } => why,
        }
    }

    /// Whether it is the GPU.
    pub fn is_gpu(&self) -> bool {
        matches!(self, Self::Gpu { .. })
    }
}

/// Predicts the time of a merge on both backends.
pub fn forecast(calibration: &Calibration, work: &Work) -> Forecast {
    let all = work.bytes(work.clients);
    let device = calibration.device.as_ref();
    let read = calibration.read_bytes_per_s;
    let mut passes: Vec<PassForecast> = Vec::new();
    let stays = |device: &DeviceCalibration| all <= device.resident_bytes as f64;
    for (number, geometry) in work.geometry.iter().enumerate() {
        let on_device = |device: &DeviceCalibration| {
            let compute_s = work.geometry_s(&device.rates, geometry);
            match number > 0 && stays(device) {
                true => PassTime::resident(all, compute_s, device),
                false => PassTime::on_device(all, compute_s, read, device),
            }
        };
        let cpu = PassTime::on_cpu(all, work.geometry_s(&calibration.cpu, geometry), calibration);
        passes.push(PassForecast { name: "pairs", cpu, gpu: device.map(on_device) });
    }
    let bytes = work.bytes(work.merge.clients);
    let on_device = |device: &DeviceCalibration| {
        let compute_s = work.merge_s(&device.rates);
        match !work.geometry.is_empty() && stays(device) {
            true => PassTime::resident(bytes, compute_s, device),
            false => PassTime::on_device(bytes, compute_s, read, device),
        }
    };
    let cpu = PassTime::on_cpu(bytes, work.merge_s(&calibration.cpu), calibration);
    passes.push(PassForecast { name: "merge", cpu, gpu: device.map(on_device) });
    concluded(calibration, passes)
}

fn concluded(calibration: &Calibration, passes: Vec<PassForecast>) -> Forecast {
    let device = calibration.device.as_ref();
    let cpu_s = passes.iter().map(|pass| pass.cpu.total_s).sum();
    let on_gpu = || passes.iter().filter_map(|pass| pass.gpu).map(|time| time.total_s).sum::<f64>();
    let gpu_s = device.map(|device| device.start_s + on_gpu());
    Forecast {
        choice: choose(calibration, cpu_s, gpu_s),
        start_s: device.map(|device| device.start_s),
        adapter: device.map(|device| device.adapter.clone()),
        passes,
        cpu_s,
        gpu_s,
    }
}

fn choose(calibration: &Calibration, cpu_s: f64, gpu_s: Option<f64>) -> Prediction {
    let cpu = |why: String| Prediction::Cpu { why };
    let (Some(device), Some(gpu_s)) = (&calibration.device, gpu_s) else {
        return cpu(match calibration.host {
            None => "no calibration: run `fedmill doctor --calibrate`".to_owned(),
            Some(_) => "the calibration is of a host without a GPU".to_owned(),
        });
    };
    let (ratio, saved) = (cpu_s / gpu_s, cpu_s - gpu_s);
    if device.is_software {
        cpu(format!("{} is a software adapter", device.adapter))
    } else if ratio.is_nan() {
        cpu(format!("{} was not measured on this work", device.adapter))
    } else if ratio <= LEAST_RATIO {
        cpu(format!("the GPU would be {ratio:.2} times as fast, expected more than {LEAST_RATIO}"))
    } else if saved <= LEAST_SAVED_S {
        cpu(format!("the GPU would save {}, expected more than {LEAST_SAVED_S} s", seconds(saved)))
    } else {
        Prediction::Gpu { why: format!("predicted {ratio:.1} times as fast, {} saved", seconds(saved)) }
    }
}

impl fmt::Display for Forecast {
    /// The table of `--explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; 6]| {
            let [side, pass, read, ingest, compute, total] = cells;
            writeln!(f, "{side:<4} {pass:<8} {read:>10} {ingest:>10} {compute:>10} {total:>10}")
        };
        line(f, ["", "pass", "read", "ingest", "compute", "predicted"])?;
        let side = |f: &mut fmt::Formatter<'_>, side: &str, pass: &str, time: PassTime| {
            let [read, ingest, compute] = [time.read_s, time.ingest_s, time.compute_s].map(seconds);
            line(f, [side, pass, &read, &ingest, &compute, &seconds(time.total_s)])
        };
        for pass in &self.passes {
            side(f, "cpu", pass.name, pass.cpu)?;
        }
        line(f, ["cpu", "all", "", "", "", &seconds(self.cpu_s)])?;
        if let Some(start_s) = self.start_s {
            line(f, ["gpu", "start", "", "", "", &seconds(start_s)])?;
        }
        for pass in &self.passes {
            pass.gpu.map_or(Ok(()), |time| side(f, "gpu", pass.name, time))?;
        }
        if let (Some(gpu_s), Some(adapter)) = (self.gpu_s, &self.adapter) {
            line(f, ["gpu", "all", "", "", "", &seconds(gpu_s)])?;
            writeln!(f, "gpu is {adapter}")?;
        }
        let name = if self.choice.is_gpu() { "gpu" } else { "cpu" };
        write!(f, "auto takes the {name}: {}", self.choice.why())
    }
}

/// A time as text, in microseconds, milliseconds or seconds.
fn seconds(s: f64) -> String {
    match s.abs() {
        0.0 => "-".to_owned(),
        small if small < 1e-3 => format!("{:.1} us", s * 1e6),
        small if small < 1.0 => format!("{:.1} ms", s * 1e3),
        _ => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::backend::calibration::{Curve, Host};

    /// Round figures, so that times can be worked out by hand.
    fn rates(scale: f64) -> Rates {
        let flat = |rate: f64| Curve::new(vec![(1, rate * scale)]);
        Rates {
            sum_bytes_per_s: flat(4e9),
            median_values_per_s: flat(1e9),
            trimmed_values_per_s: flat(5e8),
            near_values_per_s: flat(2.5e8),
            pairs_multiply_adds_per_s: flat(1e10),
            mix_multiply_adds_per_s: flat(2e9),
            integer_bytes_per_s: flat(2e9),
            noise_values_per_s: flat(1e8),
        }
    }

    fn device() -> DeviceCalibration {
        DeviceCalibration {
            adapter: "Big".into(),
            driver: "1".into(),
            is_software: false,
            start_s: 0.5,
            latency_s: 1e-3,
            slot_bytes: 100_000_000,
            ingest_bytes_per_s: 4e9,
            upload_bytes_per_s: 2e10,
            resident_bytes: 50_000_000_000,
            rates: rates(100.0),
        }
    }

    fn calibration(device: Option<DeviceCalibration>) -> Calibration {
        let host = Host { processor: "P".into(), isa: "avx2".into(), threads: 2 };
        Calibration::new(host, 1e10, rates(1.0), device)
    }

    /// 100 updates of 10 M f32: 4 GB, 1e9 values.
    fn work(geometry: Vec<GeometryWork>, reduction: Reduced) -> Work {
        let merge = Merge { clients: 100, mixtures: None, reduction };
        Work { clients: 100, parameters: 10_000_000, value_bytes: 4, geometry, merge }
    }

    const GEOMETRY: GeometryWork = GeometryWork { rows: 100, points: 101, mixed: false, differences: false };

    #[track_caller]
    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9 * expected.max(1.0), "{got}, expected {expected}");
    }

    #[test]
    fn the_cpu_reads_then_computes() {
        let plain = calibration(None);
        for (reduction, compute_s) in [
            (Reduced::WeightedSum, 1.0),
            (Reduced::Median, 1.0),
            (Reduced::TrimmedMean, 2.0),
            (Reduced::MeanNearMedian, 4.0),
            // 4 GB of integers, and noise on 10 M coordinates.
            (Reduced::NoisedSum, 2.1),
        ] {
            let found = forecast(&plain, &work(Vec::new(), reduction));
            close(found.passes[0].cpu.read_s, 0.4);
            close(found.passes[0].cpu.compute_s, compute_s);
            close(found.cpu_s, 0.4 + compute_s);
            assert_eq!((found.gpu_s, found.passes.len()), (None, 1));
        }
    }

    #[test]
    fn the_gpu_takes_as_long_as_its_slowest_part() {
        let median = work(Vec::new(), Reduced::Median);
        // Ingest 4 GB at 4 GB/s; the device copies for 0.2 s and computes for 10 ms and 40 times 1 ms.
        let found = forecast(&calibration(Some(device())), &median);
        let time = found.passes[0].gpu.unwrap();
        close(time.ingest_s, 1.0);
        close(time.compute_s, 0.05);
        close(time.total_s, 1.0);
        close(found.gpu_s.unwrap(), 1.5);
        let fast = DeviceCalibration { ingest_bytes_per_s: 1e11, ..device() };
        close(forecast(&calibration(Some(fast.clone())), &median).gpu_s.unwrap(), 0.5 + 0.4);
        let slow = DeviceCalibration { rates: rates(1.0), ..fast };
        close(forecast(&calibration(Some(slow)), &median).gpu_s.unwrap(), 0.5 + 0.2 + 1.0 + 0.04);
    }

    #[test]
    fn what_fits_the_device_is_read_once() {
        let two = work(vec![GEOMETRY], Reduced::WeightedSum);
        let found = forecast(&calibration(Some(device())), &two);
        // 101 * 102 / 2 pairs of 10 M coordinates, and the centre.
        close(found.passes[0].cpu.compute_s, 5.151 + 1.0);
        close(found.cpu_s, 0.4 + 6.151 + 0.4 + 1.0);
        let [first, second] = [&found.passes[0], &found.passes[1]].map(|pass| pass.gpu.unwrap());
        close(first.total_s, 1.0);
        close(second.total_s, 0.01 + 0.04);
        assert_eq!(second.read_s, 0.0);
        let small = DeviceCalibration { resident_bytes: 3_999_999_999, ..device() };
        let found = forecast(&calibration(Some(small)), &two);
        close(found.passes[1].gpu.unwrap().total_s, 1.0);
    }

    #[test]
    fn mixtures_and_differences_cost_their_multiply_adds() {
        let geometry = GeometryWork { rows: 20, points: 21, mixed: true, differences: true };
        let merge = Merge { clients: 50, mixtures: Some(10), reduction: Reduced::Median };
        let work = Work { merge, ..work(vec![geometry], Reduced::Median) };
        let found = forecast(&calibration(None), &work);
        let (mix, centre, pairs) = (20.0 * 100.0 * 1e7 / 2e9, 20.0 * 1e7 / 1e9, (231.0 + 210.0) * 1e7 / 1e10);
        close(found.passes[0].cpu.compute_s, mix + centre + pairs);
        close(found.passes[1].cpu.read_s, 0.2);
        close(found.passes[1].cpu.compute_s, 10.0 * 50.0 * 1e7 / 2e9 + 0.1);
    }

    #[test]
    fn the_gpu_must_win_by_a_margin() {
        let with = calibration(Some(device()));
        let choice = |cpu_s, gpu_s| choose(&with, cpu_s, Some(gpu_s)).is_gpu();
        assert!(choice(10.0, 5.0));
        assert!(!choice(13.0, 10.0), "1.3 times as fast is not more than that");
        assert!(choice(13.2, 10.0));
        assert!(!choice(2.0, 1.0), "one second saved is not more than that");
        assert!(choice(2.01, 1.0));
        assert!(!choice(0.0, 0.0));
        assert!(!choice(5.0, 10.0));
    }

    #[test]
    fn a_software_adapter_is_never_taken() {
        let software = DeviceCalibration { is_software: true, ..device() };
        let found = choose(&calibration(Some(software)), 1000.0, Some(1.0));
        assert_eq!(found, Prediction::Cpu { why: "Big is a software adapter".into() });
    }

    #[test]
    fn what_was_not_measured_of_a_device_is_not_done_there() {
        let mut lame = device();
        lame.rates.near_values_per_s = Curve::new(Vec::new());
        let with = calibration(Some(lame));
        let found = forecast(&with, &work(vec![GEOMETRY], Reduced::MeanNearMedian));
        assert_eq!(found.choice.why(), "Big was not measured on this work");
        assert!(forecast(&with, &work(vec![GEOMETRY], Reduced::Median)).choice.is_gpu());
    }

    #[test]
    fn without_a_measured_device_the_cpu_is_taken_and_says_why() {
        let work = work(vec![GEOMETRY], Reduced::Median);
        let unmeasured = forecast(&Calibration::default(), &work);
        assert!(!unmeasured.choice.is_gpu());
        assert_eq!(unmeasured.choice.why(), "no calibration: run `fedmill doctor --calibrate`");
        assert!(unmeasured.cpu_s > 1.0);
        let alone = forecast(&calibration(None), &work);
        assert_eq!(alone.choice.why(), "the calibration is of a host without a GPU");
    }

    #[test]
    fn the_explanation_has_both_sides() {
        let text = forecast(&calibration(Some(device())), &work(vec![GEOMETRY], Reduced::Median)).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "     pass           read     ingest    compute  predicted");
        assert_eq!(lines[1], "cpu  pairs      400.0 ms          -     6.15 s     6.55 s");
        assert_eq!(lines[3], "cpu  all                                           7.95 s");
        assert_eq!(lines[4], "gpu  start                                       500.0 ms");
        assert_eq!(lines[8], "gpu is Big");
        assert_eq!(lines[9], "auto takes the gpu: predicted 5.1 times as fast, 6.40 s saved");
    }
}
