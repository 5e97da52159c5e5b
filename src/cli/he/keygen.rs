//! `fedmill he keygen`: makes the keys of the scheme.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::party::{KeyOption, PARTY};
use crate::modes::he::keys;
use clap::Args;
use std::path::PathBuf;

/// Make the keys of the scheme, as the key holder.
///
/// The key holder must be a party other than the server. Only you may read the secret key. Prints the path of the public key,
/// which you sign. Make new keys every few rounds.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The numbers that `params` wrote.
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    params: PathBuf,
    #[command(flatten)]
    key: KeyOption,
    /// Your name, as in your public key of signatures.
    #[arg(long, value_name = "ID", help_heading = PARTY)]
    id: String,
    /// Write the public key to this path.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    public: PathBuf,
    /// Write the secret key to this path.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    secret: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let params = keys::read_params(&self.params).map_err(Failure::of)?;
        let holder = self.key.identity()?;
        keys::generate(&params, (&holder, &self.id), &self.public, &self.secret).map_err(Failure::of)?;
        print_path(&self.public);
        Ok(Outcome::Done)
    }
}
