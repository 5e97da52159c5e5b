//! `fedmill merge`: put the merged shards of a round together.

use super::aggregation::{Outputs, RoundOptions, ended, partial_files};
use super::{Common, Failure, Outcome};
use crate::engine::aggregate::request::Job;
use crate::engine::decide::judge::MetricsWanted;
use crate::modes::shards::merge::join;
use clap::Args;
use std::path::PathBuf;

/// Put the merged shards of a round together: the model, state and report that `aggregate` gives.
///
/// Prints the path of the merged model.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    round: RoundOptions,
    /// What `combine` left of each shard, in any order: files, or directories of them.
    #[arg(long, value_name = "PARTIAL", num_args = 1.., required = true)]
    partials: Vec<PathBuf>,
    /// The decision that they were combined by, if they were by one.
    #[arg(long, value_name = "DECISION")]
    decision: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let partials = partial_files(&self.partials)?;
        let job = self.round.job(common, &self.outputs.output, MetricsWanted::Nothing, &[])?;
        let inputs = partials.iter().chain(&self.decision).cloned();
        let job = Job {
            other_inputs: job.other_inputs.iter().cloned().chain(inputs).collect(),
            ..self.outputs.of(job)
        };
        let path = join(job, &partials, self.decision.as_deref(), &common.pool()?, &common.progress());
        ended(path.map(|path| path.display().to_string()))
    }
}
