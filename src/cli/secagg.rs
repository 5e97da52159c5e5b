//! `fedmill secagg`: sums of updates that the server does not see, file by file.

mod keygen;
mod mask;
mod open;
mod params;
pub(super) mod party;
mod roles;
mod simulate;
mod status;
pub(super) mod terms;
mod unmask;
mod verify;

use super::{BACKEND, CPU, Common, Failure, GPU, Outcome};
use clap::Args;

/// Sum updates so that the server sees the sum alone.
///
/// All parties share the folder of a session. The server runs open, sum and unmask; each client runs mask, once; each
/// helper runs check and help. The server and fewer helpers than the threshold learn nothing but the sum.
/// docs/secure.md has a page for each party.
// `help` is a command of a helper; --help prints the help.
#[derive(Args, Debug)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

subcommands! {
    Keygen: keygen::Arguments, reads [];
    Open: open::Arguments, reads [CPU];
    Mask: mask::Arguments, reads [BACKEND, GPU, CPU];
    Check: roles::CheckArguments, reads [BACKEND, GPU, CPU];
    Sum: roles::SumArguments, reads [BACKEND, GPU, CPU];
    Help: roles::HelpArguments, reads [BACKEND, GPU, CPU];
    Unmask: unmask::Arguments, reads [BACKEND, GPU, CPU];
    Verify: verify::Arguments, reads [BACKEND, GPU, CPU];
    Status: status::Arguments, reads [];
    Simulate: simulate::Arguments, reads [CPU];
    Params: params::Arguments, reads [];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }
}
