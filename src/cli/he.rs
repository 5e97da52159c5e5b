//! `fedmill he`: sums of encrypted updates, which a key holder decrypts.
//!
//! It needs the feature `he`: without it, the command says how to build it.

#[cfg(feature = "he")]
mod add;
#[cfg(feature = "he")]
mod decrypt;
#[cfg(feature = "he")]
mod encrypt;
#[cfg(feature = "he")]
mod keygen;
#[cfg(feature = "he")]
mod open;
#[cfg(feature = "he")]
mod params;
#[cfg(feature = "he")]
mod party;

#[cfg(feature = "he")]
use super::CPU;
use super::{Common, Failure, Outcome};
use clap::Args;

/// Sum encrypted updates, which a key holder decrypts.
///
/// The key holder is a party other than the server. It runs params, keygen and decrypt; the server runs open and add; each
/// client runs encrypt, once in a round. Server and key holder must not collude. Where helpers can be had, secagg is smaller,
/// faster and trusts less. docs/he.md shows the part of each party.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[cfg(feature = "he")]
    #[command(subcommand)]
    command: Command,
    /// A command and its arguments. This fedmill was built without homomorphic encryption, and has none.
    #[cfg(not(feature = "he"))]
    #[arg(
        value_name = "COMMAND",
        help_heading = "Party",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

#[cfg(feature = "he")]
subcommands! {
    Params: params::Arguments, reads [];
    Keygen: keygen::Arguments, reads [];
    Open: open::Arguments, reads [CPU];
    Encrypt: encrypt::Arguments, reads [CPU];
    Add: add::Arguments, reads [CPU];
    Decrypt: decrypt::Arguments, reads [CPU];
}

/// The subcommands, and the common options that each reads.
#[cfg(feature = "he")]
pub(super) const READS: super::Reads = Command::READS;
/// No subcommand: this build has none.
#[cfg(not(feature = "he"))]
pub(super) const READS: super::Reads = &[];

impl Arguments {
    #[cfg(feature = "he")]
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }

    #[cfg(not(feature = "he"))]
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let found = self.words.first().map_or(String::new(), |word| format!(" {word}"));
        let why = anyhow::anyhow!("he{found}: this fedmill was built without homomorphic encryption");
        Err(Failure { hint: Some("cargo install fedmill --features he".to_owned()), ..why.into() })
    }
}
