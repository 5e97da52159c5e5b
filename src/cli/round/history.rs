//! `fedmill round history`: the rounds of a federation, the last first.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::reader;
use crate::cli::cells::{fit, row};
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
    table.set_header(["round", "opened (UTC)", "merged", "rejected", "late", "metrics", "ending"]);
    for past in rounds {
        let metrics: Vec<String> =
            past.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let back: Vec<String> =
            past.rollbacks.iter().map(|to| format!("; rolled back to version {to}")).collect();
        let ending =
            if past.ending.is_empty() { format!("open, phase {}", past.phase) } else { past.ending.clone() };
        table.add_row(row([
            past.round.to_string(),
            past.opened.as_deref().map(minute).unwrap_or_default(),
            format!("{} of {}", past.merged, past.selected),
            past.rejected.to_string(),
            past.late.to_string(),
            metrics.join(", "),
            format!("{ending}{}", back.concat()),
        ]));
    }
    fit(&mut table, &[5, 6])
}

/// A time such as `2026-01-31T12:00:05Z` as `2026-01-31 12:00`.
fn minute(time: &str) -> String {
    time.chars().take("2026-01-31T12:00".len()).map(|sign| if sign == 'T' { ' ' } else { sign }).collect()
}
