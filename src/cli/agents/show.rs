//! `fedmill agents show`: shows one agent.

use crate::cli::clients::state::{StateDirectory, failure};
use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::fleet::tables;
use clap::Args;

/// Show an agent: what it is, and what its attempts came to.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The name of the agent.
    #[arg(value_name = "NAME", help_heading = INPUTS)]
    name: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let agent = self.state.open()?.agent(&self.name).map_err(failure)?;
        if self.json {
            print(&(serde_json::to_string(&agent)? + "\n"))?;
            return Ok(Outcome::Done);
        }
        print(&(tables::agent(&agent) + "\n"))?;
        Ok(Outcome::Done)
    }
}
