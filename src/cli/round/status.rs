//! `fedmill round status`: the state of a federation on one screen.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::reader;
use super::failed::{self, LastError};
use crate::modes::secure::standing::Standing;
use crate::round::fates::rounds_text;
use crate::round::layout;
use crate::round::state::State;
use crate::round::status::{Shortfall, Status};
use crate::telemetry::cells::{Listing, number};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Show the state of a federation on one screen.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (config, mut server) = reader(&self.directory, common)?;
        let state = State::read(&server, &self.directory).map_err(Failure::of)?;
        let status = Status::of(&mut server, &config, &state).map_err(Failure::of)?;
        let error = failed::read(&server).map_err(Failure::of)?;
        let shown = Shown { status: &status, error };
        let text = if self.json {
            serde_json::to_string(&shown)?
        } else {
            Listing::of_values(lines(&shown)).text(&[1])
        };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

#[derive(Serialize)]
struct Shown<'s> {
    #[serde(flatten)]
    status: &'s Status,
    /// The error with which the last run ended; `None` if it ended without one.
    error: Option<LastError>,
}

/// What lies in the inbox and goes nowhere: the first few names.
fn foreign(status: &Status) -> Option<String> {
    let names: Vec<&str> = status.foreign.iter().take(3).map(String::as_str).collect();
    let more = if status.foreign.len() > names.len() { ", ..." } else { "" };
    let count = status.foreign.len();
    let entries = if count == 1 { "entry" } else { "entries" };
    (count > 0).then(|| format!("{count} {entries} that no round takes: {}{more}", names.join(", ")))
}

/// What closes the open round before its deadline, or will close the next one.
fn quorum(status: &Status) -> Option<String> {
    let settings = status.settings.as_ref()?;
    Some(match status.quorum {
        Some(count) => format!("{count} updates close the round"),
        None => format!("{:.0} % of {} clients", 100.0 * settings.quorum, settings.clients),
    })
}

/// How rounds ended.
fn rounds(status: &Status) -> String {
    let abandoned = match status.abandoned {
        0 => String::new(),
        abandoned => format!(", {abandoned} abandoned"),
    };
    format!("{} published, {} refused{abandoned}", status.published, status.refused)
}

/// The rows of the table.
fn lines(Shown { status, error }: &Shown) -> Vec<(&'static str, String)> {
    let current = &status.current;
    let metrics: Vec<String> =
        current.metrics.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
    let mut kept = status.kept.clone();
    kept.sort_unstable();
    let kept: Vec<String> = kept.iter().map(u64::to_string).collect();
    let settings = status.settings.as_ref();
    let rows = [
        ("round", Some(format!("{}, phase {}", status.round, status.phase))),
        ("opened", status.opened.clone()),
        ("clients", status.selected.map(|selected| format!("{selected} selected"))),
        ("", status.shortfall.as_ref().and_then(Shortfall::text)),
        ("waits", status.waits.clone()),
        ("secure", status.secure.as_ref().map(Standing::to_string)),
        ("next", status.over.as_ref().map(|why| format!("no round opens: {why}"))),
        ("last", status.last.clone()),
        ("warnings", Some(status.warnings.join("; ")).filter(|text| !text.is_empty())),
        ("error", error.as_ref().map(|last| format!("the last run failed at {}: {}", last.at, last.error))),
        ("model", Some(format!("version {} of round {}", current.number, current.round))),
        ("blake3", Some(current.file.blake3.clone())),
        (
            "link",
            (!status.has_link).then(|| format!("{} is missing: the next run makes it", layout::CURRENT)),
        ),
        ("metrics", Some(metrics.join(", ")).filter(|text| !text.is_empty())),
        ("kept", Some(format!("versions {}", kept.join(", ")))),
        ("rounds", Some(rounds(status))),
        ("bytes", Some(format!("{} up, {} down", status.bytes_up, status.bytes_down))),
        (
            "registry",
            status.unrecorded.map(|rounds| {
                format!(
                    "does not know {}: it is from a backup; the next run records them",
                    rounds_text(rounds)
                )
            }),
        ),
        ("inbox", foreign(status)),
        ("quorum", quorum(status)),
        ("deadline", settings.map(|settings| format!("{} s after the opening", number(settings.timeout_s)))),
        (
            "privacy",
            status.budget.as_ref().map(|budget| {
                let spent = budget.epsilon_spent.map_or("infinite".to_owned(), |spent| format!("{spent:.3}"));
                format!("epsilon {spent} of {}, {} rounds left", budget.epsilon_budget, budget.rounds_left)
            }),
        ),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
