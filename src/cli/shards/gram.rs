//! `fedmill gram`: measures the geometry of the updates in one shard.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome};
use crate::modes::shards::gram::gram;
use crate::options::aggregation::{AggregationOptions, published};
use crate::options::reporting::ReportingOptions;
use crate::settings::shard::Shard;
use clap::Args;
use std::path::PathBuf;

/// Measure the geometry of the updates in one shard, for `decide`.
///
/// Prints the path of the shard file. Give all commands of a sharded run the same updates and options. docs/shards.md
/// shows them together. mean, and rules that work on each coordinate alone, do not need `gram`.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    #[command(flatten)]
    reporting: ReportingOptions,
    /// The shard to measure: number I of S shards, counted from 1.
    #[arg(long, value_name = "I/S", help_heading = INPUTS)]
    shard: Shard,
    /// Write the shard file to this path.
    #[arg(long, short, value_name = "SHARD_FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(in crate::cli) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let reporting = self.aggregation.reporting(&self.reporting, true)?;
        let request = self.aggregation.request(common, &self.output, reporting)?;
        let (pool, progress) = (common.pool()?, common.progress());
        published(gram(request, self.shard, common.machine(&pool, &progress)))
    }
}
