//! `fedmill agents list`: shows the agents of the registry.

use crate::cli::clients::state::{StateDirectory, failure};
use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::fleet::tables::{self, capabilities};
use clap::Args;

/// Show the agents of the registry.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// Show agents with this capability only.
    #[arg(long, value_name = "NAME", help_heading = INPUTS)]
    capability: Option<String>,
    /// Show retired agents too.
    #[arg(long, help_heading = INPUTS)]
    retired: bool,
    /// Print a JSON object an agent, one a line.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let agents = self.state.open()?.agents(self.retired).map_err(failure)?;
        let asked = self.capability.as_ref();
        let shown = agents.iter().filter(|row| asked.is_none_or(|asked| capabilities(row).contains(asked)));
        if self.json {
            let lines = shown.map(|row| Ok(serde_json::to_string(row)? + "\n"));
            print(&lines.collect::<Result<String, serde_json::Error>>()?)?;
            return Ok(Outcome::Done);
        }
        print(&format!("{}\n", tables::agents(shown)))?;
        Ok(Outcome::Done)
    }
}
