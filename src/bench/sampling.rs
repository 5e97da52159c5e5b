//! Repeats a case, first to warm up, then to measure, and keeps percentiles.

use crate::io::interrupt::{self, Interrupted};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The numbers of runs of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeats {
    /// Unmeasured runs before the measured ones.
    pub warm_up: usize,
    /// Measured runs.
    pub samples: usize,
}

/// The times of a run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sample {
    /// The whole run.
    pub total: Duration,
    /// Sending data to the device, if measured apart.
    pub transfer: Option<Duration>,
    /// Kernels, if measured apart.
    pub compute: Option<Duration>,
}

impl Sample {
    /// A run with a total time alone.
    pub fn whole(total: Duration) -> Self {
        Self { total, ..Self::default() }
    }
}

/// Times in nanoseconds.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub samples: u64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

/// The times of the runs of a case.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Whole runs.
    pub total: Percentiles,
    /// Sending data to the device.
    pub transfer: Option<Percentiles>,
    /// Kernels.
    pub compute: Option<Percentiles>,
}

/// Runs a case. Its first runs do not count.
///
/// # Errors
///
/// Errors of the case, and when a signal asked to stop.
pub fn sample<E: From<Interrupted>>(
    repeats: Repeats,
    mut run: impl FnMut() -> Result<Sample, E>,
) -> Result<Latency, E> {
    for _ in 0..repeats.warm_up {
        interrupt::check()?;
        run()?;
    }
    let mut samples = Vec::with_capacity(repeats.samples);
    for _ in 0..repeats.samples.max(1) {
        interrupt::check()?;
        samples.push(run()?);
    }
    let part = |of: fn(&Sample) -> Option<Duration>| {
        let times: Vec<Duration> = samples.iter().filter_map(of).collect();
        (!times.is_empty()).then(|| percentiles(&times))
    };
    let totals: Vec<Duration> = samples.iter().map(|sample| sample.total).collect();
    Ok(Latency {
        total: percentiles(&totals),
        transfer: part(|sample| sample.transfer),
        compute: part(|sample| sample.compute),
    })
}

/// Runs `work`. Returns its time and its result.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let done = work();
    (started.elapsed(), done)
}

/// Significant digits of a histogram.
const DIGITS: u8 = 3;

/// The longest time of a histogram: a day.
const LONGEST_NS: u64 = 86_400_000_000_000;

fn percentiles(times: &[Duration]) -> Percentiles {
    let nanoseconds = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (min, max) = (times.iter().map(nanoseconds).min(), times.iter().map(nanoseconds).max());
    let (min_ns, max_ns) = (min.unwrap_or(0), max.unwrap_or(0));
    let histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, DIGITS).map(|mut histogram| {
        times.iter().for_each(|time| histogram.saturating_record(nanoseconds(time)));
        histogram
    });
    // A histogram rounds up within its digits, so clamp to the measured range.
    let at = |quantile: f64| {
        let found = histogram.as_ref().map_or(max_ns, |histogram| histogram.value_at_quantile(quantile));
        found.clamp(min_ns, max_ns)
    };
    Percentiles {
        samples: times.len() as u64,
        min_ns,
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        max_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_runs_that_count() {
        let mut run = 0;
        let latency = sample::<Interrupted>(Repeats { warm_up: 3, samples: 100 }, || {
            run += 1;
            let total = if run <= 3 { Duration::from_secs(9) } else { Duration::from_micros(run - 3) };
            Ok(Sample { total, transfer: Some(total / 2), compute: None })
        });
        let Latency { total, transfer, compute } = latency.unwrap();
        assert_eq!((total.samples, total.min_ns, total.max_ns), (100, 1_000, 100_000));
        for (found, expected) in [(total.p50_ns, 50_000), (total.p90_ns, 90_000), (total.p99_ns, 99_000)] {
            assert!(found.abs_diff(expected) <= expected / 1000 + 1, "{found}, expected {expected}");
        }
        assert!(transfer.unwrap().p50_ns.abs_diff(25_000) <= 26);
        assert_eq!(compute, None);
    }

    #[test]
    fn one_run_is_all_percentiles() {
        let run = || Ok::<_, Interrupted>(Sample::whole(Duration::from_nanos(1_234_567)));
        let total = sample(Repeats { warm_up: 0, samples: 0 }, run).unwrap().total;
        assert_eq!(
            (total.min_ns, total.p50_ns, total.p99_ns, total.max_ns),
            (1_234_567, 1_234_567, 1_234_567, 1_234_567)
        );
    }
}
