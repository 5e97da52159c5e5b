//! `fedmill agents`: the agents that plans may get, and their scores.

mod add;
mod list;
mod new;
pub(super) mod registry;
mod retire;
mod show;

use super::{Common, Failure, Outcome};
use clap::Args;

/// Keep the registry of agents, which do the work of plans.
///
/// The agents stand in the file `clients.db` of a state directory, beside the clients. `fedmill plan new --agents` takes
/// them into plans, and `fedmill plan run --agents` keeps what their attempts came to.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

subcommands! {
    Add: add::Arguments, reads [];
    New: new::Arguments, reads [];
    List: list::Arguments, reads [];
    Show: show::Arguments, reads [];
    Retire: retire::Arguments, reads [];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }
}
