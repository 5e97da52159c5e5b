//! `fedmill agents list`: shows the agents of the registry.

use crate::cli::cells::{fit, number, row};
use crate::cli::clients::state::{StateDirectory, failure, or_dash, time_text};
use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::fleet::registry::agents::AgentRow;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

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
        let mut table = Table::new();
        let header = ["agent", "kind", "capabilities", "score", "recent", "ok", "failed", "retired"];
        table.load_style(presets::NOTHING).set_header(header);
        for column in 3..7 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for agent in shown {
            table.add_row(row(cells(agent)));
        }
        print(&format!("{}\n", fit(&mut table, &[0, 2])))?;
        Ok(Outcome::Done)
    }
}

/// What an agent can do.
pub(super) fn capabilities(row: &AgentRow) -> Vec<String> {
    let list = row.agent["capabilities"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn cells(agent: &AgentRow) -> [String; 8] {
    [
        agent.name.clone(),
        agent.agent["kind"].as_str().unwrap_or_default().to_owned(),
        capabilities(agent).join(", "),
        format!("{:.3}", agent.score),
        or_dash(agent.recent.map(number)),
        agent.succeeded.to_string(),
        agent.failed.to_string(),
        time_text(agent.retired_at).chars().take("2026-01-31".len()).collect(),
    ]
}
