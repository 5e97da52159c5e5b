//! The files that the tasks of a plan share.
//!
//! ```text
//! DIR/plan.json        the plan            DIR/start.json       digests of its inputs, and the number of shards
//! DIR/done/TASK.json   what a task made    DIR/failed/TASK.json why one failed
//! DIR/tasks/TASK/      the directory of a task, as that of a run
//! DIR/seen.json        digests of the inputs, with their inodes and times
//! DIR/STOP             the kill file
//! ```

use super::units::{Task, Units};
use crate::io::digest::known::Known;
use crate::io::{folder, text};
use crate::language::graph::Graph;
use crate::plan::read;
use crate::plan::run::bound::check_instances;
use crate::plan::run::claim::{START, check_free_for_tasks, kept};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Artifact, Ending, Event};
use crate::plan::run::prepare::{Place, absolute, keep_plan, pin};
use crate::plan::run::publish::is_output;
use crate::plan::run::publish::reads::{Files, SEEN};
use crate::plan::run::state::State;
use crate::schema::Plan;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names that fedmill takes in the directory of a run, of a task and of a rendered plan, in lower case.
pub const OWN: [&str; 29] = [
    ".snakemake",
    "attempts",
    "cache",
    "done",
    "events.jsonl",
    "failed",
    "gates",
    "given.json",
    "inputs",
    "jobs",
    "ledgers.json",
    "ledgers.lock",
    "lock",
    "logs",
    "out",
    "plan.json",
    "plans",
    "receipts",
    "report.json",
    "report.txt",
    "run.sh",
    "seen.json",
    "snakefile",
    "start.json",
    "store",
    "submit.boot",
    "submit.lock",
    "submit.sh",
    "tasks",
];

/// What came of a task.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `fedmill.task/1`.
    pub schema: String,
    /// BLAKE3 of the plan.
    pub plan: String,
    /// The name of the task.
    pub task: String,
    /// How it ended.
    pub ending: Ending,
    /// What happened to its stages; paths of outputs are those from the directory of another task.
    pub events: Vec<Event>,
}

/// The schema of records.
pub const RECORD: &str = "fedmill.task/1";

/// A plan whose tasks run one by one.
#[derive(Debug)]
pub struct Shared {
    /// The plan.
    pub plan: Plan,
    /// Its digest.
    pub digest: String,
    /// The directory.
    pub root: PathBuf,
    /// The folder of its inputs.
    pub base: PathBuf,
    /// What all tasks begin with.
    pub start: Event,
    /// Its tasks.
    pub units: Units,
}

/// Makes the directory of a plan, or takes the one that is there: finds the inputs and takes their digests.
///
/// # Errors
///
/// When an input is not as the plan says, the directory belongs to another plan, or a file cannot be written.
pub fn prepare(plan: &Plan, place: &Place, shards: u32) -> Result<Shared, RunError> {
    let absolute =
        |path: &Path| absolute(path).map_err(|why| RunError::Plan { at: "--output".to_owned(), why });
    let place = Place { root: absolute(&place.root)?, base: absolute(&place.base)?, ..place.clone() };
    let digest = read::digest(plan);
    let path = place.root.join(START);
    if folder::exists(&path) {
        let found = load(&place.root)?;
        if found.digest != digest {
            return Err(RunError::OtherPlan { path, found: found.digest, expected: digest });
        }
        return Ok(found);
    }
    check_free_for_tasks(&place.root, &digest)?;
    let shards = plan.limits.max_parallel.unwrap_or(shards).max(1);
    let known = Known::default();
    let start = Event::Start { plan: digest, inputs: pin(plan, &place, &known)?, shards };
    keep_plan(plan, &place)?;
    write(&path, &start)?;
    let path = place.root.join(SEEN);
    known.write(&path).map_err(|source| RunError::Write { path, source })?;
    load(&place.root)
}

/// The plan in a directory that [`prepare`] made.
///
/// # Errors
///
/// When the directory holds none, or its files do not belong together.
pub fn load(root: &Path) -> Result<Shared, RunError> {
    let path = root.join(START);
    if !folder::exists(&path) {
        return Err(RunError::NoTasks { path: root.to_owned() });
    }
    let root =
        std::path::absolute(root).map_err(|source| RunError::Read { path: root.to_owned(), source })?;
    let (plan, base) = kept(&root)?;
    let digest = read::digest(&plan);
    let start: Option<Event> = read_json(&path)?;
    let start = match start {
        Some(Event::Start { plan: found, inputs, shards }) if found == digest => {
            Event::Start { plan: found, inputs, shards }
        }
        Some(Event::Start { plan: found, .. }) => {
            return Err(RunError::OtherPlan { path, found, expected: digest });
        }
        _ => {
            let why = "is no file of `fedmill plan render`".to_owned();
            return Err(RunError::Damaged { path, line: 1, why });
        }
    };
    let graph = Graph::of(&plan)?;
    let mut state = State::new(&plan, &graph);
    state.add(&start, &graph, &plan);
    check_instances(&plan, &state)?;
    let units = Units::of(&plan, graph, &state);
    Ok(Shared { plan, digest, root, base, start, units })
}

impl Shared {
    /// The files of all inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&String, &Artifact)> {
        let inputs = match &self.start {
            Event::Start { inputs, .. } => Some(inputs),
            _ => None,
        };
        inputs.into_iter().flatten().flat_map(|(name, files)| files.iter().map(move |file| (name, file)))
    }

    /// The files that a task may read, with the digests that `render`, other tasks and earlier attempts at it knew.
    pub fn files(&self, task: Task) -> Files {
        let known = Known::default();
        let others = self.units.before(task).into_iter().map(|(other, _)| self.folder(other));
        let folders = others.chain([self.root.clone(), self.folder(task)]);
        folders.for_each(|folder| known.add(&folder.join(SEEN)));
        let inputs = match &self.start {
            Event::Start { inputs, .. } => inputs.clone(),
            _ => BTreeMap::new(),
        };
        Files::new(known, inputs, &self.folder(task))
    }

    /// The directory of a task.
    pub fn folder(&self, task: Task) -> PathBuf {
        self.root.join("tasks").join(self.units.name(task))
    }

    /// The record of a task that is done.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn done(&self, task: Task) -> Result<Option<Record>, RunError> {
        self.record(task, "done")
    }

    /// The record of a task that failed.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn failed(&self, task: Task) -> Result<Option<Record>, RunError> {
        self.record(task, "failed")
    }

    fn record(&self, task: Task, folder: &str) -> Result<Option<Record>, RunError> {
        let record: Option<Record> = read_json(&self.path(task, folder))?;
        // A record of another plan, or one that names files of others, proves nothing.
        let is_ours = |record: &Record| {
            let events = &mut record.events.iter();
            record.plan == self.digest
                && record.task == self.units.name(task)
                && events.all(|event| self.is_of(task, event))
        };
        Ok(record.filter(is_ours))
    }

    /// Whether an event can be one of a task: of its stages, and with outputs in its own directory.
    fn is_of(&self, task: Task, event: &Event) -> bool {
        let stages = &self.units.all[task.unit].stages;
        match event {
            Event::Made { key, made, .. } => {
                let home = format!("../{}/", self.units.name(task));
                let is_output = |artifact: &Artifact| {
                    artifact.path.strip_prefix(&home).is_some_and(|path| {
                        let artifact = Artifact { path: path.to_owned(), ..artifact.clone() };
                        is_output(&artifact, &key.name(&self.plan))
                    })
                };
                stages.contains(&key.stage) && made.outputs.values().all(is_output)
            }
            Event::Failed { key, .. } | Event::Settled { key, .. } => stages.contains(&key.stage),
            Event::Iterated { looped, .. } | Event::Tuned { looped, .. } => {
                stages.iter().all(|stage| self.plan.loop_of(*stage) == Some(*looped))
            }
            _ => false,
        }
    }

    fn path(&self, task: Task, folder: &str) -> PathBuf {
        self.root.join(folder).join(format!("{}.json", self.units.name(task)))
    }

    /// The tasks that failed.
    ///
    /// # Errors
    ///
    /// When the folder of their records cannot be listed.
    pub fn failures(&self) -> Result<Vec<Task>, RunError> {
        let path = self.root.join("failed");
        let entries = folder::entries(&path).map_err(|source| RunError::Read { path, source })?;
        let names = entries.iter().filter_map(|(name, _)| name.strip_suffix(".json"));
        Ok(names.filter_map(|name| self.units.task(name)).collect())
    }

    /// Writes what came of a task, once all that it made is on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(&self, task: Task, record: &Record) -> Result<(), RunError> {
        let done = record.ending == Ending::Succeeded;
        let (name, other) = if done { ("done", "failed") } else { ("failed", "done") };
        write(&self.path(task, name), record)?;
        let path = self.path(task, other);
        folder::remove(&path).map_err(|source| RunError::Write { path, source })
    }
}

/// The most bytes of a record.
const MOST_BYTES: u64 = 256 << 20;

/// The value of a JSON file; `None` if there is no such file, or it holds something else.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RunError> {
    if !folder::exists(path) {
        return Ok(None);
    }
    let text = text::read_at_most(path, MOST_BYTES)
        .map_err(|source| RunError::Read { path: path.to_owned(), source })?;
    Ok(serde_json::from_str(&text).ok())
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), RunError> {
    let text = serde_json::to_string(value).unwrap_or_default() + "\n";
    let written = folder::write_file_on_disk(path, text.as_bytes());
    written.map_err(|source| RunError::Write { path: path.to_owned(), source })
}
