//! Candidates for a tuned parameter: near the value in use, or among its declared values.

use super::population::{asha, pbt, ucb};
use super::{Tuning, is_same};
use crate::io::digest::Blake3;
use crate::schema::looped::{Policy, Preset, Tune};
use crate::schema::value::Scalar;

/// Draws of a random candidate, until one may be tried.
const DRAWS: u32 = 16;

/// The share of trials that try a random candidate with the preset `explore`.
const EXPLORED: f64 = 0.3;

/// The draw that decides whether a trial explores.
const COIN: u32 = u32::MAX;

/// The trial that comes next.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposal {
    /// The value that it tries.
    pub candidate: Scalar,
    /// The number of iterations that it repeats.
    pub rounds: u32,
}

/// The next trial. `measured` is the last value of the metric `fedexp`.
///
/// # Errors
///
/// When no value is left to try; with the reason.
pub fn propose(tune: &Tune, tuning: &Tuning, measured: Option<f64>) -> Result<Proposal, String> {
    let rounds = tune.validate.replay_rounds;
    let explores = tune.preset == Preset::Explore && uniform(tune.seed, tuning.trials + 1, COIN) < EXPLORED;
    let proposals = match tune.policy {
        Policy::Asha => return asha(tune, tuning).ok_or_else(|| none_left(tuning)),
        Policy::Pbt => return pbt(tune, tuning).ok_or_else(|| none_left(tuning)),
        Policy::Ucb if explores => {
            // Among those that may be tried, so that no value gets the chance of the value in use.
            let free: Vec<&Scalar> = tune.values.iter().filter(|value| tuning.may_try(value)).collect();
            let place = (uniform(tune.seed, tuning.trials + 1, 0) * free.len() as f64) as usize;
            free.get(place.min(free.len().saturating_sub(1)))
                .map(|value| (*value).clone())
                .into_iter()
                .collect()
        }
        Policy::Ucb => ucb(tune, tuning),
        _ if explores => draws(tune, tuning),
        Policy::Climb => {
            let Range { least, most, .. } = Range::of(tune, &tuning.value);
            let [first, second] = if tuning.upwards { [most, least] } else { [least, most] };
            [first, second].map(|value| tuning.like(value)).to_vec()
        }
        Policy::Random => draws(tune, tuning),
        Policy::Fedexp => {
            let measured = measured.filter(|value| !value.is_nan());
            let range = Range::of(tune, &tuning.value);
            vec![tuning.like(range.nearest(measured.ok_or("no stage measured the metric `fedexp`")?))]
        }
    };
    let found = proposals.into_iter().find(|value| tuning.may_try(value));
    found.map(|candidate| Proposal { candidate, rounds }).ok_or_else(|| none_left(tuning))
}

fn none_left(tuning: &Tuning) -> String {
    format!("each candidate near {} is in use, out of bounds, tried or tabu", tuning.value)
}

/// Random candidates for the next trial.
pub(super) fn draws(tune: &Tune, tuning: &Tuning) -> Vec<Scalar> {
    let range = Range::of(tune, &tuning.value);
    let draw = |draw: u32| tuning.like(range.at(uniform(tune.seed, tuning.trials + 1, draw)));
    (0..DRAWS).map(draw).collect()
}

impl Tuning {
    /// Whether a value is neither in use nor tabu.
    pub(super) fn may_try(&self, value: &Scalar) -> bool {
        !is_same(value, &self.value) && !self.is_tabu(value)
    }

    /// A number as a value of the parameter, which may be a whole number.
    pub(super) fn like(&self, number: f64) -> Scalar {
        match self.value {
            Scalar::Int(_) => Scalar::Int(number as i64),
            _ => Scalar::Real(number),
        }
    }
}

/// The numbers that a trial may try.
pub(super) struct Range {
    least: f64,
    most: f64,
    whole: bool,
}

impl Range {
    pub(super) fn of(tune: &Tune, value: &Scalar) -> Self {
        let whole = matches!(value, Scalar::Int(_));
        let value = value.number().unwrap_or(f64::NAN);
        let [low, high] = tune.bounds.unwrap_or([value; 2]);
        let (mut least, mut most) = ((value / tune.max_ratio).max(low), (value * tune.max_ratio).min(high));
        if whole {
            (least, most) = (least.ceil(), most.floor());
        }
        // Rounding may leave nothing but the value in use.
        Self { least: least.min(value), most: most.max(value), whole }
    }

    pub(super) fn nearest(&self, value: f64) -> f64 {
        let value = if self.whole { value.round() } else { value };
        value.clamp(self.least, self.most)
    }

    /// The value at a part of the range, in logarithms.
    pub(super) fn at(&self, part: f64) -> f64 {
        self.nearest(self.least * (self.most / self.least).powf(part))
    }
}

/// A number from 0 to 1 for a draw: the same in every run.
pub(super) fn uniform(seed: u64, trial: u32, draw: u32) -> f64 {
    let digest = Blake3::of_bytes(format!("tune {seed} {trial} {draw}").as_bytes());
    let bits = digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
