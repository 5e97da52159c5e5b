//! `fedmill plan history`: the runs in a folder, or the events of a run.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::cli::cells::{fit, row};
use crate::watch::history::{PastEvent, PastRun, events, is_run, runs};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// List the events of a run, the first first, or the runs in a folder, the last first.
///
/// Exit status: 0, or 2 if the directory is neither or cannot be read. A run that cannot be read stands in the list of a
/// folder as `unreadable`.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of a run, or a folder that holds such directories.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// The most to list: the last events of a run, or the last runs of a folder. By default all.
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    limit: Option<usize>,
    /// Print one JSON object per line.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let most = self.limit.unwrap_or(usize::MAX);
        if is_run(&self.dir) {
            let events = events(&self.dir).map_err(Failure::of)?;
            let last = &events[events.len().saturating_sub(most)..];
            return self.tell(last, of_events);
        }
        let runs = runs(&self.dir).map_err(Failure::of)?;
        if runs.is_empty() {
            let found = format!(
                "{}: found no run, expected the directory of a run or a folder of runs",
                self.dir.display()
            );
            return Err(anyhow::anyhow!(found).into());
        }
        self.tell(&runs[..runs.len().min(most)], of_runs)
    }

    fn tell<T: Serialize>(&self, rows: &[T], table: impl Fn(&[T]) -> String) -> Result<Outcome, Failure> {
        if self.json {
            for row in rows {
                print(&format!("{}\n", serde_json::to_string(row)?))?;
            }
        } else {
            print(&format!("{}\n", table(rows)))?;
        }
        Ok(Outcome::Done)
    }
}

fn of_events(events: &[PastEvent]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["time (UTC)", "event", "of", "what"]);
    for event in events {
        let time = event.time.get(..19).unwrap_or(&event.time).replace('T', " ");
        table.add_row(row([time, event.event.to_owned(), event.name.clone(), event.what.clone()]));
    }
    fit(&mut table, &[2, 3])
}

fn of_runs(runs: &[PastRun]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["run", "plan", "state", "started (UTC)", "seconds", "stages", "why"]);
    for run in runs {
        let started = run.started.as_deref().unwrap_or_default();
        table.add_row(row([
            run.run.clone(),
            run.plan.clone(),
            run.state.clone(),
            started.get(..16).unwrap_or(started).replace('T', " "),
            format!("{:.1}", run.seconds),
            format!("{}/{}", run.over, run.stages),
            run.why.clone(),
        ]));
    }
    fit(&mut table, &[0, 1, 6])
}
