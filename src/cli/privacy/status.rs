//! `fedmill privacy status`: shows what is spent of a budget, and what is left.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::failure::failure;
use crate::budget::books::Books;
use crate::privacy::ledger::status::Status;
use crate::telemetry::cells::Listing;
use clap::Args;
use std::path::PathBuf;

/// Width of the bar, in characters.
const BAR: usize = 30;

/// Show what is spent of a budget, and what is left.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "bar")]
    json: bool,
    /// Print one line.
    #[arg(long)]
    bar: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let books = Books::read(&self.directory).map_err(failure)?;
        let status = Status::of(&books.state).map_err(|why| failure(why.into()))?;
        if !status.private {
            tracing::warn!(
                "{} releases were made with a test seed: they are NOT private",
                status.test_releases
            );
        }
        let text = match (self.json, self.bar) {
            (true, _) => serde_json::to_string(&status)?,
            (_, true) => bar(&status),
            _ => Listing::of_values(status.lines()).text(&[]),
        };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

fn bar(status: &Status) -> String {
    let part = (status.epsilon_spent.unwrap_or(f64::INFINITY) / status.epsilon_budget).min(1.0);
    // Rounds down: a full bar means that nothing is left.
    let full = (part * BAR as f64) as usize;
    let not_private = if status.private { "" } else { ", NOT PRIVATE" };
    format!(
        "[{}{}] {:.1} % of epsilon {} spent, {} rounds left{not_private}",
        "#".repeat(full),
        "-".repeat(BAR - full),
        100.0 * part,
        status.epsilon_budget,
        status.rounds_left
    )
}
