//! `fedmill he encrypt`: a client encrypts its update.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::party::{PARTY, PartyOptions, PublicOption, RoundOption, TrustOption};
use crate::modes::he::TRUST;
use crate::modes::he::encrypt::{self, EncryptOptions, Encrypted};
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Encrypt an update, as a client, once in a round.
///
/// Prints the path of the encrypted update. The same update gives the same file again; another one is refused. The server's
/// and the key holder's keys must be among those that you trust.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    round: RoundOption,
    #[command(flatten)]
    public: PublicOption,
    /// The update: a .safetensors file, or the index of a sharded one.
    #[arg(value_name = "UPDATE", help_heading = INPUTS)]
    update: PathBuf,
    /// Your own copy of the model that you started from. Its digest must be that of the round.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: PathBuf,
    #[command(flatten)]
    party: PartyOptions,
    #[command(flatten)]
    trust: TrustOption,
    /// Refuse if sums of fewer clients may be decrypted.
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_cohort: usize,
    /// Refuse if fewer of the clients that may take part have keys that you trust: a server can invent clients.
    #[arg(long, value_name = "N", default_value_t = 0)]
    require_known: usize,
    /// Encrypt an update that you encrypted in another round already.
    #[arg(long)]
    allow_again: bool,
    /// Write the encrypted update to this path: a folder, or a file that is named ID.he.
    #[arg(long, short, value_name = "PATH", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if !common.quiet {
            console::tell(&format!("trust: {TRUST}"));
        }
        let options = EncryptOptions {
            round: self.round.round.clone(),
            public: self.public.public.clone(),
            update: self.update.clone(),
            base: self.base.clone(),
            trusted: self.trust.identities()?,
            min_cohort: self.min_cohort,
            require_known: self.require_known,
            allow_again: self.allow_again,
            output: self.output.clone(),
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        let encrypted = encrypt::run(&options, &self.party.identity()?, &self.party.journal(), machine);
        let encrypted = encrypted.map_err(Failure::of)?;
        warn(&encrypted);
        print_path(&encrypted.path);
        Ok(Outcome::Done)
    }
}

/// Warns of what the grid took from the update.
fn warn(encrypted: &Encrypted) {
    if encrypted.clipped > 0 {
        let share = 100.0 * encrypted.clipped as f64 / encrypted.values as f64;
        tracing::warn!("{} of {} values ({share:.2} %) were clipped", encrypted.clipped, encrypted.values);
    }
    match encrypted.weight {
        Some((weight, true)) => tracing::warn!("your weight is {weight}, the cap of the round"),
        Some((0, _)) => tracing::warn!("your weight is 0: your update does not change the mean"),
        _ => {}
    }
}
