//! `fedmill he decrypt`: the key holder decrypts the sum.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::party::{PARTY, PartyOptions, PublicOption, RoundOption, TrustOption};
use crate::modes::he::TRUST;
use crate::modes::he::decrypt::{self, DecryptOptions};
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Decrypt the sum of a round, as the key holder, once in a round.
///
/// Adds up the clients' files again, and decrypts if their sum is the server's. Prints the path of the mean: an update that
/// `fedmill aggregate` merges into the base. The server's and the clients' keys must be among those that you trust.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    round: RoundOption,
    #[command(flatten)]
    public: PublicOption,
    /// The secret key that you made with `keygen`.
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    secret: PathBuf,
    /// The sum that the server made with `add`.
    #[arg(value_name = "SUM", help_heading = INPUTS)]
    sum: PathBuf,
    /// The folder of the clients' files, each named ID.he.
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    inputs: PathBuf,
    #[command(flatten)]
    party: PartyOptions,
    #[command(flatten)]
    trust: TrustOption,
    /// Refuse a sum of fewer clients whose keys you trust.
    #[arg(long, value_name = "N")]
    min_clients: usize,
    /// Write the mean to this path.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if !common.quiet {
            console::tell(&format!("trust: {TRUST}"));
        }
        let options = DecryptOptions {
            round: self.round.round.clone(),
            public: self.public.public.clone(),
            secret: self.secret.clone(),
            sum: self.sum.clone(),
            inputs: self.inputs.clone(),
            trusted: self.trust.identities()?,
            min_clients: self.min_clients,
            output: self.output.clone(),
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        let decrypted = decrypt::run(&options, &self.party.identity()?, &self.party.journal(), &machine);
        let decrypted = decrypted.map_err(Failure::of)?;
        if !common.quiet {
            let (clients, rounds) = (decrypted.clients.len(), decrypted.rounds);
            console::tell(&format!("mean of {clients} clients; rounds in your journal: {rounds}"));
        }
        print_path(&self.output);
        Ok(Outcome::Done)
    }
}
