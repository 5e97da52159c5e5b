//! Chooses codecs and steps to meet a number of bytes or an error.
//!
//! The [`survey`](super::survey) tells which plan each step stands for and what that will come to, about; the
//! [`search`](super::search) which step to try next. The file is made and measured, and the step corrected by what was
//! found: what is reported is never an estimate.

use crate::codecs::ModelGoal;
use crate::compress::encode::{EncodeError, Running};
use crate::compress::parts::{self, PartPlan};
use crate::compress::search::{SMALL_MODEL, Search};
use crate::compress::survey::{Survey, Variances};
use crate::compress::values::Values;
use crate::model::layout::TensorSpec;

/// Models of up to so many values are also tried as one vector.
pub const TINY_MODEL: usize = 1 << 18;

/// What has to be met.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Goal {
    /// The most bytes that the file may have.
    pub bytes: Option<u64>,
    /// The largest NMSE.
    pub nmse: Option<f64>,
}

/// What a file came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Found {
    /// Its bytes.
    pub bytes: u64,
    /// Its NMSE.
    pub nmse: f64,
}

impl Goal {
    /// Whether a file meets it.
    pub fn is_met(&self, found: &Found) -> bool {
        self.bytes.is_none_or(|most| found.bytes <= most) && self.nmse.is_none_or(|most| found.nmse <= most)
    }

    /// Whether a file has no more bytes than there are for it, where that is said.
    fn fits(&self, found: &Found) -> bool {
        self.bytes.is_some_and(|most| found.bytes <= most)
    }

    /// How far a file is from it: above zero if it misses, below if there is room. Of a goal of both, bytes are what is
    /// aimed at: the least error that they allow is the best answer to both.
    pub(crate) fn excess(&self, found: &Found) -> f64 {
        match (self.bytes, self.nmse) {
            (Some(most), _) => (found.bytes as f64 / most.max(1) as f64).ln(),
            (None, Some(most)) => (found.nmse.max(f64::MIN_POSITIVE) / most.max(f64::MIN_POSITIVE)).ln(),
            (None, None) => 0.0,
        }
    }

    /// Whether one file that meets it, or misses it, is better than another.
    pub fn prefers(&self, one: &Found, other: &Found) -> bool {
        match (self.is_met(one), self.is_met(other)) {
            (true, false) => true,
            (false, true) => false,
            (false, false) if self.fits(one) && self.fits(other) => one.nmse < other.nmse,
            (false, false) => self.excess(one) < self.excess(other),
            (true, true) if self.bytes.is_some() => (one.nmse, one.bytes) < (other.nmse, other.bytes),
            (true, true) => (one.bytes as f64, one.nmse) < (other.bytes as f64, other.nmse),
        }
    }
}

/// What is sought, and among which plans.
#[derive(Debug)]
pub struct Sought {
    goal: Goal,
    /// Vectors that share one step of `ecsq`; all plans there are if none.
    vectors: Option<Vec<PartPlan>>,
}

impl Sought {
    /// A file that meets a goal.
    pub fn of_file(goal: Goal) -> Self {
        Self { goal, vectors: None }
    }

    /// Vectors by `ecsq` of one step, which come to a goal together.
    pub fn of_vectors(plans: Vec<PartPlan>, goal: &ModelGoal) -> Self {
        let encoded = plans.iter().filter(|part| part.codec.is_some());
        let values: usize = encoded.map(|part| part.vector.len).sum();
        let goal = match goal {
            ModelGoal::Bits(bits) => Goal { bytes: Some((bits * values as f64 / 8.0) as u64), nmse: None },
            ModelGoal::Nmse(nmse) => Goal { bytes: None, nmse: Some(*nmse) },
        };
        Self { goal, vectors: Some(plans) }
    }

    /// Whether all of a tiny model may also go into one vector.
    fn groupings(&self, tensors: &[TensorSpec]) -> Vec<bool> {
        if self.vectors.is_none() && is_tiny(tensors) { vec![true, false] } else { vec![false] }
    }

    fn survey(
        &self,
        values: &Values,
        tensors: &[TensorSpec],
        as_one: bool,
        variances: Variances,
    ) -> Result<Survey, EncodeError> {
        match &self.vectors {
            None => Survey::new(values, tensors, as_one, variances),
            Some(plans) => Survey::of_vectors(values, plans),
        }
    }
}

fn is_tiny(tensors: &[TensorSpec]) -> bool {
    tensors.iter().map(|spec| spec.len).sum::<usize>() <= TINY_MODEL
}

/// A file that was made by a plan.
pub trait Made {
    /// What it came to.
    fn found(&self) -> Found;
    /// Bytes of its encoded vectors.
    fn vector_bytes(&self) -> u64;
    /// Variances that it would make negative.
    fn negative_variances(&self) -> u64;
}

/// Makes file after file until one meets a goal as well as it can be met. Of large models, vectors are only settled as
/// long as the bytes that they will have miss the goal.
///
/// # Errors
///
/// When values cannot be read, or files not be made.
pub fn meet<T: Made, E>(
    sought: &Sought,
    values: &Values,
    tensors: &[TensorSpec],
    settle: impl Fn(Vec<PartPlan>) -> Result<Vec<Running>, E>,
    make: impl Fn(Vec<Running>) -> Result<T, E>,
    failed: impl Fn(EncodeError) -> E,
) -> Result<T, E> {
    let mut best: Option<(Found, T)> = None;
    let mut variances = Variances::of(values);
    let mut groupings = sought.groupings(tensors);
    while let Some(as_one) = groupings.pop() {
        let survey = sought.survey(values, tensors, as_one, variances).map_err(&failed)?;
        let survey = Search::best_zone(survey, sought.goal);
        let mut search = Search::new(&survey, sought.goal);
        let mut effort = Effort::of(sought, tensors);
        loop {
            let Some(step) = search.next(effort.files + effort.settlings) else {
                if effort.settlings == 0 {
                    break;
                }
                // What vectors will have jumps over the goal: files are made from here on.
                effort.settlings = 0;
                search.forget();
                continue;
            };
            let parts = settle(survey.plan(step))?;
            if effort.settlings > 0 {
                effort.settlings -= 1;
                let expected = sought.expected(&parts);
                tracing::info!("step {step:e}: {} bytes expected", expected.bytes);
                if !search.learn(step, &expected) && effort.settlings > 0 {
                    continue;
                }
                // From here on only what files came to counts.
                effort.settlings = 0;
                search.forget();
            }
            effort.files -= 1;
            let made = make(parts)?;
            if made.negative_variances() > 0 && variances == Variances::Checked {
                // Rounded so, a variance would not be one: they are sent as they are.
                variances = Variances::AsTheyAre;
                groupings.push(as_one);
                break;
            }
            let found = sought.found(&made);
            tracing::info!("step {step:e}: {} bytes, NMSE {:.4e}", found.bytes, found.nmse);
            if best.as_ref().is_none_or(|(best, _)| sought.goal.prefers(&found, best)) {
                best = Some((found, made));
            }
            if search.learn(step, &found) {
                break;
            }
        }
    }
    best.map_or_else(|| make(settle(parts::raw(tensors))?), |(_, made)| Ok(made))
}

/// How often is tried what.
struct Effort {
    /// Settling vectors, which tells what bytes they will have.
    settlings: u32,
    /// Making files.
    files: u32,
}

impl Effort {
    fn of(sought: &Sought, tensors: &[TensorSpec]) -> Self {
        let values: usize = tensors.iter().map(|spec| spec.len).sum();
        match (values, sought.goal.bytes) {
            (..=TINY_MODEL, _) => Self { settlings: 0, files: 16 },
            (..=SMALL_MODEL, Some(_)) => Self { settlings: 4, files: 5 },
            (_, Some(_)) => Self { settlings: 4, files: 3 },
            (_, None) => Self { settlings: 0, files: 5 },
        }
    }
}

impl Sought {
    /// What settled vectors will come to. Nothing is known of their error.
    fn expected(&self, parts: &[Running]) -> Found {
        let counted = parts.iter().filter(|part| self.vectors.is_none() || part.plan.codec.is_some());
        let bytes: u64 = counted.map(|part| part.bytes(&[]) + part.expected_bytes()).sum();
        let beside = if self.vectors.is_none() { HEADER_BYTES + PART_BYTES * parts.len() as u64 } else { 0 };
        Found { bytes: bytes + beside, nmse: 0.0 }
    }

    fn found(&self, made: &impl Made) -> Found {
        let found = made.found();
        let bytes = if self.vectors.is_some() { made.vector_bytes() } else { found.bytes };
        Found { bytes, ..found }
    }
}

/// Bytes of a header, and of what it says of a part, about.
const HEADER_BYTES: u64 = 256;
const PART_BYTES: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const fn found(bytes: u64, nmse: f64) -> Found {
        Found { bytes, nmse }
    }

    /// By every kind of goal the files in order, the best one first.
    const ORDERS: [(Option<u64>, Option<f64>, [Found; 4]); 4] = [
        // The least error of those that fit, then the fewest bytes.
        (Some(100), None, [found(100, 0.1), found(90, 0.2), found(80, 0.2 + 1e-9), found(101, 0.01)]),
        // The fewest bytes of those that are near enough, then the least error.
        (None, Some(0.1), [found(80, 0.1), found(90, 0.01), found(10, 0.2), found(5, 0.3)]),
        // The least error of those that meet both; if none does, of those that fit.
        (Some(100), Some(0.1), [found(100, 0.01), found(90, 0.1), found(95, 0.2), found(50, 0.5)]),
        (Some(100), Some(0.1), [found(99, 0.3), found(10, 0.9), found(101, 0.01), found(200, 0.001)]),
    ];

    #[test]
    fn files_are_preferred_in_one_order() {
        for (bytes, nmse, files) in ORDERS {
            let goal = Goal { bytes, nmse };
            for (i, one) in files.iter().enumerate() {
                for (k, other) in files.iter().enumerate() {
                    assert_eq!(goal.prefers(one, other), i < k, "{goal:?}: {one:?} {other:?}");
                }
            }
        }
    }

    /// Of as much error the one of fewer bytes, of as many bytes the one of less error.
    #[test]
    fn ties_are_settled_by_the_other_figure() {
        let by_bytes = Goal { bytes: Some(100), nmse: None };
        assert!(by_bytes.prefers(&found(80, 0.2), &found(90, 0.2)));
        assert!(!by_bytes.prefers(&found(90, 0.2), &found(80, 0.2)));
        let by_error = Goal { bytes: None, nmse: Some(0.5) };
        assert!(by_error.prefers(&found(80, 0.1), &found(80, 0.2)));
        assert!(!by_error.prefers(&found(80, 0.2), &found(80, 0.1)));
        assert!(!by_error.prefers(&found(80, 0.2), &found(80, 0.2)));
    }

    #[test]
    fn a_goal_is_met_by_what_is_just_as_much() {
        let goal = Goal { bytes: Some(100), nmse: Some(0.1) };
        let met = [(100, 0.1, true), (101, 0.1, false), (100, 0.11, false), (0, 0.0, true)];
        for (bytes, nmse, is_met) in met {
            assert_eq!(goal.is_met(&found(bytes, nmse)), is_met, "{bytes} {nmse}");
        }
    }
}
