//! Judges a candidate by its shadow runs and by those with the value in use, in pairs.

use crate::measures::paired::{Interval, interval};
use crate::schema::looped::{Validate, Worse};
use serde::{Deserialize, Serialize};

/// A metric of both kinds of shadow runs, in order of the iterations that they repeat.
#[derive(Clone, PartialEq, Debug)]
pub struct Pairs {
    /// With the value in use.
    pub now: Vec<f64>,
    /// With the candidate.
    pub new: Vec<f64>,
}

/// What came of a trial.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Verdict {
    /// Whether the candidate is in use from now on.
    pub accepted: bool,
    /// The reason.
    pub why: String,
    /// The mean gain, relative to the metric with the value in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// The ends of its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The share of the repeated iterations in which the candidate was better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wins: Option<f64>,
    /// The worst metric of the iterations that were repeated, as they ran: a change is taken back if later ones are
    /// worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<f64>,
}

impl Verdict {
    /// A refusal.
    pub fn refused(why: impl Into<String>) -> Self {
        Self { accepted: false, why: why.into(), gain: None, interval: None, wins: None, bar: None }
    }
}

/// Judges a candidate. The interval of the mean gain is Student's t of the paired differences: without an effect it lies
/// above 0 in (1 - ci) / 2 of all trials at most, 2.5 % by default.
pub fn judge(validate: &Validate, metric: &Pairs, guards: &[(String, Worse, Pairs)]) -> Verdict {
    let gains = match relative(validate, metric) {
        Ok(gains) => gains,
        Err(why) => return Verdict::refused(why),
    };
    let Some(Interval { mean: gain, low, high }) = interval(&gains, validate.ci) else {
        return Verdict::refused("one iteration was repeated, expected two or more");
    };
    let worse = guards.iter().find(|(_, direction, pairs)| is_worse(*direction, pairs));
    let why = if let Some((name, _, pairs)) = worse {
        format!(
            "guard `{name}` is worse: {} with the candidate, {} without",
            mean(&pairs.new),
            mean(&pairs.now)
        )
    } else if gain < validate.gain {
        format!("the gain {gain:.4} is below {}", validate.gain)
    } else if low <= 0.0 {
        format!("the interval of the gain, {low:.4} to {high:.4}, does not lie above 0")
    } else {
        format!("the gain {gain:.4} reaches {}, and its interval lies above 0", validate.gain)
    };
    let accepted = worse.is_none() && gain >= validate.gain && low > 0.0;
    Verdict {
        accepted,
        why,
        gain: Some(gain),
        interval: Some([low, high]),
        wins: Some(wins(&gains)),
        bar: None,
    }
}

/// The gain of a candidate that other candidates have to match before one is judged: it is never accepted.
pub fn compare(validate: &Validate, metric: &Pairs) -> Verdict {
    match relative(validate, metric) {
        Err(why) => Verdict::refused(why),
        Ok(gains) => {
            let (gain, count) = (mean(&gains), gains.len());
            let why = format!(
                "the gain {gain:.4} on {count} of {} iterations is for comparison",
                validate.replay_rounds
            );
            Verdict { gain: Some(gain), wins: Some(wins(&gains)), ..Verdict::refused(why) }
        }
    }
}

/// The gain in each repeated iteration, relative to the mean with the value in use.
fn relative(validate: &Validate, metric: &Pairs) -> Result<Vec<f64>, String> {
    let sign = if validate.minimize { -1.0 } else { 1.0 };
    let scale = mean(&metric.now).abs();
    let gains = metric.new.iter().zip(&metric.now).map(|(new, now)| sign * (new - now) / scale);
    let gains: Vec<f64> = gains.collect();
    if scale == 0.0 {
        return Err(format!("`{}` is 0 with the value in use: no gain is relative to it", validate.metric));
    }
    match gains.iter().all(|gain| gain.is_finite()) && !gains.is_empty() {
        true => Ok(gains),
        false => Err(format!("`{}` is not a finite number in each shadow run", validate.metric)),
    }
}

fn wins(gains: &[f64]) -> f64 {
    gains.iter().filter(|gain| **gain > 0.0).count() as f64 / gains.len() as f64
}

/// Whether a guard is worse with the candidate by any amount beyond rounding.
fn is_worse(direction: Worse, pairs: &Pairs) -> bool {
    let (now, new) = (mean(&pairs.now), mean(&pairs.new));
    let rounding = 1e-12 * now.abs().max(new.abs());
    let by = match direction {
        Worse::Higher => new - now,
        Worse::Lower => now - new,
    };
    by.is_nan() || by > rounding
}

/// The worst of the metrics of iterations.
pub fn worst(minimize: bool, metrics: &[f64]) -> Option<f64> {
    metrics.iter().copied().reduce(if minimize { f64::max } else { f64::min })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
