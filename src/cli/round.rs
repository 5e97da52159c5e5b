//! `fedmill round`: the rounds of a federation on a state directory.

mod check;
mod directory;
mod failed;
mod history;
mod init;
mod report;
mod rollback;
mod run;
mod show;
mod status;
mod verify;

use super::{BACKEND, CPU, Common, Failure, GPU, Outcome};
use crate::round::server::options;
use crate::telemetry::console::{self, Wording};
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
    Init: init::Arguments, reads [];
    Run: run::Arguments, reads [BACKEND, GPU, CPU];
    Check: check::Arguments, reads [];
    Status: status::Arguments, reads [];
    History: history::Arguments, reads [];
    Show: show::Arguments, reads [];
    Verify: verify::Arguments, reads [&["threads"]];
    Rollback: rollback::Arguments, reads [];
    Report: report::Arguments, reads [];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        console::reword(Wording { text: options::in_settings, whole: options::with_keys });
        self.command.run(common)
    }
}
