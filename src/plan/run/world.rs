//! What a run touches: its journal and receipts, the clock, and attempts at work.
//!
//! The machine sees the world through this trait alone. [`super::disk`] is the real one; the tests have one that
//! crashes, tears writes, fills the disk and moves the clock.

use super::error::RunError;
use super::event::{Artifact, Event, Failure, Made};
use super::key::Key;
use crate::io::child::allowance::Notes;
use crate::schema::agent::{HttpAgent, OllamaAgent};
use crate::schema::policy::{Answer, Gate};
use crate::schema::reduce::Reducer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// An attempt at the work of an instance.
#[derive(Clone, PartialEq, Debug)]
pub struct Job {
    /// The instance.
    pub key: Key,
    /// Its name.
    pub name: String,
    /// The number of the attempt, from 1 on.
    pub attempt: u32,
    /// The key of the work.
    pub work: String,
    /// The folder of the plan, as an absolute path.
    pub base: String,
    /// What to do.
    pub task: Task,
    /// The files that it makes.
    pub outputs: Vec<Output>,
    /// The metrics that it must measure; all that it prints where this is empty.
    pub metrics: Vec<String>,
    /// How long it may take.
    pub limits: AttemptLimits,
    /// Whether a result of equal work may be used again.
    pub cached: bool,
    /// The options that a ballot chooses from; none for other work.
    pub options: Vec<String>,
    /// The files that it reads: inputs, and outputs of other stages, with their absolute paths.
    pub reads: Vec<(String, Artifact)>,
}

/// What an attempt does.
#[derive(Clone, PartialEq, Debug)]
pub enum Task {
    /// Runs a command.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Variables.
        env: BTreeMap<String, String>,
        /// Variables that it inherits from the runner.
        inherit: Vec<String>,
        /// Standard input.
        stdin: Option<String>,
    },
    /// Sends a request.
    Http {
        /// The endpoint.
        agent: HttpAgent,
        /// The JSON body.
        body: Option<serde_json::Value>,
        /// Hosts that the plan may call.
        hosts: Vec<String>,
    },
    /// Runs another plan.
    Plan {
        /// Its file.
        file: String,
        /// BLAKE3 of the file when the run started.
        blake3: String,
        /// Values of its parameters.
        params: BTreeMap<String, String>,
        /// Files of its inputs.
        inputs: BTreeMap<String, Vec<String>>,
        /// Whether a run that came to its end, or had other values, makes place for a new one.
        anew: bool,
    },
    /// Makes one file of several.
    Reduce {
        /// How.
        by: Reducer,
        /// The files.
        files: Vec<String>,
    },
    /// Asks a model.
    Ollama {
        /// The model.
        agent: OllamaAgent,
        /// The prompt.
        prompt: String,
        /// Hosts that the plan may call.
        hosts: Vec<String>,
    },
}

impl Task {
    /// Whether it sends a request to an endpoint.
    pub fn calls(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Ollama { .. })
    }
}

/// A file that an attempt makes.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its path in the folder of the attempt; `-` for standard output.
    pub path: String,
    /// Whether it holds metrics.
    pub metrics: bool,
    /// Whether it may be absent.
    pub optional: bool,
}

/// How long an attempt may take, and how much of what it prints is kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttemptLimits {
    /// The whole attempt.
    pub run: Option<Duration>,
    /// Time without a byte printed.
    pub idle: Option<Duration>,
    /// Time from the request to end to the end by force.
    pub kill_after: Duration,
    /// Bytes kept of each of standard output and standard error.
    pub log_bytes: u64,
}

/// What came of an attempt.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended {
    /// The instance.
    pub key: Key,
    /// The number of the attempt.
    pub attempt: u32,
    /// What it made, or why it failed.
    pub result: Result<Made, Failure>,
    /// Seconds that it took.
    pub seconds: f64,
    /// What it used, even where it failed.
    pub spent: Spent,
}

/// What an attempt used of an endpoint, and what that asks for.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Spent {
    /// Tokens of a model.
    pub tokens: u64,
    /// Seconds that the endpoint wants to be left alone.
    pub pause: Option<f64>,
}

/// Why a wait is over.
#[derive(Clone, PartialEq, Debug)]
pub enum Woken {
    /// An attempt ended.
    Ended(Ended),
    /// The time came.
    Time,
    /// A signal asks the runner to end.
    Signal(i32),
}

/// What a ledger says of a privacy budget.
#[derive(Clone, Copy, PartialEq, Deserialize, Debug)]
pub struct Account {
    /// Epsilon spent; `None` if it is infinite.
    pub epsilon_spent: Option<f64>,
    /// Epsilon spent after one more round of the budget's plan; `None` if it is infinite.
    pub epsilon_next: Option<f64>,
    /// The delta of both.
    pub delta: f64,
}

/// The proof that an instance did its work: written once its outputs are on disk.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// `fedmill.receipt/1`.
    pub schema: String,
    /// BLAKE3 of the plan.
    pub plan: String,
    /// The name of the instance.
    pub instance: String,
    /// The key of the work.
    pub work: String,
    /// What it made.
    pub made: Made,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The schema of receipts.
pub const RECEIPT: &str = "fedmill.receipt/1";

/// Files, clock and attempts.
pub trait World {
    /// Seconds since 1970.
    fn now(&mut self) -> f64;

    /// Appends events to the journal, and waits until they are on disk.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    fn append(&mut self, events: &[Event]) -> Result<(), RunError>;

    /// The receipt of an instance, if there is a valid one.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn receipt(&mut self, name: &str) -> Result<Option<Receipt>, RunError>;

    /// The receipt of equal work, if there is one whose outputs are in the store.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn equal_work(&mut self, job: &Job) -> Result<Option<Made>, RunError>;

    /// The result of equal work in an earlier run, if this one may take it over.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or its files cannot be taken over.
    fn earlier_work(&mut self, job: &Job) -> Result<Option<Made>, RunError> {
        let _ = job;
        Ok(None)
    }

    /// Writes a receipt.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    fn write_receipt(&mut self, receipt: &Receipt, cached: bool) -> Result<(), RunError>;

    /// Whether another attempt may begin beside `running` others, as far as other programs leave it a place.
    fn admits(&mut self, running: usize) -> bool {
        let _ = running;
        true
    }

    /// Begins an attempt; [`World::wait`] reports its end.
    fn start(&mut self, job: Job);

    /// Ends an attempt; [`World::wait`] reports its end, too.
    fn stop(&mut self, key: Key);

    /// The answer that a person gave to a gate.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is neither.
    fn answer(&mut self, name: &str) -> Result<Option<Answer>, RunError>;

    /// Says that a gate waits for a person until a time, in seconds since 1970, and how to answer.
    ///
    /// # Errors
    ///
    /// When the folder of answers cannot be made.
    fn ask(&mut self, name: &str, gate: &Gate, until: f64) -> Result<(), RunError> {
        let _ = (name, gate, until);
        Ok(())
    }

    /// Moves the answer aside that a person gave to a gate as the one of this number, if that did not happen yet.
    ///
    /// # Errors
    ///
    /// When it cannot be moved.
    fn put_aside(&mut self, name: &str, number: u32) -> Result<(), RunError> {
        let _ = (name, number);
        Ok(())
    }

    /// What the ledger in a directory says; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn account(&mut self, ledger: &str) -> Result<Option<Account>, String>;

    /// What the ledgers come to that commands charged, as these commands noted it.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn charged(&mut self) -> Result<Notes, String> {
        Ok(Notes::default())
    }

    /// Whether the kill file exists.
    fn is_killed(&mut self) -> bool;

    /// Waits until an attempt ends, a signal comes, or a time comes.
    ///
    /// # Errors
    ///
    /// When the world cannot say what happens.
    fn wait(&mut self, until: Option<f64>) -> Result<Woken, RunError>;
}
