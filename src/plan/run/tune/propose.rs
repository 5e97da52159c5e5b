//! Candidates for a tuned parameter, within its bounds and near the value in use.

use super::Tuning;
use crate::io::digest::Blake3;
use crate::plan::schema::looped::{Policy, Tune};

/// Draws of a random candidate, until one is not tabu.
const DRAWS: u32 = 16;

/// The candidate of the next trial. `whole` says that the parameter is a whole number, and `measured` is the last value
/// of the metric `fedexp`.
///
/// # Errors
///
/// When no value is left to try; with the reason.
pub fn candidate(tune: &Tune, tuning: &Tuning, whole: bool, measured: Option<f64>) -> Result<f64, String> {
    let range = Range::of(tune, tuning.value, whole);
    let proposals: Vec<f64> = match tune.policy {
        Policy::Climb => {
            let [first, second] =
                if tuning.upwards { [range.most, range.least] } else { [range.least, range.most] };
            vec![first, second]
        }
        Policy::Random => {
            (0..DRAWS).map(|draw| range.at(uniform(tune.seed, tuning.trials + 1, draw))).collect()
        }
        Policy::Fedexp => {
            let measured = measured.filter(|value| !value.is_nan());
            vec![range.nearest(measured.ok_or("no stage measured the metric `fedexp`")?)]
        }
    };
    let usable = |value: &f64| *value != tuning.value && !tuning.is_tabu(*value);
    let found = proposals.into_iter().find(usable);
    found.ok_or_else(|| format!("each candidate near {} is in use, out of bounds or tabu", tuning.value))
}

/// The values that a trial may try.
struct Range {
    least: f64,
    most: f64,
    whole: bool,
}

impl Range {
    fn of(tune: &Tune, value: f64, whole: bool) -> Self {
        let [low, high] = tune.bounds;
        let (mut least, mut most) = ((value / tune.max_ratio).max(low), (value * tune.max_ratio).min(high));
        if whole {
            (least, most) = (least.ceil(), most.floor());
        }
        // Rounding may leave nothing but the value in use.
        Self { least: least.min(value), most: most.max(value), whole }
    }

    fn nearest(&self, value: f64) -> f64 {
        let value = if self.whole { value.round() } else { value };
        value.clamp(self.least, self.most)
    }

    /// The value at a part of the range, in logarithms.
    fn at(&self, part: f64) -> f64 {
        self.nearest(self.least * (self.most / self.least).powf(part))
    }
}

/// A number from 0 to 1 for a draw: the same in every run.
fn uniform(seed: u64, trial: u32, draw: u32) -> f64 {
    let digest = Blake3::of_bytes(format!("tune {seed} {trial} {draw}").as_bytes());
    let bits = digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
