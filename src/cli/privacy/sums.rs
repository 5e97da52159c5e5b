//! `fedmill privacy clip`, `sum` and `noise`: a private round in steps, on several machines.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, PRIVACY, UpdatePaths};
use super::vector::VectorOptions;
use crate::engine::aggregate::request::{Inputs, Request};
use crate::engine::decide::method::Method;
use crate::engine::intake::claims::Claims;
use crate::engine::intake::policy::{OnBadUpdate, Policy};
use crate::engine::intake::weights::Weighting;
use crate::modes::dp::release::{self, Options};
use crate::modes::dp::sums::write_sum;
use crate::options::aggregation::{model_path, published};
use crate::rules::mean::Mean;
use clap::Args;
use std::path::PathBuf;

/// Options of all three commands.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
struct Shared {
    /// The state directory with the plan.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The model that the clients started from.
    #[arg(long, value_name = "BASE")]
    base: PathBuf,
    /// The number of the round.
    #[arg(long, value_name = "N")]
    round: Option<u64>,
    #[command(flatten)]
    vector: VectorOptions,
    /// Write the output to this path.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

/// Clip updates, round them to the plan's grid, and add them up, without noise.
///
/// Prints the path of the sum. The sum is NOT private: protect it like the updates. Bad updates and updates of another
/// round count as zero. The command charges nothing.
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
    #[arg(value_name = "SUM", help_heading = INPUTS, required = true)]
    sums: Vec<PathBuf>,
}

/// Release sums as a model: charge the budget, add the noise once, and divide by the plan's denominator.
///
/// The denominator is by default the sampling rate times the population, never the number of clients that came. Prints
/// the path of the model, which equals the model of `aggregate --dp` from the same updates. The machines that
/// wrote the sums must be trusted: this command cannot check that they clipped the updates.
#[derive(Args, Debug)]
pub(in crate::cli) struct NoiseArguments {
    #[command(flatten)]
    shared: Shared,
    /// Sums that `clip` or `sum` wrote.
    #[arg(value_name = "SUM", help_heading = INPUTS)]
    sums: Vec<PathBuf>,
    /// Has no effect any more: every release keeps its noise key on disk until its outputs are published.
    #[arg(long, help_heading = PRIVACY, hide = true)]
    resumable: bool,
    /// Release noise alone if the sums have no client.
    ///
    /// Without it, a round without clients is refused. Pass it where the cohort must stay hidden.
    #[arg(long, help_heading = PRIVACY)]
    allow_empty: bool,
    /// Release the same sums once more, with other noise and at full cost, if their model was lost.
    ///
    /// Without it, a round that was paid for is not charged again: its model is used, or the command is refused.
    #[arg(long, help_heading = PRIVACY)]
    release_again: bool,
    /// Draw the noise from the seed N, for tests. The model is then NOT private.
    #[arg(long, value_name = "N", help_heading = PRIVACY)]
    test_seed: Option<u64>,
}

impl ClipArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.shared.write_sum(common, self.paths.resolve()?, self.paths.claims(), Vec::new())
    }
}

impl SumArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.shared.write_sum(common, Vec::new(), Claims::default(), self.sums.clone())
    }
}

impl NoiseArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let options = Options {
            test_seed: self.test_seed,
            allow_empty: self.allow_empty,
            release_again: self.release_again,
            ..self.shared.options(self.sums.clone())
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let request = self.shared.request(common, Vec::new(), &self.sums);
        published(model_path(release::run(request, &options, common.machine(&pool, &progress))))
    }
}

impl Shared {
    fn write_sum(
        &self,
        common: &Common,
        updates: Vec<PathBuf>,
        claims: Claims,
        sums: Vec<PathBuf>,
    ) -> Result<Outcome, Failure> {
        let (pool, progress) = (common.pool()?, common.progress());
        let mut request = self.request(common, updates, &sums);
        request.policy.claims = claims;
        published(write_sum(request, &self.options(sums), common.machine(&pool, &progress)))
    }

    fn options(&self, sums: Vec<PathBuf>) -> Options {
        let statistics = self.vector.statistics();
        Options { sums, statistics, ..Options::new(self.directory.clone()) }
    }

    fn request(&self, common: &Common, updates: Vec<PathBuf>, sums: &[PathBuf]) -> Request {
        let request = Request::new(updates, Method::new(Box::new(Mean)), self.output.clone());
        Request {
            inputs: Inputs { base: Some(self.base.clone()), others: sums.to_vec(), ..request.inputs },
            policy: Policy {
                round: self.round,
                min_clients: None,
                on_bad_update: OnBadUpdate::Skip,
                weighting: Weighting::Uniform,
                ..self.vector.policy()
            },
            backend: common.backend(false),
            ..request
        }
    }
}
