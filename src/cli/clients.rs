//! `fedmill clients`: the registry of clients, and who takes part in a round.

mod add;
mod import;
mod list;
mod retire;
mod select;
mod show;
pub(super) mod state;
mod tiers;

use super::{Common, Failure, Outcome};
use clap::Args;

/// Keep the registry of clients, and select clients for a round.
///
/// The registry is the file `clients.db` of a state directory, which any SQLite tool reads.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

subcommands! {
    Add: add::Arguments, reads [];
    Import: import::Arguments, reads [];
    List: list::Arguments, reads [];
    Show: show::Arguments, reads [];
    Retire: retire::Arguments, reads [];
    Expire: retire::ExpireArguments, reads [];
    Select: select::Arguments, reads [];
    Tiers: tiers::Arguments, reads [];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }
}
