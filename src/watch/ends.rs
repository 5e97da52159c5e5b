//! The first and the last line of the journal of a run that succeeded: what a list of runs shows.
//!
//! Both lines have their own digests. Whether the lines between them and the plan are as the run left them, only a look at
//! this run says.

use super::history::PastRun;
use super::status::at;
use crate::io::{source, text};
use crate::plan::run::event::{Ending, Event, Line};
use crate::plan::run::journal::{JOURNAL, PLAN};
use crate::record::alone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::Path;

/// The most bytes of a first line: it names the files of all inputs.
const MOST_OF_A_LINE: u64 = 256 << 20;

/// The bytes at the end of a journal that have the line of the end.
const LAST: u64 = 4 << 10;

/// The most bytes of a plan.
const MOST_OF_A_PLAN: u64 = 64 << 20;

/// A run that succeeded.
pub(super) struct Ends {
    plan: String,
    stages: usize,
    started: String,
    ended: String,
}

/// What a list shows of a plan.
#[derive(Deserialize)]
struct Shown {
    id: String,
    stages: Vec<IgnoredAny>,
    #[serde(default)]
    on: Handlers,
}

/// The stages that a run which succeeds leaves out.
#[derive(Deserialize, Default)]
struct Handlers {
    #[serde(default)]
    failure: Vec<IgnoredAny>,
}

/// What a list shows of the first line.
#[derive(Deserialize)]
struct First {
    time: String,
}

impl Ends {
    /// The ends of the journal in a directory; `None` if the run did not succeed, or anything is not as it should be.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let path = root.join(JOURNAL);
        let last = text::last_lines(&path, 1, LAST).ok()?.pop()?;
        let (last, _) = alone::<Line>(&last).ok()?;
        if !matches!(last.entry.data, Event::End { ending: Ending::Succeeded }) {
            return None;
        }
        let first = text::first_line(&path, MOST_OF_A_LINE).ok()??;
        let first: First = serde_json::from_str(&first).ok()?;
        let plan = source::read_at_most(&root.join(PLAN), MOST_OF_A_PLAN).ok()?;
        let plan: Shown = serde_json::from_slice(&plan).ok()?;
        // All stages are over, if none waits for a failure.
        if !plan.on.failure.is_empty() {
            return None;
        }
        let is_its_own = last.entry.source == format!("fedmill/plan/{}", plan.id);
        let (started, ended) = (first.time, last.entry.time);
        is_its_own.then_some(Self { plan: plan.id, stages: plan.stages.len(), started, ended })
    }

    /// The run, as a list shows it.
    pub(super) fn summary(self, run: String) -> PastRun {
        PastRun {
            run,
            plan: self.plan,
            state: "succeeded".to_owned(),
            seconds: (at(&self.ended) - at(&self.started)).max(0.0),
            started: Some(self.started),
            over: self.stages,
            stages: self.stages,
            why: String::new(),
            found: Vec::new(),
            value: None,
        }
    }
}
