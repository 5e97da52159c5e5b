//! Whole private rounds from files to file, in this process.

use super::BenchError;
use super::aggregate::{Side, backend, computed};
use super::sampling::{Sample, timed};
use crate::budget::account::Account;
use crate::engine::aggregate::request::{Inputs, Request};
use crate::engine::decide::method::Method;
use crate::engine::passes::machine::Machine;
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::lanes::Isa;
use crate::modes::dp::release::{self, Options};
use crate::privacy::event::Adjacency;
use crate::privacy::ledger::plan::{Accountant, BudgetPlan, ClipBound, Sampling, Unit};
use crate::rules;
use crate::settings::Definition;
use crate::telemetry::progress::Progress;
use rayon::ThreadPool;

/// The name of private rounds among the measured rules.
pub const NAME: &str = "private-mean";

/// Releases updates once, with a new budget and the noise of a test seed. The first update is the base too.
///
/// # Errors
///
/// When the updates cannot be released.
pub(super) fn release(
    updates: &SyntheticUpdates,
    parameters: usize,
    side: Side,
    isa: Isa,
    pool: &ThreadPool,
) -> Result<Sample, BenchError> {
    let directory = updates.emptied("budget").map_err(BenchError::NotWritten)?;
    Account::init(&directory, &plan(updates.files().len(), parameters))?;
    let method = Method::new(rules::parse("mean", Definition::Paper)?);
    let request = Request::new(vec![updates.updates().to_owned()], method, updates.output());
    let inputs = Inputs { base: updates.files().first().cloned(), ..request.inputs };
    let request = Request { inputs, backend: backend(side), ..request };
    let options = Options { test_seed: Some(1), ..Options::new(directory) };
    let progress = Progress::hidden();
    let machine = Machine::new(isa, pool, &progress);
    let (total, report) = timed(|| release::run(request, &options, machine));
    Ok(Sample { compute: Some(computed(&report?)), ..Sample::whole(total) })
}

/// A plan that clips no client and allows the round.
fn plan(clients: usize, parameters: usize) -> BudgetPlan {
    let dimension = parameters as u64;
    let plan = BudgetPlan {
        epsilon: 8.0,
        delta: 1e-6,
        population: 10_000.max(clients as u64),
        sampling: Sampling::Poisson,
        sampling_rate: 0.003,
        noise_multiplier: 1.0,
        rounds: 10,
        clip: ClipBound::Fixed(100.0),
        denominator: clients as u64,
        adjacency: Adjacency::AddOrRemoveOne,
        unit: Unit::Client,
        dimension: Some(dimension),
        level: None,
        correlated: None,
        tensors_sha256: None,
        accountant: Accountant::Rdp,
    };
    BudgetPlan { level: Some(plan.level_for(dimension)), ..plan }
}
