//! Chooses codecs and steps to meet a number of bytes or an error.
//!
//! The [`survey`](super::survey) gives the plan for each step and estimates its cost. The [`search`](super::search)
//! chooses the next step. Then the file is made and measured, and its cost corrects the search. A reported cost is
//! never an estimate.

use crate::codecs::ModelGoal;
use crate::compress::attempt::Attempt;
use crate::compress::encode::{EncodeError, PartEncoder};
use crate::compress::error::CompressError;
use crate::compress::goal::{Cost, Goal};
use crate::compress::parts::{self, PartPlan};
use crate::compress::search::{SMALL_MODEL, Search};
use crate::compress::survey::{Survey, Variances};
use crate::compress::values::Values;
use crate::model::layout::TensorSpec;

/// Models of up to this many values are also tried as one vector.
const TINY_MODEL: usize = 1 << 18;

/// About the bytes of a header without its entries.
pub(crate) const HEADER_BYTES: u64 = 256;

/// About the bytes of a part's entry in the header.
pub(crate) const PART_BYTES: u64 = 32;

/// A goal, and the plans that may meet it.
#[derive(Debug)]
pub(crate) struct Objective {
    goal: Goal,
    /// Vectors that share one step of `ecsq`; `None` for any plan.
    vectors: Option<Vec<PartPlan>>,
}

impl Objective {
    /// A file that meets a goal.
    pub(crate) fn of_file(goal: Goal) -> Self {
        Self { goal, vectors: None }
    }

    /// Vectors by `ecsq` with one step, which meet a goal together.
    pub(crate) fn of_vectors(plans: Vec<PartPlan>, goal: &ModelGoal) -> Self {
        let encoded = plans.iter().filter(|part| part.codec.is_some());
        let values: usize = encoded.map(|part| part.vector.len).sum();
        let goal = match goal {
            ModelGoal::Bits(bits) => Goal { bytes: Some((bits * values as f64 / 8.0) as u64), nmse: None },
            ModelGoal::Nmse(nmse) => Goal { bytes: None, nmse: Some(*nmse) },
        };
        Self { goal, vectors: Some(plans) }
    }

    /// For each way to group tensors, whether all of them go into one vector. The last way is tried first.
    fn groupings(&self, tensors: &[TensorSpec]) -> Vec<bool> {
        if self.vectors.is_none() && values(tensors) <= TINY_MODEL { vec![true, false] } else { vec![false] }
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

    /// An estimate of the bytes of settled vectors. Their error is unknown.
    fn expected(&self, parts: &[PartEncoder]) -> Cost {
        let counted = parts.iter().filter(|part| self.vectors.is_none() || part.plan.codec.is_some());
        let bytes: u64 = counted.map(|part| part.bytes(&[]) + part.expected_bytes()).sum();
        let beside = if self.vectors.is_none() { HEADER_BYTES + PART_BYTES * parts.len() as u64 } else { 0 };
        Cost { bytes: bytes + beside, nmse: 0.0 }
    }

    /// The measured cost of the goal's subject: the file, or the vectors.
    fn cost(&self, attempt: &Attempt) -> Cost {
        let cost = attempt.cost();
        let bytes = if self.vectors.is_some() { attempt.vector_bytes() } else { cost.bytes };
        Cost { bytes, ..cost }
    }
}

/// Values of all tensors.
fn values(tensors: &[TensorSpec]) -> usize {
    tensors.iter().map(|spec| spec.len).sum()
}

/// The number of tries that are left.
struct Effort {
    /// Tries that only settle vectors, which gives their bytes before they are encoded.
    settlings: u32,
    /// Tries that make a file.
    files: u32,
}

impl Effort {
    fn of(objective: &Objective, tensors: &[TensorSpec]) -> Self {
        match (values(tensors), objective.goal.bytes) {
            (..=TINY_MODEL, _) => Self { settlings: 0, files: 16 },
            (..=SMALL_MODEL, Some(_)) => Self { settlings: 4, files: 5 },
            (_, Some(_)) => Self { settlings: 4, files: 3 },
            (_, None) => Self { settlings: 0, files: 5 },
        }
    }
}

/// Makes files until one meets a goal as well as it can be met.
///
/// # Errors
///
/// When values cannot be read, or files cannot be made.
pub(crate) fn meet(
    objective: &Objective,
    values: &Values,
    tensors: &[TensorSpec],
    settle: impl Fn(Vec<PartPlan>) -> Result<Vec<PartEncoder>, CompressError>,
    make: impl Fn(Vec<PartEncoder>) -> Result<Attempt, CompressError>,
) -> Result<Attempt, CompressError> {
    let mut best: Option<(Cost, Attempt)> = None;
    let mut variances = Variances::of(values);
    let mut groupings = objective.groupings(tensors);
    while let Some(as_one) = groupings.pop() {
        let survey = objective.survey(values, tensors, as_one, variances);
        let survey = survey.map_err(|source| CompressError::encode(values, source))?;
        let survey = Search::best_zone(survey, objective.goal);
        let mut tries =
            Tries { search: Search::new(&survey, objective.goal), effort: Effort::of(objective, tensors) };
        while let Some((step, parts)) = tries.next(objective, |step| settle(survey.plan(step)))? {
            let attempt = make(parts)?;
            if attempt.outcome.negative_variances > 0 && variances == Variances::Checked {
                // Rounding made a variance negative: send variances as they are.
                variances = Variances::AsTheyAre;
                groupings.push(as_one);
                break;
            }
            let cost = objective.cost(&attempt);
            tracing::info!("step {step:e}: {} bytes, NMSE {:.4e}", cost.bytes, cost.nmse);
            if best.as_ref().is_none_or(|(best, _)| objective.goal.prefers(&cost, best)) {
                best = Some((cost, attempt));
            }
            if tries.search.learn(step, &cost) {
                break;
            }
        }
    }
    best.map_or_else(|| make(settle(parts::raw(tensors))?), |(_, attempt)| Ok(attempt))
}

/// A search and the tries that it has left.
struct Tries<'a> {
    search: Search<'a>,
    effort: Effort,
}

impl Tries<'_> {
    /// The next step to make a file of, and its settled vectors. While settlings are left, steps whose estimated bytes
    /// miss the goal are passed over.
    fn next(
        &mut self,
        objective: &Objective,
        settle: impl Fn(f64) -> Result<Vec<PartEncoder>, CompressError>,
    ) -> Result<Option<(f64, Vec<PartEncoder>)>, CompressError> {
        loop {
            let Some(step) = self.search.next(self.effort.files + self.effort.settlings) else {
                if self.effort.settlings == 0 {
                    return Ok(None);
                }
                // Estimates jump over the goal: make files from here on.
                self.only_files();
                continue;
            };
            let parts = settle(step)?;
            if self.effort.settlings > 0 {
                self.effort.settlings -= 1;
                let expected = objective.expected(&parts);
                tracing::info!("step {step:e}: {} bytes expected", expected.bytes);
                if !self.search.learn(step, &expected) && self.effort.settlings > 0 {
                    continue;
                }
                self.only_files();
            }
            self.effort.files -= 1;
            return Ok(Some((step, parts)));
        }
    }

    /// Ends the settlings: from here on only the costs of files count.
    fn only_files(&mut self) {
        self.effort.settlings = 0;
        self.search.forget();
    }
}
