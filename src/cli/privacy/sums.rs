//! `fedmill privacy clip`, `sum` and `noise`: a private round in steps, on several machines.

use super::super::{Common, Failure, Outcome, UpdatePaths};
use crate::cli::aggregation::ended;
use crate::engine::aggregate::request::{Job, OnBadUpdate};
use crate::engine::backend::choose::{Asked, Backend};
use crate::engine::decide::judge::{Aggregation, MetricsWanted};
use crate::engine::intake::admit::Expectations;
use crate::engine::intake::weights::Weighting;
use crate::engine::passes::geometry::Distances;
use crate::modes::dp::release::Private;
use crate::rules::mean::Mean;
use crate::strategies;
use clap::Args;
use std::path::PathBuf;

/// Options of all three commands.
#[derive(Args, Debug)]
struct Shared {
    /// The state directory with the plan.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The model that the clients started from.
    #[arg(long, value_name = "BASE")]
    base: PathBuf,
    /// The round; updates of other rounds count as zero.
    #[arg(long, value_name = "N")]
    round: Option<u64>,
    /// The output file.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Clip updates, round them to the plan's grid, and add them up: integers, without noise.
///
/// Prints the path of the sum. The sum is NOT private: protect it like the updates. Updates that cannot be used count
/// as zero. Nothing is charged.
#[derive(Args, Debug)]
pub(in crate::cli) struct ClipArguments {
    #[command(flatten)]
    shared: Shared,
    #[command(flatten)]
    paths: UpdatePaths,
}

/// Add up sums of clipped updates.
///
/// Prints the path of the sum. The sum is NOT private. The input sums must have the same plan, base and round, and no
/// client in common.
#[derive(Args, Debug)]
pub(in crate::cli) struct SumArguments {
    #[command(flatten)]
    shared: Shared,
    /// Sums that `clip` or `sum` wrote.
    #[arg(value_name = "SUM", required = true)]
    sums: Vec<PathBuf>,
}

/// Release sums with noise: charge the budget, add the noise once, divide by the plan's number of clients.
///
/// Prints the path of the model, which equals the model of `aggregate --dp` from the same updates. The machines that
/// wrote the sums are trusted to have clipped the updates.
#[derive(Args, Debug)]
pub(in crate::cli) struct NoiseArguments {
    #[command(flatten)]
    shared: Shared,
    /// Sums that `clip` or `sum` wrote.
    #[arg(value_name = "SUM")]
    sums: Vec<PathBuf>,
    /// Keep the key of the noise until the model is published.
    #[arg(long)]
    resumable: bool,
    /// For tests: make the noise from this number. The model is NOT private then.
    #[arg(long, value_name = "N")]
    test_seed: Option<u64>,
}

impl ClipArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.shared.gather(common, self.paths.resolve()?, Vec::new())
    }
}

impl SumArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.shared.gather(common, Vec::new(), self.sums.clone())
    }
}

impl NoiseArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let how = Private {
            resumable: self.resumable,
            test_seed: self.test_seed,
            ..self.shared.private(self.sums.clone())
        };
        let job = Job { private: Some(how), ..self.shared.job(common, Vec::new(), &self.sums) };
        let report = job.run(&common.pool()?, &common.progress());
        ended(report.map(|report| report.output.map_or_else(String::new, |output| output.path)))
    }
}

impl Shared {
    fn gather(&self, common: &Common, updates: Vec<PathBuf>, sums: Vec<PathBuf>) -> Result<Outcome, Failure> {
        let job = self.job(common, updates, &sums);
        let how = self.private(sums);
        let job = Job { private: Some(how.clone()), ..job };
        let path = job.gather(&how, &common.pool()?, &common.progress());
        ended(path.map(|path| path.display().to_string()))
    }

    fn private(&self, sums: Vec<PathBuf>) -> Private {
        Private { directory: self.directory.clone(), resumable: false, test_seed: None, sums }
    }

    fn job(&self, common: &Common, updates: Vec<PathBuf>, sums: &[PathBuf]) -> Job {
        Job {
            updates,
            base: Some(self.base.clone()),
            aggregation: Aggregation {
                rule: Box::new(Mean),
                strategy: strategies::plain(),
                pre: Vec::new(),
                shadow: Vec::new(),
                byzantine: None,
                seed: 0,
                distances: Distances::Auto,
                metrics: MetricsWanted::Nothing,
            },
            tiers: None,
            weighting: Weighting::Uniform,
            min_clients: 0,
            on_bad_update: OnBadUpdate::Skip,
            expected: Expectations { round: self.round, ..Expectations::default() },
            output: self.output.clone(),
            max_shard_bytes: None,
            report: None,
            state: None,
            partial: false,
            private: None,
            population: None,
            other_inputs: sums.to_vec(),
            isa: common.isa(),
            backend: Backend { asked: Asked::Cpu, ..common.backend(false) },
        }
    }
}
