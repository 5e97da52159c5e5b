//! `fedmill round history`: the rounds of a federation, the last first.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::reader;
use crate::round::status::{Past, history};
use crate::telemetry::cells::{Listing, cut, number};
use clap::Args;
use std::path::PathBuf;

/// List the rounds of a federation, the last first.
///
/// The clients of a round are those merged, missing, late and rejected; in a round that published nothing also those
/// whose updates were sound. `other files` are files that decide no client's outcome. `fedmill round show` has the
/// clients of a round and its whole ending.
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
    let header = ["round", "opened (UTC)", "merged", "missing", "late", "rejected", "ending"];
    let mut table = Listing::with_header(header);
    for past in rounds {
        table.add([
            past.round.to_string(),
            past.opened.as_deref().map(minute).unwrap_or_default(),
            format!("{} of {}", past.merged, past.selected),
            past.missing.to_string(),
            past.late.to_string(),
            past.rejected.to_string(),
            ending(past),
        ]);
    }
    table.text(&[6])
}

/// How a round ended, in short: `round show` has the whole.
fn ending(past: &Past) -> String {
    let ending = match past.version {
        Some(version) => format!("version {version}"),
        None if past.ending.is_empty() => format!("open, phase {}", past.phase),
        None => cut(&past.ending, MOST_OF_ENDING),
    };
    let metrics = past.metrics.iter().map(|(name, value)| format!("; {name} {}", number(*value)));
    let back = past.rollbacks.iter().map(|to| format!("; rolled back to version {to}"));
    let files = match past.other_files {
        0 => String::new(),
        1 => "; 1 other file".to_owned(),
        files => format!("; {files} other files"),
    };
    let excluded: usize = past.shortfall.iter().flat_map(|shortfall| shortfall.excluded.values()).sum();
    let excluded = if excluded == 0 { String::new() } else { format!("; {excluded} clients excluded") };
    format!("{ending}{}{}{files}{excluded}", metrics.collect::<String>(), back.collect::<String>())
}

/// Characters of the ending of a round that published nothing.
const MOST_OF_ENDING: usize = 56;

/// A time such as `2026-01-31T12:00:05Z` as `2026-01-31 12:00`.
fn minute(time: &str) -> String {
    time.chars().take("2026-01-31T12:00".len()).map(|sign| if sign == 'T' { ' ' } else { sign }).collect()
}
