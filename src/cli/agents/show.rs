//! `fedmill agents show`: shows one agent.

use super::list::capabilities;
use crate::cli::cells::{number, row};
use crate::cli::clients::state::{StateDirectory, failure, or_dash, time_text};
use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use clap::Args;
use comfy_table::{Table, presets};

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
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (name, value) in [
            ("agent", agent.name.clone()),
            ("capabilities", capabilities(&agent).join(", ")),
            ("score", format!("{:.3}", agent.score)),
            ("recent", or_dash(agent.recent.map(number))),
            ("succeeded", agent.succeeded.to_string()),
            ("failed", agent.failed.to_string()),
            ("expected seconds", or_dash(agent.expected_seconds)),
            ("added", time_text(Some(agent.added_at))),
            ("retired", time_text(agent.retired_at)),
            ("why", or_dash(agent.retired_because.as_ref())),
        ] {
            table.add_row(row([name.to_owned(), value]));
        }
        print(&format!("{}\n\n{}\n", table.trim_fmt(), serde_json::to_string_pretty(&agent.agent)?))?;
        Ok(Outcome::Done)
    }
}
