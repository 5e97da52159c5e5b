//! `fedmill he add`: the server adds up the encrypted updates.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::party::{KeyOption, RoundOption};
use crate::modes::he::add;
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Add up encrypted updates, as the server.
///
/// Leaves out clients whose files are not sound, and says why. Prints the path of the sum: give it to the key holder, with
/// the clients' files.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    round: RoundOption,
    #[command(flatten)]
    key: KeyOption,
    /// Encrypted updates, each named ID.he, or folders of them.
    #[arg(value_name = "FILE", required = true, help_heading = INPUTS)]
    files: Vec<PathBuf>,
    /// Write the sum to this path.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let identity = self.key.identity()?;
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        let added = add::run(&self.round.round, &self.files, &identity, &self.output, &machine);
        let added = added.map_err(Failure::of)?;
        for one in &added.left_out {
            tracing::warn!("left out `{}`: {}", one.client, one.fault);
        }
        if !common.quiet {
            console::tell(&format!("{} clients: {}", added.clients.len(), added.clients.join(", ")));
        }
        print_path(&self.output);
        Ok(Outcome::Done)
    }
}
