//! Checks before the charge that base and noise fit the base's dtype.
//!
//! The check uses public numbers alone: the base, the plan and the server's step. It does not see the updates, so it
//! reveals nothing about them. Later the pass cuts values that leave the range all the same: that is post-processing.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::session::Session;
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::kernels::convert::all_within;
use crate::kernels::lanes::Isa;
use crate::kernels::server_step::ServerStep;
use crate::model::dtype::Dtype;
use crate::modes::dp::COLUMNS;
use crate::modes::dp::clipped::Clipped;
use crate::modes::dp::error::DpError;
use crate::modes::dp::noise::most;
use crate::privacy::ledger::plan::BudgetPlan;
use crate::strategies::StepInput;
use crate::updates::set::UpdateSet;

/// The server's step of this round, after a check that it stays within the dtype of the base: from the base's values,
/// with the largest noise, and the largest sum of as many clients as the plan divides by.
///
/// # Errors
///
/// When a value could leave the range, the base cannot be read, or the strategy cannot be used.
pub(super) fn check(session: &Session, plan: &BudgetPlan, clipped: &Clipped) -> Result<ServerStep, Error> {
    let (set, grid) = (&clipped.taken.set, &clipped.grid);
    let steps = set.carried.steps;
    let decided = StepInput { steps, coefficients: None, weights: &[], geometry: None, rule: "mean" };
    let step = session.request.method.strategy.step(&decided)?;
    let clients = plan.cohort().min(plan.denominator);
    let sum = clients as f64 * grid.bound() as f64;
    let delta = (most(plan, clipped.terms.level) + sum) * grid.unit() / clipped.terms.denominator as f64;
    let plan = TilePlan::at_multiples(set, 1, &clipped.sum_terms.statistics.clipped(set), COLUMNS);
    let pass = RangePass { isa: session.machine.isa, set, plan, reach: step.most(delta) };
    match session.machine.run(&pass)? {
        Some((tensor, value, dtype)) => {
            Err(DpError::of(DpError::Range { tensor, value, reach: pass.reach, dtype }))
        }
        None => Ok(step),
    }
}

/// A tensor with a value that could leave the range: its name, the value, and the dtype.
type Found = (String, f64, Dtype);

/// The pass over the base.
struct RangePass<'a> {
    isa: Isa,
    set: &'a UpdateSet,
    plan: TilePlan,
    reach: f64,
}

impl TilePass for RangePass<'_> {
    type Worker<'p>
        = TileReader<'p>
    where
        Self: 'p;
    type Part = Option<Found>;
    type Sum = Option<Found>;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> TileReader<'_> {
        TileReader::new(self.isa, self.set, &self.plan)
    }

    fn tile(&self, reader: &mut TileReader, tile: &Tile) -> Result<Option<Found>, PassError> {
        reader.read_base(tile)?;
        let limits = tile.dtype.limits();
        let limits = limits.start() + self.reach..=limits.end() - self.reach;
        if all_within(self.isa, reader.base(), &limits) {
            return Ok(None);
        }
        let column = reader.base().iter().position(|value| !limits.contains(value)).unwrap_or(0);
        let (tensor, _) = self.set.layout.locate(tile.coordinates.start + column);
        Ok(Some((tensor.name.clone(), reader.base()[column], tile.dtype)))
    }

    fn start(&self) -> Option<Found> {
        None
    }

    fn add(&self, first: &mut Option<Found>, _: &Tile, found: Option<Found>) {
        if first.is_none() {
            *first = found;
        }
    }

    fn clock(&self, reader: &TileReader) -> Clock {
        reader.clock
    }
}
