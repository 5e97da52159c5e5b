//! The measured speed of this host and its GPU, and the cache file that keeps it.
//!
//! `fedmill doctor --calibrate` measures, and [`forecast`](crate::engine::backend::forecast) predicts from the figures.
//! The cache file names the processor, the instruction set, the number of threads and the driver. A run ignores the
//! figures, and says why, if one of these has changed.

use crate::gpu::job::Adapter;
use crate::io::{cache, machine};
use crate::kernels::lanes::Isa;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version of the cache file.
const SCHEMA: &str = "fedmill.calibration/1";

/// The name of the cache file.
const FILE: &str = "calibration.json";

/// The measured speed of a host.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Calibration {
    schema: String,
    /// The host that was measured; `None` for a cautious guess.
    pub host: Option<Host>,
    /// Bytes per second that all threads together read, with a warm page cache.
    pub read_bytes_per_s: f64,
    /// The rates of all threads together.
    pub cpu: Rates,
    /// The GPU; `None` for a host without one.
    pub device: Option<DeviceCalibration>,
}

/// What identifies a measured host.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The processor's name.
    pub processor: String,
    /// The instruction set that kernels ran on.
    pub isa: String,
    /// The number of worker threads.
    pub threads: usize,
}

impl Host {
    /// The host that this process runs on.
    pub fn here(isa: Isa, threads: usize) -> Self {
        Self { processor: machine::processor(), isa: isa.to_string(), threads }
    }
}

/// Work per second of the CPU or the GPU, by the number of rows.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Rates {
    /// Bytes per second of weighted sums.
    pub sum_bytes_per_s: Curve,
    /// Values per second of medians.
    pub median_values_per_s: Curve,
    /// Values per second of trimmed means.
    pub trimmed_values_per_s: Curve,
    /// Values per second of means of the values nearest to the median.
    pub near_values_per_s: Curve,
    /// Multiply-adds per second of sums over pairs, without the centring.
    pub pairs_multiply_adds_per_s: Curve,
    /// Multiply-adds per second of mixtures.
    pub mix_multiply_adds_per_s: Curve,
    /// Bytes per second of sums of integers on a grid, and of their squares.
    pub integer_bytes_per_s: Curve,
    /// Values per second of noise.
    pub noise_values_per_s: Curve,
}

/// The measured speed of a GPU.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct DeviceCalibration {
    /// Its name.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Whether it is a software adapter, which runs on the processor.
    pub is_software: bool,
    /// Seconds to open it and to compile the kernels.
    pub start_s: f64,
    /// Seconds of the smallest run of a slot.
    pub latency_s: f64,
    /// Bytes of rows in a slot.
    pub slot_bytes: u64,
    /// Bytes per second that all threads together move from host memory through slots to the device.
    pub ingest_bytes_per_s: f64,
    /// Bytes per second that the device copies out of slots, while no kernel runs.
    pub upload_bytes_per_s: f64,
    /// Bytes that may stay in device memory between passes.
    pub resident_bytes: u64,
    /// The rates of its kernels.
    pub rates: Rates,
}

/// A rate as a function of the number of rows, measured at a few numbers.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(transparent)]
pub struct Curve(Vec<(usize, f64)>);

impl Curve {
    /// A curve through these points, in rising order of rows. A curve without points means that the device cannot do
    /// it.
    pub fn new(points: Vec<(usize, f64)>) -> Self {
        Self(points)
    }

    /// The rate for a number of rows: a power law between two points, the nearest rate beyond them. NaN without points.
    pub fn at(&self, rows: usize) -> f64 {
        let above = self.0.partition_point(|(n, _)| *n < rows);
        match (self.0.get(above.wrapping_sub(1)), self.0.get(above)) {
            (Some(below), Some(above)) => between(*below, *above, rows),
            (None, Some((_, rate))) | (Some((_, rate)), None) => *rate,
            (None, None) => f64::NAN,
        }
    }

    fn is_sound(&self) -> bool {
        let rises = self.0.windows(2).all(|pair| pair[0].0 < pair[1].0);
        rises && self.0.iter().all(|(n, rate)| *n > 0 && is_rate(*rate))
    }
}

fn between((below, low): (usize, f64), (above, high): (usize, f64), rows: usize) -> f64 {
    let ratio = |a: usize, b: usize| (a as f64 / b as f64).ln();
    low * (high / low).powf(ratio(rows, below) / ratio(above, below))
}

fn is_rate(rate: f64) -> bool {
    rate.is_finite() && rate > 0.0
}

impl Rates {
    fn curves(&self) -> [&Curve; 8] {
        [
            &self.sum_bytes_per_s,
            &self.median_values_per_s,
            &self.trimmed_values_per_s,
            &self.near_values_per_s,
            &self.pairs_multiply_adds_per_s,
            &self.mix_multiply_adds_per_s,
            &self.integer_bytes_per_s,
            &self.noise_values_per_s,
        ]
    }
}

impl Default for Calibration {
    /// A cautious guess for a host without a calibration: two cores of a server of 2024, and no GPU.
    fn default() -> Self {
        let order = |scale: f64| {
            let points = [(2, 8e9), (8, 6e9), (16, 5e9), (32, 4e9), (64, 2e9), (256, 5e8), (1024, 2.5e8)];
            Curve::new(points.map(|(n, rate)| (n, (rate * scale).round())).to_vec())
        };
        Self {
            schema: SCHEMA.to_owned(),
            host: None,
            read_bytes_per_s: 1e10,
            cpu: Rates {
                sum_bytes_per_s: Curve::new(vec![(2, 3e10)]),
                median_values_per_s: order(1.0),
                trimmed_values_per_s: order(0.7),
                near_values_per_s: order(0.5),
                pairs_multiply_adds_per_s: Curve::new(vec![(8, 2e10), (32, 8e10)]),
                mix_multiply_adds_per_s: Curve::new(vec![(2, 8e9)]),
                integer_bytes_per_s: Curve::new(vec![(2, 4e9)]),
                noise_values_per_s: Curve::new(vec![(1, 5e7)]),
            },
            device: None,
        }
    }
}

/// Why a cached calibration cannot be used.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Unusable {
    #[error("this host was not calibrated")]
    Missing,
    #[error("{path} could not be read: {why}")]
    Unreadable { path: String, why: String },
    #[error("{path} is not a calibration of this version")]
    Malformed { path: String },
    #[error("the calibration is of {what} `{then}`, this is `{now}`")]
    Changed { what: &'static str, then: String, now: String },
}

/// Why a calibration could not be stored.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum NotStored {
    #[error("no cache directory: neither XDG_CACHE_HOME nor HOME is set")]
    NoPlace,
    #[error("{path} could not be written")]
    NotWritten { path: PathBuf, source: std::io::Error },
}

impl Calibration {
    /// The calibration of a measured host.
    pub fn new(host: Host, read_bytes_per_s: f64, cpu: Rates, device: Option<DeviceCalibration>) -> Self {
        Self { schema: SCHEMA.to_owned(), host: Some(host), read_bytes_per_s, cpu, device }
    }

    /// Loads the cached calibration of this host. [`DeviceCalibration::is_of`] then checks the device.
    ///
    /// # Errors
    ///
    /// When there is none, or it is of another host.
    pub fn load(host: &Host) -> Result<Self, Unusable> {
        let path = cache::path(FILE).ok_or(Unusable::Missing)?;
        let path_text = path.display().to_string();
        let bytes = cache::read(&path)
            .map_err(|why| Unusable::Unreadable { path: path_text.clone(), why: why.to_string() })?
            .ok_or(Unusable::Missing)?;
        let found: Option<Self> = serde_json::from_slice(&bytes).ok().filter(Self::is_sound);
        found.ok_or(Unusable::Malformed { path: path_text })?.of(host)
    }

    /// Stores the calibration for later runs. Returns the path.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn store(&self) -> Result<PathBuf, NotStored> {
        let path = cache::path(FILE).ok_or(NotStored::NoPlace)?;
        let written = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        match written.and_then(|bytes| cache::write(&path, &bytes)) {
            Ok(()) => Ok(path),
            Err(source) => Err(NotStored::NotWritten { path, source }),
        }
    }

    fn of(self, now: &Host) -> Result<Self, Unusable> {
        let changed = |what, then: &dyn ToString, now: &dyn ToString| {
            Err(Unusable::Changed { what, then: then.to_string(), now: now.to_string() })
        };
        match &self.host {
            None => Err(Unusable::Missing),
            Some(then) if then.processor != now.processor => {
                changed("the processor", &then.processor, &now.processor)
            }
            Some(then) if then.isa != now.isa => changed("the instruction set", &then.isa, &now.isa),
            Some(then) if then.threads != now.threads => {
                changed("a number of threads of", &then.threads, &now.threads)
            }
            Some(_) => Ok(self),
        }
    }

    fn is_sound(&self) -> bool {
        let device = self.device.as_ref();
        let rates = [Some(&self.cpu), device.map(|device| &device.rates)];
        let seconds =
            device.is_none_or(|device| [device.start_s, device.latency_s].iter().all(|s| *s >= 0.0));
        let bytes = device.is_none_or(|device| {
            device.slot_bytes > 0 && is_rate(device.ingest_bytes_per_s) && is_rate(device.upload_bytes_per_s)
        });
        let curves = rates.into_iter().flatten().flat_map(Rates::curves).all(Curve::is_sound);
        let curves = curves && self.cpu.curves().iter().all(|curve| !curve.0.is_empty());
        self.schema == SCHEMA && is_rate(self.read_bytes_per_s) && seconds && bytes && curves
    }
}

impl DeviceCalibration {
    /// Checks that this adapter and its driver are the measured ones.
    ///
    /// # Errors
    ///
    /// When it is another, or its driver was changed.
    pub fn is_of(&self, adapter: &Adapter) -> Result<(), Unusable> {
        let changed = |what, then: &str, now: &str| {
            Err(Unusable::Changed { what, then: then.to_owned(), now: now.to_owned() })
        };
        match self {
            _ if self.adapter != adapter.name => changed("the adapter", &self.adapter, &adapter.name),
            _ if self.driver != adapter.driver => changed("the driver", &self.driver, &adapter.driver),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { processor: "P".into(), isa: "avx2".into(), threads: 2 }
    }

    #[test]
    fn curves_are_power_laws_between_points_and_flat_beyond() {
        let curve = Curve::new(vec![(4, 100.0), (16, 400.0)]);
        for (rows, rate) in [(1, 100.0), (4, 100.0), (8, 200.0), (16, 400.0), (1000, 400.0)] {
            assert!((curve.at(rows) - rate).abs() < 1e-9, "{rows}: {}", curve.at(rows));
        }
        assert_eq!(Curve::new(vec![(2, 5.0)]).at(7), 5.0);
    }

    #[test]
    fn a_calibration_survives_json() {
        let calibration = Calibration { host: Some(host()), ..Calibration::default() };
        let text = serde_json::to_string(&calibration).unwrap();
        let again: Calibration = serde_json::from_str(&text).unwrap();
        assert_eq!(again, calibration);
        assert!(again.is_sound());
        assert_eq!(again.clone().of(&host()), Ok(again));
    }

    #[test]
    fn a_calibration_of_another_host_says_what_changed() {
        let calibration = Calibration { host: Some(host()), ..Calibration::default() };
        let others = [
            (Host { processor: "Q".into(), ..host() }, "the processor `P`, this is `Q`"),
            (Host { isa: "avx512".into(), ..host() }, "the instruction set `avx2`, this is `avx512`"),
            (Host { threads: 4, ..host() }, "a number of threads of `2`, this is `4`"),
        ];
        for (other, said) in others {
            let why = calibration.clone().of(&other).unwrap_err().to_string();
            assert_eq!(why, format!("the calibration is of {said}"));
        }
        assert_eq!(Calibration::default().of(&host()), Err(Unusable::Missing));
    }

    #[test]
    fn broken_figures_are_noticed() {
        let sound = Calibration::default();
        assert!(sound.is_sound());
        assert!(!Calibration { schema: "fedmill.calibration/0".into(), ..sound.clone() }.is_sound());
        assert!(!Calibration { read_bytes_per_s: 0.0, ..sound.clone() }.is_sound());
        for points in [vec![], vec![(0, 1.0)], vec![(2, 1.0), (2, 1.0)], vec![(2, f64::NAN)], vec![(2, -1.0)]]
        {
            let cpu = Rates { sum_bytes_per_s: Curve::new(points), ..sound.cpu.clone() };
            assert!(!Calibration { cpu, ..sound.clone() }.is_sound());
        }
    }
}
