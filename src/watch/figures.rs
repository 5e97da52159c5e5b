//! The figures of runs for Prometheus, and their textfile.
//!
//! The table in docs/monitoring.md comes from [`FIGURES`].
//! Every sample has the folder of its run as a label, so that the files of several folders hold no sample twice.

use super::history::{self, PastRun};
use super::search::Filter;
use super::status::{Status, Watched, at};
use crate::plan::run::claim::is_run;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Ending, Event};
use crate::telemetry::figures::Kind;
use crate::telemetry::prometheus::{Family, Labels, page};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most runs of a folder whose figures are exported one by one.
pub const MOST_RUNS: usize = 1000;

/// The words for the state of a run.
pub const STATES: [&str; 5] = ["running", "interrupted", "succeeded", "failed", "refused"];

/// A figure of a run.
pub struct Figure {
    /// Its name without the prefix `fedmill_`, with its unit.
    pub name: &'static str,
    /// How it changes.
    pub kind: Kind,
    /// Its label beside `folder`, `run` and `plan`.
    pub label: Option<&'static str>,
    /// What it is, with its range.
    pub help: &'static str,
    values: Values,
}

/// Reads the values of a figure, each with the value of its label.
type Values = fn(&Exported) -> Vec<(String, f64)>;

/// A run whose figures are exported.
struct Exported {
    name: String,
    watched: Watched,
    status: Status,
    /// Attempts that began, and those of them that were not the first.
    attempts: (f64, f64),
}

/// The figure of a whole folder: its runs, by plan and state.
pub const RUNS: Figure = Figure {
    name: "plan_runs",
    kind: Kind::Gauge,
    label: Some("state"),
    help: "Runs in the folder, by plan and state",
    values: |_| Vec::new(),
};

const fn gauge(
    name: &'static str,
    label: Option<&'static str>,
    help: &'static str,
    values: Values,
) -> Figure {
    Figure { name, kind: Kind::Gauge, label, help, values }
}

const fn counter(name: &'static str, help: &'static str, values: Values) -> Figure {
    Figure { name, kind: Kind::Counter, label: None, help, values }
}

fn one(value: f64) -> Vec<(String, f64)> {
    vec![(String::new(), value)]
}

/// Every figure of a run.
pub const FIGURES: &[Figure] = &[
    gauge("plan_run_state", Some("state"), "1 for the state of the run, 0 for the others", |run| {
        let is = |state: &str| f64::from(u8::from(run.status.state == state));
        STATES.iter().map(|state| ((*state).to_owned(), is(state))).collect()
    }),
    gauge("plan_stages", Some("state"), "Stages of the run, by state", |run| {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for stage in run.status.stages.iter().filter(|stage| stage.is_current) {
            *counts.entry(&stage.state).or_default() += 1.0;
        }
        counts.into_iter().map(|(state, count)| (state.to_owned(), count)).collect()
    }),
    gauge(
        "plan_progress_ratio",
        None,
        "Part of the run that is done, where each stage counts alike, 0 to 1",
        |run| one(run.status.progress),
    ),
    gauge("plan_rest_seconds", None, "Seconds that the run may still take, as plan status has them", |run| {
        run.status.rest.seconds.map(one).unwrap_or_default()
    }),
    gauge("plan_run_seconds", None, "Seconds from the start of the run to its end, or to now", |run| {
        one(run.status.seconds)
    }),
    gauge(
        "plan_success_timestamp_seconds",
        None,
        "Time at which the run succeeded, in seconds since 1970",
        |run| {
            if run.watched.state.ending == Some(Ending::Succeeded) {
                one(run.last_event())
            } else {
                Vec::new()
            }
        },
    ),
    gauge(
        "plan_last_event_timestamp_seconds",
        None,
        "Time of the last event of the run, in seconds since 1970",
        |run| one(run.last_event()),
    ),
    gauge("plan_stage_seconds", Some("stage"), "Seconds of all attempts of a stage", |run| {
        let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
        for (stage, groups) in run.watched.plan.stages.iter().zip(&run.watched.state.groups) {
            *seconds.entry(stage.id.as_str()).or_default() +=
                groups.iter().map(|group| group.seconds()).sum::<f64>();
        }
        seconds.into_iter().map(|(stage, seconds)| (stage.to_owned(), seconds)).collect()
    }),
    gauge(
        "plan_bottleneck_ratio",
        Some("stage"),
        "Share of the critical path of the stage that takes most of it, 0 to 1",
        |run| run.status.bottleneck.iter().map(|found| (found.stage.clone(), found.share)).collect(),
    ),
    counter("plan_attempts_total", "Attempts that began", |run| one(run.attempts.0)),
    counter("plan_retries_total", "Attempts that began after a failed one", |run| one(run.attempts.1)),
    counter("plan_requests_total", "Requests to endpoints", |run| one(run.watched.state.calls as f64)),
    counter("plan_tokens_total", "Tokens of models", |run| one(run.watched.state.tokens as f64)),
    gauge(
        "plan_privacy_spent_epsilon",
        None,
        "Epsilon that the privacy budgets of the run have spent, as it last read their ledgers",
        |run| {
            if run.watched.state.ledgers.is_empty() {
                Vec::new()
            } else {
                one(run.watched.state.spent(None).0)
            }
        },
    ),
    gauge(
        "plan_limit_ratio",
        Some("limit"),
        "What the run used of a limit that its plan states, by the limit",
        |run| run.status.limits.iter().map(|used| (used.limit.to_owned(), used.used / used.bound)).collect(),
    ),
];

impl Exported {
    fn read(root: &Path, name: String) -> Result<Self, RunError> {
        let watched = Watched::read(root)?;
        let status = watched.status(&watched.past(None)?);
        let began = watched.journal.lines.iter().filter_map(|line| match line.entry.data {
            Event::Begin { attempt, .. } => Some(attempt),
            _ => None,
        });
        let (first, later): (Vec<u32>, Vec<u32>) = began.partition(|attempt| *attempt <= 1);
        let attempts = ((first.len() + later.len()) as f64, later.len() as f64);
        Ok(Self { name, watched, status, attempts })
    }

    fn last_event(&self) -> f64 {
        self.watched.journal.lines.last().map_or(f64::NAN, |line| at(&line.entry.time))
    }
}

/// The textfile of a run, or of the runs in a folder: for each plan and state the number of runs, and the figures of
/// those that run, of the last of each plan, and of the last of each plan that succeeded, [`MOST_RUNS`] at most.
///
/// # Errors
///
/// When the directory is neither, or cannot be read.
pub fn textfile(root: &Path) -> Result<String, RunError> {
    let root =
        std::path::absolute(root).map_err(|source| RunError::Read { path: root.to_owned(), source })?;
    let (folder, past, shown) = if is_run(&root) {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (root.parent().unwrap_or(&root), Vec::new(), vec![Exported::read(&root, name)?])
    } else {
        let past = history::runs(&root, &Filter::default())?;
        // A run that cannot be read any more is left out.
        let shown = chosen(&past).into_iter().take(MOST_RUNS);
        let shown = shown.filter_map(|run| Exported::read(&root.join(run), run.to_owned()).ok()).collect();
        (root.as_path(), past, shown)
    };
    let folder = folder.to_string_lossy();
    let mut counts: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for run in &past {
        *counts.entry((&run.plan, &run.state)).or_default() += 1.0;
    }
    let counted = counts.into_iter().map(|((plan, state), count)| {
        let labels = [("folder", folder.clone()), ("plan", plan.into()), ("state", state.into())];
        (Labels::from(labels), count)
    });
    let samples = |figure: &'static Figure| {
        let of_run = |run: &'_ Exported| -> Vec<(Labels<'_>, f64)> {
            let of_value = |(of, value): (String, f64)| {
                let run = [
                    ("folder", folder.clone().into_owned().into()),
                    ("run", run.name.clone().into()),
                    ("plan", run.status.plan.clone().into()),
                ];
                (run.into_iter().chain(figure.label.map(|label| (label, of.into()))).collect(), value)
            };
            (figure.values)(run).into_iter().map(of_value).collect()
        };
        shown.iter().flat_map(of_run).collect()
    };
    let runs = Family { name: RUNS.name, kind: RUNS.kind, help: RUNS.help, samples: counted.collect() };
    let of_runs = FIGURES.iter().map(|figure| Family {
        name: figure.name,
        kind: figure.kind,
        help: figure.help,
        samples: samples(figure),
    });
    Ok(page(std::iter::once(runs).chain(of_runs)))
}

/// The runs of a folder whose figures are exported, the last first: those that run before all others.
fn chosen(past: &[PastRun]) -> Vec<&str> {
    let (mut last, mut succeeded) = (BTreeSet::new(), BTreeSet::new());
    let mut chosen = Vec::new();
    for run in past.iter().filter(|run| run.state != "unreadable") {
        let is_last = last.insert(run.plan.as_str());
        let has_succeeded = run.state == "succeeded" && succeeded.insert(run.plan.as_str());
        if run.state == "running" || is_last || has_succeeded {
            chosen.push(run);
        }
    }
    chosen.sort_by_key(|run| run.state != "running");
    chosen.into_iter().map(|run| run.run.as_str()).collect()
}
