//! `fedmill merge`: put the merged shards of a round together.

use super::aggregation::{AggregationOptions, Outputs, partial_files, published};
use super::{Common, Failure, Outcome};
use crate::engine::decide::method::Reporting;
use crate::modes::shards::merge::merge;
use clap::Args;
use std::path::PathBuf;

/// Put the merged shards of a round together: the model, state and report that `aggregate` gives.
///
/// Prints the path of the merged model.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
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
        let mut request = self.aggregation.request(common, &self.outputs.output, Reporting::default())?;
        request.inputs.others.extend(partials.iter().chain(&self.decision).cloned());
        request.outputs = self.outputs.outputs(request.outputs.state.clone());
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        published(merge(request, &partials, self.decision.as_deref(), machine))
    }
}
