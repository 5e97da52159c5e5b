//! Why a merge published no model: the one error that all its steps end in.

use crate::engine::aggregate::state::StateError;
use crate::engine::intake::admit::{BadBase, Update, UpdateSet};
use crate::engine::intake::fault::Fault;
use crate::engine::intake::personal::PersonalError;
use crate::engine::intake::weights::WeightsError;
use crate::engine::passes::combine::CombineError;
use crate::engine::passes::drive::PassError;
use crate::gpu::job::GpuError;
use crate::io::discover::DiscoverError;
use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::modes::dp::release::PrivateError;
use crate::modes::shards::file::ShardError;
use crate::modes::tiers::file::TiersError;
use crate::modes::tree::purpose::BadRequest;
use crate::rules::RuleError;
use crate::strategies::StrategyError;
use crate::telemetry::report::Report;
use std::path::PathBuf;

/// Why no model was published.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum MergeError {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Base(#[from] BadBase),
    #[error("{list}")]
    BadUpdates { list: String, hint: &'static str },
    #[error(transparent)]
    Personal(#[from] PersonalError),
    #[error(transparent)]
    Tiers(#[from] TiersError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    #[error("{strategy} moves the base, expected --base MODEL")]
    NoBase { strategy: String },
    #[error("{}: is an input too, expected another output path", .path.display())]
    OutputIsInput { path: PathBuf },
    #[error("{}: is another output too, expected a path of its own for each of model, state and report", .path.display())]
    SameOutput { path: PathBuf },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Partial(#[from] BadRequest),
    #[error("the report cannot be written as JSON: {0}")]
    Report(serde_json::Error),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Combine(#[from] CombineError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Policy refused; not an error of the input.
    #[error("{}", .0.refused.as_deref().unwrap_or_default())]
    Refused(Box<Report>),
}

/// Bad updates that an error message lists before it only counts them.
const MOST_LISTED: usize = 20;

impl MergeError {
    /// The error that these updates are bad.
    pub(crate) fn bad_updates(bad: &[Update]) -> Self {
        let faults = || bad.iter().flat_map(|update| update.faults.iter().map(move |fault| (update, fault)));
        let line = |(update, fault): (&Update, &Fault)| format!("{}: {fault}", update.path.display());
        let mut lines: Vec<String> = faults().take(MOST_LISTED).map(line).collect();
        if let Some(more) = faults().count().checked_sub(MOST_LISTED).filter(|more| *more > 0) {
            lines.push(format!("and {more} more faults in {} updates", bad.len()));
        }
        let specific = faults().find_map(|(_, fault)| fault.hint());
        let hint = specific.unwrap_or("pass --on-bad-update skip to merge the others");
        Self::BadUpdates { list: lines.join("\n"), hint }
    }

    /// The error that a shard found these updates bad, by their place in the set.
    pub(crate) fn bad_in_shard(set: &UpdateSet, faults: &[(usize, Fault)]) -> Self {
        let line = |(i, fault): &(usize, Fault)| format!("{}: {fault}", set.clients[*i].model.path.display());
        let list = faults.iter().map(line).collect::<Vec<_>>().join("\n");
        let hint =
            "other shards do not know of it: leave the update out of the inputs of all commands of this run";
        Self::BadUpdates { list, hint }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadUpdates { hint, .. } => Some((*hint).to_owned()),
            Self::Base(why) => why.hint().map(str::to_owned),
            Self::Partial(request) => request.hint().map(str::to_owned),
            Self::Shard(why) => why.hint(),
            Self::Private(why) => why.hint(),
            Self::Tiers(why) => why.hint(),
            Self::Write(WriteError::NoDirectory { path }) => Some(format!("mkdir -p {}", path.display())),
            Self::Combine(CombineError::DoesNotFit { value, .. }) if value.is_finite() => {
                Some("the deltas push the base past its dtype; merge onto a base of a wider one".to_owned())
            }
            Self::State(why) => why.hint(),
            Self::Gpu(why)
            | Self::Combine(CombineError::Gpu(why) | CombineError::Pass(PassError::Gpu(why))) => {
                why.hint().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Write(WriteError::Interrupted(Interrupted { signal }))
            | Self::Combine(
                CombineError::Write(WriteError::Interrupted(Interrupted { signal }))
                | CombineError::Pass(PassError::Interrupted(Interrupted { signal })),
            ) => Some(*signal),
            _ => None,
        }
    }
}
