//! `fedmill decide`: judge a round by what all shards saw.

use super::aggregation::{AggregationOptions, ReportingOptions, partial_files, published};
use super::{Common, Failure, Outcome};
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
    aggregation: AggregationOptions,
    #[command(flatten)]
    reporting: ReportingOptions,
    /// What `gram` left of each shard, in any order: files, or directories of them.
    #[arg(long, value_name = "PARTIAL", num_args = 1.., required = true)]
    partials: Vec<PathBuf>,
    /// Where the decision goes.
    #[arg(long, short, value_name = "DECISION")]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let reporting = self.aggregation.reporting(&self.reporting, true)?;
        let partials = partial_files(&self.partials)?;
        let mut request = self.aggregation.request(common, &self.output, reporting)?;
        request.inputs.others.extend(partials.clone());
        let (pool, progress) = (common.pool()?, common.progress());
        published(decide(request, &partials, common.machine(&pool, &progress)))
    }
}
