//! `fedmill clients list`: shows the clients of the registry.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::state::{StateDirectory, failure, or_dash, time_text};
use crate::cli::cells::{fit, number, row};
use crate::fleet::client::Client;
use crate::fleet::registry::Filter;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

/// Show the clients of the registry.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// Show clients of this tier only.
    #[arg(long, value_name = "NAME", help_heading = INPUTS)]
    tier: Option<String>,
    /// Show retired clients too.
    #[arg(long, help_heading = INPUTS)]
    retired: bool,
    /// Show at most N clients.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print a JSON object a client, one a line.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let registry = self.state.open()?;
        let filter = Filter { tier: self.tier.clone(), with_retired: self.retired, limit: self.limit };
        if self.json {
            return list_json(&registry, &filter);
        }
        let mut table = table();
        registry
            .list(&filter, |client| {
                table.add_row(cells(&client));
                Ok(())
            })
            .map_err(failure)?;
        print(&format!("{}\n", fit(&mut table, &[0, 1])))?;
        Ok(Outcome::Done)
    }
}

fn list_json(registry: &crate::fleet::registry::Registry, filter: &Filter) -> Result<Outcome, Failure> {
    let mut text = String::new();
    let mut failed = None;
    registry
        .list(filter, |client| {
            let added = serde_json::to_string(&client).map(|line| text.push_str(&(line + "\n")));
            failed = added.err().map(Failure::from);
            if failed.is_none() && text.len() > LINES {
                failed = print(&std::mem::take(&mut text)).err();
            }
            Ok(())
        })
        .map_err(failure)?;
    match failed {
        Some(why) => Err(why),
        None => print(&text).map(|()| Outcome::Done),
    }
}

/// Bytes of JSON lines that are printed together.
const LINES: usize = 1 << 16;

/// What fits a terminal. `clients show` and `--json` have all of a client.
const HEADER: [&str; 8] = ["client", "tier", "compute", "memory", "data", "merged", "last update", "retired"];

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(HEADER);
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The day of a time in UTC.
fn day(seconds: Option<i64>) -> String {
    time_text(seconds).chars().take("2026-01-31".len()).collect()
}

fn cells(client: &Client) -> Vec<String> {
    let profile = &client.profile;
    row([
        profile.id.clone(),
        or_dash(profile.tier.as_ref()),
        number(profile.compute_capability),
        or_dash(profile.memory.map(number)),
        number(profile.data_size),
        client.history.merged.to_string(),
        day(profile.last_update),
        day(profile.retired_at),
    ])
}
