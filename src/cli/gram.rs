//! `fedmill gram`: look at one shard of a round.

use super::aggregation::{AggregationOptions, ReportingOptions, published};
use super::{Common, Failure, Outcome};
use crate::modes::shards::{Shard, gram::gram};
use clap::Args;
use std::path::PathBuf;

/// Look at one shard of a round: what `decide` judges by.
///
/// Prints the path of the partial that it leaves. Takes the updates and options of the whole round, as all commands of
/// it do; docs/shards.md shows them together. Rules that work by coordinate, and mean, need no look.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    #[command(flatten)]
    reporting: ReportingOptions,
    /// Which shard: I of S, counted from 1.
    #[arg(long, value_name = "I/S")]
    shard: Shard,
    /// Where the partial goes.
    #[arg(long, short, value_name = "PARTIAL")]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let reporting = self.aggregation.reporting(&self.reporting, true)?;
        let request = self.aggregation.request(common, &self.output, reporting)?;
        let (pool, progress) = (common.pool()?, common.progress());
        published(gram(request, self.shard, common.machine(&pool, &progress)))
    }
}
