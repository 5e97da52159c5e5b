//! Options that say who runs a command of homomorphic encryption, and in which round.

pub(super) use super::super::secagg::party::PARTY;
use super::super::secagg::party::{journal_beside, read_identity};
use super::super::{Failure, INPUTS};
use crate::parties::identity::read_identities;
use crate::parties::identity::{Identity, PublicIdentity};
use clap::Args;
use std::path::PathBuf;

/// The terms of a round.
#[derive(Args, Debug)]
pub(super) struct RoundOption {
    /// The terms of the round, which `open` wrote.
    #[arg(long, value_name = "ROUND", help_heading = INPUTS)]
    pub(super) round: PathBuf,
}

/// The public key of a round.
#[derive(Args, Debug)]
pub(super) struct PublicOption {
    /// The public key that the key holder made with `keygen`.
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub(super) public: PathBuf,
}

/// The signing key of the party that runs the command.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(super) struct KeyOption {
    /// The secret key of your signatures.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// The signing key and the journal of the party that runs the command.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(super) struct PartyOptions {
    #[command(flatten)]
    key: KeyOption,
    /// The folder in which you remember what you did in each round [default: the key's path with `.journal`].
    ///
    /// It keeps you from encrypting two updates, or decrypting two sums, in one round. Never restore an older copy of it.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
}

/// The keys that the user trusts.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(super) struct TrustOption {
    /// Public keys that you got from the parties themselves, not from the server: files, or folders of files that end in
    /// .pub.
    #[arg(long, value_name = "PUB", num_args = 1.., required = true)]
    trust: Vec<PathBuf>,
}

impl KeyOption {
    pub(super) fn identity(&self) -> Result<Identity, Failure> {
        read_identity(&self.key)
    }
}

impl PartyOptions {
    pub(super) fn identity(&self) -> Result<Identity, Failure> {
        self.key.identity()
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.journal.clone().unwrap_or_else(|| journal_beside(&self.key.key))
    }
}

impl TrustOption {
    pub(super) fn identities(&self) -> Result<Vec<PublicIdentity>, Failure> {
        read_identities(&self.trust).map_err(Failure::of)
    }
}
