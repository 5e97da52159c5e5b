//! `fedmill decide`: judge a round by what all shards saw.

use super::aggregation::{RoundOptions, Telling, ended, partial_files};
use super::{Common, Failure, Outcome};
use crate::engine::aggregate::request::Job;
use crate::modes::shards::decide::decide;
use clap::Args;
use std::path::PathBuf;

/// Judge a round by what `gram` saw of all shards.
///
/// Prints the path of the decision, which `combine` and `merge` go by. Reads no more of the updates than their headers
/// and samples that tell them from others.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    round: RoundOptions,
    #[command(flatten)]
    telling: Telling,
    /// What `gram` left of each shard, in any order: files, or directories of them.
    #[arg(long, value_name = "PARTIAL", num_args = 1.., required = true)]
    partials: Vec<PathBuf>,
    /// Where the decision goes.
    #[arg(long, short, value_name = "DECISION")]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (metrics, shadow) = (self.telling.metrics(true), self.telling.shadow());
        let partials = partial_files(&self.partials)?;
        let mut job = self.round.job(common, &self.output, metrics, &shadow)?;
        job = Job { other_inputs: [job.other_inputs, partials.clone()].concat(), ..job };
        let path = decide(job, &partials, &common.pool()?);
        ended(path.map(|path| path.display().to_string()))
    }
}
