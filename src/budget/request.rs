//! The request of a round to a budget, and the answers.

use crate::budget::stamp::Stamp;
use crate::io::publish::StagedNames;
use crate::privacy::key::Key;
use crate::privacy::ledger::budget::Verdict;
use crate::privacy::ledger::record::{Mechanism, Rng};
use crate::record::Head;
use crate::record::sha256::Sha256;
use std::path::PathBuf;

/// A round that asks to release its output.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// The number of the round.
    pub round: Option<u64>,
    /// Coordinates of an update.
    pub dimension: u64,
    /// Ids of the clients that take part. Only a series uses them; otherwise the list may be empty.
    pub clients: Vec<String>,
    /// Ids of the clients whose updates are in earlier sums, which cannot leave them out any more.
    pub summed: Vec<String>,
    /// The number of clients that count, those of earlier sums too.
    pub counting: u64,
    /// Digest of all that the output depends on except the key: updates in order, weights, base, state, settings.
    pub inputs_sha256: Sha256,
    /// The path to publish the output at.
    pub output: PathBuf,
    /// The path to publish the server's state at; `None` without one.
    pub state: Option<PathBuf>,
    /// The names of the outputs, once their room is reserved.
    pub staged: Vec<StagedNames>,
    /// Whether to release the same inputs once more, with other noise and at full cost.
    pub release_again: bool,
    /// For tests: the number to make the key from. The output is NOT private.
    pub test_seed: Option<u64>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// The round may release its output, with noise of this key.
    Granted(Grant),
    /// The round was released before, and its output exists: there is nothing to do.
    Existing(ExistingRelease),
    /// An earlier charge paid for it, and its output is not found.
    PaidBefore(PaidBefore),
    /// The budget does not hold it.
    Refused(Verdict),
    /// The round of a series must not be released.
    WrongRound(WrongRound),
}

/// A charge that is on disk, and the key for its noise.
#[derive(Debug)]
pub struct Grant {
    /// The record of the charge.
    pub charge: Head,
    /// The name of the release.
    pub release_id: String,
    /// The settings of the release.
    pub mechanism: Mechanism,
    /// The key that the noise comes from.
    pub key: Key,
    /// Whether each client of the request counts; the others count as zero.
    pub counted: Vec<bool>,
    /// The number of the round.
    pub(crate) round: Option<u64>,
    pub(super) plan_sha256: Sha256,
    /// Whether the key comes from a test seed.
    pub(super) is_test: bool,
}

/// An output that was released before.
#[derive(Clone, PartialEq, Debug)]
pub struct ExistingRelease {
    /// The path of the file or of the index.
    pub path: PathBuf,
    /// The name of the release.
    pub release_id: String,
}

/// A charge that paid for the same round with the same inputs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("charge {seq} paid for this round with these inputs, and {}", self.found())]
pub struct PaidBefore {
    /// The number of the charge.
    pub seq: u64,
    /// The last path of its output.
    pub output: PathBuf,
    /// Its model, if it is found as it was released.
    pub model: Option<PathBuf>,
    /// Whether its release is recorded.
    pub is_released: bool,
    /// The state directory.
    pub directory: PathBuf,
}

impl PaidBefore {
    fn found(&self) -> String {
        match &self.model {
            Some(model) => format!("released {}", model.display()),
            None => format!("{} does not hold the model as it was released", self.output.display()),
        }
    }

    /// How to go on without a second charge, or with one.
    pub fn hint(&self) -> String {
        let (seq, directory) = (self.seq, self.directory.display());
        let free = match (&self.model, self.is_released) {
            (Some(_), _) => "use that model".to_owned(),
            (None, true) => "if the model was moved, pass its new path as -o, which costs nothing".to_owned(),
            (None, false) => format!(
                "if the model was moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` records it; \
                 if it was never seen, `fedmill privacy void {directory} --seq {seq} --attest TEXT` takes the charge back"
            ),
        };
        format!("{free}; for another release, --release-again draws new noise and pays once more")
    }
}

/// Why a round of a series is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WrongRound {
    /// The number of the round was used.
    #[error(
        "round {round} was already released from other updates, settings or version; reusing its noise would expose \
         both"
    )]
    Used {
        /// The round.
        round: u64,
    },
    /// A later round was charged.
    #[error("round {round} is too late: round {last} was already charged, and rounds must come in order")]
    Passed {
        /// The round.
        round: u64,
        /// The last round that was charged.
        last: u64,
    },
    /// A sum that was made elsewhere holds a client that does not count.
    #[error("client `{client}` of a sum takes part more often or sooner than the plan allows")]
    InSum {
        /// The id of the client.
        client: String,
    },
    /// A second release of a round was asked for.
    #[error(
        "--release-again: round {round} was charged, and a series releases each round once; leave the option out"
    )]
    Again {
        /// The round.
        round: u64,
    },
    /// The plan has no such round.
    #[error("round {round} is not in the plan, which has rounds 1 to {rounds}")]
    Beyond {
        /// The round.
        round: u64,
        /// Rounds of the plan.
        rounds: u64,
    },
}

impl Request {
    /// The ids of all clients; those of earlier sums come last.
    pub(super) fn all_clients(&self) -> impl Iterator<Item = &String> {
        self.clients.iter().chain(&self.summed)
    }

    /// The source of the key.
    pub(super) fn rng(&self) -> Rng {
        if self.test_seed.is_some() { Rng::TestSeed } else { Rng::Os }
    }
}

impl Grant {
    /// The stamp of the output. `next_clip` is the clip bound of the next round, if it follows the norms.
    pub fn stamp(&self, next_clip: Option<f64>) -> Stamp {
        Stamp {
            release_id: self.release_id.clone(),
            charge: self.charge,
            plan_sha256: self.plan_sha256,
            next_clip,
            is_test: self.is_test,
        }
    }
}
