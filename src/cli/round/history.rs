//! `fedmill round history`: the rounds of a federation, the last first.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::reader;
use crate::cli::cells::row;
use crate::round::status::{Past, history};
use clap::Args;
use std::path::PathBuf;

/// List the rounds of a federation, the last first.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The number of rounds to list.
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = OUTPUT)]
    limit: usize,
    /// Print one JSON object per line.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (_, mut server) = reader(&self.directory, common)?;
        let rounds = history(&mut server, self.limit).map_err(Failure::of)?;
        if !self.json {
            print(&format!("{}\n", table(&rounds)))?;
            return Ok(Outcome::Done);
        }
        for past in rounds {
            print(&format!("{}\n", serde_json::to_string(&past)?))?;
        }
        Ok(Outcome::Done)
    }
}

fn table(rounds: &[Past]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["round", "opened", "selected", "merged", "rejected", "metrics", "ending"]);
    for past in rounds {
        let metrics: Vec<String> =
            past.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let back: Vec<String> =
            past.rollbacks.iter().map(|to| format!("; rolled back to version {to}")).collect();
        let ending =
            if past.ending.is_empty() { format!("open, phase {}", past.phase) } else { past.ending.clone() };
        table.add_row(row([
            past.round.to_string(),
            past.opened.clone().unwrap_or_default(),
            past.selected.to_string(),
            past.merged.to_string(),
            past.rejected.to_string(),
            metrics.join(", "),
            format!("{ending}{}", back.concat()),
        ]));
    }
    table.trim_fmt()
}
