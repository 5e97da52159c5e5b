//! `fedmill round`: the rounds of a federation on a state directory.

mod check;

use super::{Common, Failure, Outcome};
use clap::Args;

/// Run the rounds of a federation.
///
/// A state directory holds the settings, the models and the journal of all rounds.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

subcommands! {
    Check: check::Arguments, reads [];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }
}
