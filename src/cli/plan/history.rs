//! `fedmill plan history`: the runs in a folder, or the events of a run.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::cancel::time;
use crate::plan::run::claim::{self, Holds};
use crate::plan::run::error::RunError;
use crate::watch::figures::STATES;
use crate::watch::history::{events, runs};
use crate::watch::search::Filter;
use crate::watch::tables;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// List the events of a run, the first first, or the runs in a folder, the last first.
///
/// Of a rendered plan it lists the runs of the tasks. Exit status: 0, or 2 if the directory is neither or cannot be read. A run that cannot be read stands in the list of a
/// folder as `unreadable`.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of a run or of a rendered plan, or a folder that holds directories of runs.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// List runs with this text in their name, plan, goal, stages, parameters or reasons, and where it stands; of a run,
    /// events with this text. Upper and lower case are the same.
    #[arg(long, value_name = "TEXT", help_heading = INPUTS)]
    search: Option<String>,
    /// List runs of the plan with this name.
    #[arg(long, value_name = "ID", help_heading = INPUTS)]
    plan: Option<String>,
    /// List runs in this state.
    #[arg(long, value_name = "STATE", value_parser = states(), help_heading = INPUTS)]
    state: Option<String>,
    /// List runs that started, or events that happened, less than this long ago, such as 12h or 7d.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = INPUTS)]
    since: Option<Duration>,
    /// List runs that measured this metric, with its last value in each: of a fan-out the mean.
    #[arg(long, value_name = "NAME", help_heading = INPUTS)]
    metric: Option<String>,
    /// The most to list: the last events of a run, or the last runs of a folder. By default all.
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    limit: Option<usize>,
    /// Print one JSON object per line.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

fn states() -> PossibleValuesParser {
    STATES.into_iter().chain(["unreadable"]).into()
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let most = self.limit.unwrap_or(usize::MAX);
        let filter = Filter {
            text: self.search.clone(),
            plan: self.plan.clone(),
            state: self.state.clone(),
            since: self.since,
            metric: self.metric.clone(),
        };
        let holds = claim::of(&self.dir);
        if matches!(holds, Holds::Run | Holds::Task(_)) {
            self.refuse_filters_of_folders()?;
            let events = events(&self.dir, &filter).map_err(Failure::of)?;
            let last = &events[events.len().saturating_sub(most)..];
            return self.tell(last, tables::events);
        }
        let found = match holds {
            // A rendered plan whose tasks have not begun is no fault.
            Holds::Rendered => match runs(&self.dir.join("tasks"), &filter) {
                Err(RunError::NoRuns { .. }) => Ok(Vec::new()),
                found => found,
            },
            _ => runs(&self.dir, &filter),
        };
        let found = found.map_err(Failure::of)?;
        self.tell(&found[..found.len().min(most)], |runs| tables::runs(runs, self.metric.as_deref()))
    }

    fn refuse_filters_of_folders(&self) -> Result<(), Failure> {
        let filters = [("--plan", &self.plan), ("--state", &self.state), ("--metric", &self.metric)];
        match filters.into_iter().find(|(_, value)| value.is_some()) {
            Some((option, _)) => {
                let found = self.dir.display();
                Err(anyhow::anyhow!("{option}: {found} is a run, expected a folder of runs").into())
            }
            None => Ok(()),
        }
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
