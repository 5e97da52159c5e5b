//! `fedmill agents retire`: agents that no plan gets any more.

use crate::cli::clients::state::{StateDirectory, failure};
use crate::cli::{Common, Failure, INPUTS, Outcome, print_account};
use clap::Args;
use jiff::Timestamp;

/// Retire agents: no plan gets them any more. Their counts stay.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The names of the agents.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let retired = self.state.open()?.retire_agents(&self.names, Timestamp::now()).map_err(failure)?;
        print_account(&format!("{retired} {} retired\n", if retired == 1 { "agent" } else { "agents" }));
        Ok(Outcome::Done)
    }
}
