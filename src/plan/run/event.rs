//! The lines of a run's journal: what the runner is about to do, and what came of it.

use super::key::Key;
use crate::endpoint::fault::Fault;
use crate::io::interrupt::REQUESTS;
use crate::language::condition::Value;
use crate::record::Entry;
use crate::schema::policy::{Answer, RetryOn};
use crate::schema::value::is_default;
use crate::tuning::Step;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A file with its digest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its path: of an output in the run's directory, of an input in that of the plan.
    pub path: String,
    /// BLAKE3, in lower-case hex.
    pub blake3: String,
    /// Bytes.
    pub bytes: u64,
}

/// What an attempt made.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Its outputs, by name.
    pub outputs: BTreeMap<String, Artifact>,
    /// Its metrics, by name.
    pub metrics: BTreeMap<String, f64>,
    /// Requests to endpoints.
    #[serde(default)]
    pub calls: u64,
    /// Tokens of models.
    #[serde(default)]
    pub tokens: u64,
    /// Whether an earlier result was used again.
    #[serde(default)]
    pub cached: bool,
    /// The earlier run and its instance whose result it is, as `DIR: NAME`; empty for a result of this run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The option that its ballot chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
}

/// Why an attempt failed.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The command exited with this status.
    Exit(i32),
    /// This signal ended the command.
    Signal(i32),
    /// It took longer than this many milliseconds.
    Timeout(u64),
    /// It printed nothing for this many milliseconds.
    Idle(u64),
    /// An output or a metric is missing, or no file.
    Outputs(String),
    /// The work did not start: the command cannot be started, or the request is not sent.
    Start(String),
    /// The endpoint answered with this status.
    Http(u16),
    /// The reply was not what its schema asks for.
    Schema(String),
    /// The endpoint cannot be reached.
    Connect(String),
    /// A reference in its texts has no value.
    Reference(String),
    /// The condition of success does not hold, with the values that it read.
    Unsuccessful(BTreeMap<String, Value>),
    /// The runner ended it.
    Cancelled,
}

/// How an instance, or a stage, ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded.
    Ok,
    /// A condition, branch or decision left it out.
    Skipped,
    /// A stage that it needs failed.
    Blocked,
    /// The run ended before it began, or in the middle of it.
    Cancelled,
    /// It failed.
    Failed,
    /// Its last attempt took too long.
    Timeout,
    /// The runner could not tell what to do: a condition or a reference had no value.
    Error,
}

impl Failure {
    /// How an instance ends whose last attempt failed so.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout(_) | Self::Idle(_) => Outcome::Timeout,
            Self::Cancelled => Outcome::Cancelled,
            Self::Reference(_) => Outcome::Error,
            _ => Outcome::Failed,
        }
    }

    /// Whether the work of the attempt may have happened, as a whole or in part.
    pub fn may_have_started(&self) -> bool {
        !matches!(self, Self::Start(_))
    }

    /// Whether a signal that asks programs to end explains it: the command died of it, or exited as shells and this
    /// program do after it.
    pub fn may_be_a_request(&self) -> bool {
        match self {
            Self::Signal(signal) => REQUESTS.contains(signal),
            Self::Exit(status) => REQUESTS.contains(&(status - 128)),
            _ => false,
        }
    }

    /// Whether a retry after such failures covers this one.
    pub fn is_covered(&self, on: &[RetryOn]) -> bool {
        let covers = |on: &RetryOn| match (on, self) {
            (_, Self::Cancelled | Self::Reference(_)) => false,
            (RetryOn::Any, _) => true,
            (RetryOn::Signal, Self::Signal(_)) => true,
            (RetryOn::Timeout, Self::Timeout(_) | Self::Idle(_)) => true,
            (RetryOn::Exit(status), Self::Exit(found)) => i32::from(*status) == *found,
            (RetryOn::Http(status), Self::Http(found)) => status == found,
            (RetryOn::Schema, Self::Schema(_)) => true,
            (RetryOn::Outputs, Self::Outputs(_)) => true,
            (RetryOn::Connect, Self::Connect(_)) => true,
            _ => false,
        };
        on.iter().any(covers)
    }
}

impl From<Fault> for Failure {
    fn from(why: Fault) -> Self {
        match why {
            Fault::Start(why) => Self::Start(why),
            Fault::Connect(why) => Self::Connect(why),
            Fault::Status(status) => Self::Http(status),
            Fault::Reply(why) => Self::Schema(why),
            Fault::Timeout(time) => Self::Timeout(time),
            Fault::Idle(time) => Self::Idle(time),
            Fault::Cancelled => Self::Cancelled,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |milliseconds: &u64| *milliseconds as f64 / 1000.0;
        match self {
            Self::Exit(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::Timeout(time) => write!(f, "took longer than {} s", seconds(time)),
            Self::Idle(time) => write!(f, "printed nothing for {} s", seconds(time)),
            Self::Outputs(why) | Self::Start(why) | Self::Reference(why) => f.write_str(why),
            Self::Http(status @ 300..400) => {
                write!(f, "the endpoint answered with status {status}; fedmill follows no redirect")
            }
            Self::Http(status) => write!(f, "the endpoint answered with status {status}"),
            Self::Schema(why) => write!(f, "the reply does not fit: {why}"),
            Self::Connect(why) => write!(f, "the endpoint cannot be reached: {why}"),
            Self::Unsuccessful(read) => {
                let read = serde_json::to_string(read).unwrap_or_default();
                write!(f, "success_when does not hold for {read}")
            }
            Self::Cancelled => f.write_str("the runner ended it"),
        }
    }
}

impl Outcome {
    /// Whether stages that need this one may run.
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Ok | Self::Skipped)
    }

    /// Whether it counts as a failure of the run.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Timeout | Self::Error)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Blocked => "blocked",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

/// How a run ends.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every stage succeeded or was skipped.
    Succeeded,
    /// A stage failed.
    Failed,
    /// A limit, an invariant, a person or the kill file ended it.
    Refused(String),
}

/// What happened.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run started: its plan and its inputs are pinned.
    Start {
        /// BLAKE3 of the plan.
        plan: String,
        /// The files of each input.
        inputs: BTreeMap<String, Vec<Artifact>>,
        /// The number that `auto` shards stand for.
        shards: u32,
    },
    /// A runner took up a run that was not over.
    Resume,
    /// An attempt is about to begin.
    Begin {
        /// The instance.
        key: Key,
        /// The number of the attempt, from 1 on.
        attempt: u32,
        /// The key of the work: equal for equal work.
        work: String,
        /// The agent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        agent: String,
        /// Requests to endpoints that it is about to make.
        #[serde(default, skip_serializing_if = "is_default")]
        calls: u64,
    },
    /// The operator attests what came of an attempt that may have happened.
    Attested {
        /// The instance.
        key: Key,
        /// Whether its work is done.
        done: bool,
    },
    /// An attempt succeeded.
    Made {
        /// The instance.
        key: Key,
        /// What it made.
        made: Made,
        /// Seconds that it took.
        seconds: f64,
        /// The values that its condition of success read.
        read: BTreeMap<String, Value>,
    },
    /// An attempt failed.
    Failed {
        /// The instance.
        key: Key,
        /// The reason.
        failure: Failure,
        /// Seconds that it took.
        seconds: f64,
        /// Whether another attempt follows.
        again: bool,
        /// Tokens of models that it used.
        #[serde(default, skip_serializing_if = "is_default")]
        tokens: u64,
    },
    /// The ledger of a privacy budget was read.
    Ledger {
        /// Its directory.
        directory: String,
        /// Epsilon spent; `None` if it is infinite.
        epsilon: Option<f64>,
        /// The delta at which epsilon is stated.
        delta: f64,
    },
    /// A stage ended without an attempt, or after those of all its instances.
    Settled {
        /// The stage; without the place in a fan-out.
        key: Key,
        /// How.
        outcome: Outcome,
        /// The reason.
        #[serde(default)]
        why: String,
        /// The case or option that was chosen.
        #[serde(default)]
        choice: Option<String>,
        /// The values that its conditions read.
        #[serde(default)]
        read: BTreeMap<String, Value>,
    },
    /// A stage waits for a person.
    Gate {
        /// The stage.
        key: Key,
        /// The time until which it waits, in seconds since 1970.
        until: f64,
        /// What the person should look at.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        question: String,
    },
    /// A person answered, or the time for an answer is over.
    Answered {
        /// The stage.
        key: Key,
        /// The answer.
        answer: Answer,
        /// Whether it is the default, since no answer came in time.
        by_default: bool,
    },
    /// An iteration of a loop is over.
    Iterated {
        /// The place of the loop in the plan.
        looped: usize,
        /// The iteration, from 1 on.
        iteration: u32,
        /// Whether another one follows.
        again: bool,
        /// Whether the loop is over although its condition never held.
        #[serde(default, skip_serializing_if = "is_default")]
        exhausted: bool,
        /// Why the loop failed: what it did, as "ended without its condition".
        #[serde(default, skip_serializing_if = "String::is_empty")]
        failed: String,
        /// The values that its condition read.
        read: BTreeMap<String, Value>,
    },
    /// A step of a loop's tuning, after an iteration and before the next.
    Tuned {
        /// The place of the loop in the plan.
        looped: usize,
        /// The iteration, from 1 on.
        iteration: u32,
        /// What happened.
        step: Step,
    },
    /// No stage starts any more.
    Stop {
        /// The reason.
        why: String,
        /// Whether it is a refusal, not a failure.
        refused: bool,
    },
    /// The run is over.
    End {
        /// How.
        ending: Ending,
    },
}

impl Event {
    /// The type of the event for CloudEvents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Resume => "resume",
            Self::Begin { .. } => "begin",
            Self::Attested { .. } => "attested",
            Self::Made { .. } => "made",
            Self::Failed { .. } => "failed",
            Self::Ledger { .. } => "ledger",
            Self::Settled { .. } => "settled",
            Self::Gate { .. } => "gate",
            Self::Answered { .. } => "answered",
            Self::Iterated { .. } => "iterated",
            Self::Tuned { .. } => "tuned",
            Self::Stop { .. } => "stop",
            Self::End { .. } => "end",
        }
    }
}

/// A line of the journal, with the attributes of CloudEvents 1.0.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Line {
    /// `1.0`.
    pub specversion: String,
    /// Unique with `source`: the number of the line.
    pub id: String,
    /// The run: `fedmill/plan/PLAN`.
    pub source: String,
    /// `fedmill.plan.` and the name of the event.
    pub r#type: String,
    /// When, in RFC 3339.
    pub time: String,
    /// What happened.
    pub data: Event,
}

impl Entry for Line {
    fn check(&self) -> Result<(), String> {
        match self.specversion.as_str() {
            "1.0" => Ok(()),
            found => Err(format!("found specversion {found}, expected 1.0")),
        }
    }
}
