//! Judges a candidate by its shadow runs and by those with the value in use, in pairs.

use crate::measures::paired::interval;
use crate::plan::schema::looped::{Validate, Worse};
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
    /// The worst metric of the iterations that were repeated, as they ran: a change is taken back if later ones are worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bar: Option<f64>,
}

impl Verdict {
    /// A refusal.
    pub fn refused(why: impl Into<String>) -> Self {
        Self { accepted: false, why: why.into(), gain: None, interval: None, bar: None }
    }
}

/// Judges a candidate. The interval of the mean gain is Student's t of the paired differences: without an effect it lies
/// above 0 in (1 - ci) / 2 of all trials at most, 2.5 % by default.
pub fn judge(validate: &Validate, metric: &Pairs, guards: &[(String, Worse, Pairs)]) -> Verdict {
    let sign = if validate.minimize { -1.0 } else { 1.0 };
    let gains: Vec<f64> = metric.new.iter().zip(&metric.now).map(|(new, now)| sign * (new - now)).collect();
    let scale = mean(&metric.now).abs();
    let is_finite = gains.iter().all(|gain| gain.is_finite()) && scale.is_finite();
    let Some(found) = interval(&gains, validate.ci).filter(|_| is_finite) else {
        return Verdict::refused(format!("`{}` is not a finite number in each shadow run", validate.metric));
    };
    if scale == 0.0 {
        return Verdict::refused(format!(
            "`{}` is 0 with the value in use: no gain is relative to it",
            validate.metric
        ));
    }
    let (gain, low, high) = (found.mean / scale, found.low / scale, found.high / scale);
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
    Verdict { accepted, why, gain: Some(gain), interval: Some([low, high]), bar: None }
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
