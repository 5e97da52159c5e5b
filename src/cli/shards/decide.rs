//! `fedmill decide`: judges a sharded run by the geometry of all shards.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome};
use crate::modes::shards::decide::decide;
use crate::options::aggregation::{AggregationOptions, partial_files, published};
use crate::options::reporting::ReportingOptions;
use clap::Args;
use std::path::PathBuf;

/// Apply the rule to the geometry that `gram` measured in all shards.
///
/// Prints the path of the decision, which `combine` and `merge` follow. Reads only the headers of the updates, and
/// samples that identify them.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    #[command(flatten)]
    reporting: ReportingOptions,
    /// The shard files of `gram` for all shards, in any order: files, or directories of them.
    #[arg(long, value_name = "SHARD_FILE", help_heading = INPUTS, num_args = 1.., required = true)]
    partials: Vec<PathBuf>,
    /// Write the decision to this path.
    #[arg(long, short, value_name = "DECISION", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(in crate::cli) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let reporting = self.aggregation.reporting(&self.reporting, true)?;
        let partials = partial_files(&self.partials)?;
        let mut request = self.aggregation.request(common, &self.output, reporting)?;
        request.inputs.others.extend(partials.clone());
        let (pool, progress) = (common.pool()?, common.progress());
        published(decide(request, &partials, common.machine(&pool, &progress)))
    }
}
