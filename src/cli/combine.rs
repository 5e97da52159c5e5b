//! `fedmill combine`: merge one shard of a round.

use super::aggregation::{AggregationOptions, published};
use super::{Common, Failure, Outcome};
use crate::engine::decide::method::Reporting;
use crate::modes::shards::{Shard, combine::combine};
use clap::Args;
use std::path::PathBuf;

/// Merge one shard of a round, as was decided.
///
/// Prints the path of the partial that it leaves, which `merge` puts together with those of the other shards.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    /// Which shard: I of S, counted from 1. S may be another than that of `gram`.
    #[arg(long, value_name = "I/S")]
    shard: Shard,
    /// What `decide` left. Rules that work by coordinate, and mean, need none.
    #[arg(long, value_name = "DECISION")]
    decision: Option<PathBuf>,
    /// Where the partial goes.
    #[arg(long, short, value_name = "PARTIAL")]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let mut request = self.aggregation.request(common, &self.output, Reporting::default())?;
        request.inputs.others.extend(self.decision.clone());
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        published(combine(request, self.shard, self.decision.as_deref(), machine))
    }
}
