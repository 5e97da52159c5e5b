//! How the noise of a series is correlated, and how often a client may take part.

use crate::privacy::correlated::Schedule;
use crate::privacy::correlated::factor::Factor;
use serde::{Deserialize, Serialize};

/// How the noise of rounds is correlated, and how often a client may take part.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Correlated {
    /// The matrix that correlates the noise.
    pub factor: Factor,
    /// Largest number of rounds of a client; in further rounds the client counts as zero.
    pub participations: u64,
    /// Least number of rounds from one round of a client to the next; sooner the client counts as zero.
    pub separation: u64,
}

impl Correlated {
    /// The schedule of a series with `rounds` rounds.
    pub fn schedule(&self, rounds: u64) -> Schedule {
        let Self { participations, separation, .. } = *self;
        Schedule { rounds, participations, separation }
    }

    /// The limits as text, to follow "a client counts".
    pub fn limits(&self) -> String {
        match self {
            Self { participations: 1, .. } => "in one round at most".to_owned(),
            Self { participations, separation: 1, .. } => format!("in {participations} rounds at most"),
            Self { participations, separation, .. } => {
                format!("in {participations} rounds at most, {separation} apart or more")
            }
        }
    }
}

impl std::fmt::Display for Correlated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.factor {
            Factor::Tree => write!(f, "tree")?,
            Factor::Banded { bands: 1 } => write!(f, "one band")?,
            Factor::Banded { bands } => write!(f, "{bands} bands")?,
        }
        write!(f, "; a client counts {}", self.limits())
    }
}
