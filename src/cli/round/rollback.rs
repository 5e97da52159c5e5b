//! `fedmill round rollback`: goes back to an earlier model.

use super::super::{Common, Failure, INPUTS, Outcome, print_path};
use super::directory::{config, hardware};
use crate::round::layout;
use crate::round::machine::Machine;
use crate::round::server::Server;
use crate::templates::next;
use clap::Args;
use std::path::PathBuf;

/// Make an earlier model the current one.
///
/// Prints its path. The next round starts from it. The journal keeps the rounds since.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The version to go back to, among those that `fedmill round status` lists as kept.
    #[arg(long, value_name = "VERSION")]
    to: u64,
    /// Leave the state of the strategy behind, such as moments: it starts anew from the version. For a state that is lost
    /// or damaged.
    #[arg(long)]
    restart_strategy: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let config = config(&self.directory)?;
        let mut server = Server::open(&self.directory, &config, hardware(common)?).map_err(Failure::of)?;
        let mut machine = Machine::open(&mut server, &config, &self.directory).map_err(Failure::of)?;
        let version = machine.roll_back(self.to, self.restart_strategy).map_err(Failure::of)?;
        next::federation(&self.directory, &config);
        print_path(&self.directory.join(layout::model(&version.file.blake3)));
        Ok(Outcome::Done)
    }
}
