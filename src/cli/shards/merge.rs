//! `fedmill merge`: joins the merged shards into the model.

use super::super::{Common, Failure, INPUTS, Outcome};
use crate::engine::aggregate::request::Readers;
use crate::engine::decide::method::Reporting;
use crate::modes::shards::merge::merge;
use crate::options::aggregation::{AggregationOptions, Outputs, partial_files, published};
use crate::options::reporting::tell_merged;
use clap::Args;
use std::path::PathBuf;

/// Join the merged shards into the model, state and report that `aggregate` would write.
///
/// Prints the path of the merged model.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    /// The shard files of `combine` for all shards, in any order: files, or directories of them.
    #[arg(long, value_name = "SHARD_FILE", help_heading = INPUTS, num_args = 1.., required = true)]
    partials: Vec<PathBuf>,
    /// The decision that `combine` followed, if there was one.
    #[arg(long, value_name = "DECISION", help_heading = INPUTS)]
    decision: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

impl Arguments {
    pub(in crate::cli) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.outputs.reporting(self.aggregation.state.as_ref(), Readers::All, || self.merge(common))
    }

    fn merge(&self, common: &Common) -> Result<Outcome, Failure> {
        let partials = partial_files(&self.partials)?;
        let mut request = self.aggregation.request(common, &self.outputs.output, Reporting::default())?;
        request.inputs.others.extend(partials.iter().chain(&self.decision).cloned());
        request.outputs = self.outputs.outputs(request.outputs.state.clone());
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        let done = merge(request, &partials, self.decision.as_deref(), machine);
        if let Ok((report, _)) = &done {
            tell_merged(report, self.outputs.report.is_some());
        }
        published(done.map(|(_, path)| path))
    }
}
