//! `fedmill completions`: the script with which a shell completes command lines.

use super::{Common, Failure, INPUTS, Outcome, command, print};
use crate::telemetry::manual;
use clap::Args;
use clap_complete::Shell;

/// Print the script with which a shell completes command lines.
///
/// docs/shells.md says where it goes.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The shell.
    #[arg(value_name = "SHELL", help_heading = INPUTS)]
    shell: Shell,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        print(&manual::completions(command(), self.shell)).map(|()| Outcome::Done)
    }
}
