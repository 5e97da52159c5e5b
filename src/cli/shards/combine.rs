//! `fedmill combine`: merges one shard of the updates.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome};
use crate::engine::decide::method::Reporting;
use crate::modes::shards::combine::combine;
use crate::options::aggregation::{AggregationOptions, published};
use crate::settings::shard::Shard;
use clap::Args;
use std::path::PathBuf;

/// Merge one shard of the updates, as the decision says.
///
/// Prints the path of the shard file. `merge` joins the shard files of all shards into the model.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    /// The shard to merge: number I of S shards, counted from 1. S may differ from that of `gram`.
    #[arg(long, value_name = "I/S", help_heading = INPUTS)]
    shard: Shard,
    /// The decision of `decide`. Not needed for mean, and rules by coordinate, without --pre and with a
    /// strategy that needs no `gram`.
    #[arg(long, value_name = "DECISION", help_heading = INPUTS)]
    decision: Option<PathBuf>,
    /// Write the shard file to this path.
    #[arg(long, short, value_name = "SHARD_FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(in crate::cli) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let mut request = self.aggregation.request(common, &self.output, Reporting::default())?;
        request.inputs.others.extend(self.decision.clone());
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        published(combine(request, self.shard, self.decision.as_deref(), machine))
    }
}
