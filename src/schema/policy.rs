//! What a stage may do when it fails, takes long, waits for a person, or has side effects.

use super::name::Id;
use crate::settings::duration::Friendly;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The most attempts at a stage.
pub const MOST_ATTEMPTS: u32 = 100;

/// How often a stage is tried, and after which failures.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts, the first one included: from 1 to 100.
    #[schemars(range(min = 1, max = MOST_ATTEMPTS))]
    pub max_attempts: u32,
    /// The failures that are worth another attempt: `signal`, `timeout`, `exit:N`, `http:N`, `schema`, `outputs`,
    /// `connect` or `any`.
    #[serde(default = "Retry::on_any")]
    pub on: Vec<RetryOn>,
    /// Pauses between attempts.
    #[serde(default)]
    pub backoff: Backoff,
}

impl Retry {
    fn on_any() -> Vec<RetryOn> {
        vec![RetryOn::Any]
    }
}

/// A failure that is worth another attempt.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub enum RetryOn {
    /// Any failure of the attempt itself.
    Any,
    /// A signal ended the command.
    Signal,
    /// The attempt took too long.
    Timeout,
    /// The command exited with this status.
    Exit(u8),
    /// The endpoint answered with this status.
    Http(u16),
    /// A reply was no JSON, or did not follow its schema.
    Schema,
    /// An output was missing.
    Outputs,
    /// The endpoint could not be reached.
    Connect,
}

impl TryFrom<String> for RetryOn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok();
        let known = match text.split_once(':') {
            Some(("exit", status)) => number(status).and_then(|n| u8::try_from(n).ok()).map(Self::Exit),
            Some(("http", status)) => number(status).filter(|n| (100..600).contains(n)).map(Self::Http),
            _ => match text.as_str() {
                "any" => Some(Self::Any),
                "signal" => Some(Self::Signal),
                "timeout" => Some(Self::Timeout),
                "schema" => Some(Self::Schema),
                "outputs" => Some(Self::Outputs),
                "connect" => Some(Self::Connect),
                _ => None,
            },
        };
        let expected = "any, signal, timeout, exit:N, http:N, schema, outputs or connect";
        known.ok_or_else(|| format!("found `{}`, expected {expected}", text.escape_debug()))
    }
}

impl From<RetryOn> for String {
    fn from(on: RetryOn) -> Self {
        on.to_string()
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Signal => f.write_str("signal"),
            Self::Timeout => f.write_str("timeout"),
            Self::Exit(status) => write!(f, "exit:{status}"),
            Self::Http(status) => write!(f, "http:{status}"),
            Self::Schema => f.write_str("schema"),
            Self::Outputs => f.write_str("outputs"),
            Self::Connect => f.write_str("connect"),
        }
    }
}

impl JsonSchema for RetryOn {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^(any|signal|timeout|schema|outputs|connect|exit:[0-9]{1,3}|http:[1-5][0-9]{2})$";
        json_schema!({"type": "string", "pattern": pattern})
    }
}

/// Pauses between attempts: `initial`, then `factor` times the one before, at most `max`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// The pause before the second attempt.
    pub initial: Friendly,
    /// By what each pause is longer than the one before. At least 1.
    pub factor: f64,
    /// The longest pause.
    pub max: Friendly,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Friendly::seconds(1), factor: 2.0, max: Friendly::seconds(60) }
    }
}

impl Backoff {
    /// Seconds to wait after this many attempts.
    pub fn after(&self, attempts: u32) -> f64 {
        let doubled = self.initial.as_seconds() * self.factor.powi(attempts.saturating_sub(1) as i32);
        doubled.min(self.max.as_seconds())
    }
}

/// How long an attempt may take.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// The whole attempt.
    pub run: Friendly,
    /// Time without a byte on its standard output or standard error; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Friendly>,
    /// Time from the request to end (SIGTERM) to the end by force (SIGKILL).
    #[serde(default = "Timeout::grace")]
    pub kill_after: Friendly,
}

impl Timeout {
    fn grace() -> Friendly {
        Friendly::seconds(10)
    }
}

/// What an attempt does outside of its folder.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum SideEffects {
    /// Nothing.
    #[default]
    None,
    /// Something that is the same after one attempt and after several.
    Idempotent,
    /// Something that must not happen twice: after a crash in the middle of an attempt the run asks the operator.
    Once,
}

/// Whether the result of equal work is used again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// An attempt with equal inputs, arguments and agent takes the outputs of the earlier one.
    Content,
    /// Each instance of the stage does its work.
    #[default]
    Off,
}

/// A stage that waits for a person.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// How a person answers. `file`: a file `gates/STAGE` in the run's directory that holds `approve` or `reject`.
    #[serde(default)]
    pub approve: Approval,
    /// How long the run waits for the answer.
    pub timeout: Friendly,
    /// The answer after that time.
    pub default: Answer,
    /// What the person should look at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub question: String,
}

/// How a person answers a gate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// By a file.
    #[default]
    File,
}

/// An answer to a gate.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Go on.
    Approve,
    /// Do not.
    Reject,
}

/// What the run does once a stage failed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// Ends the attempts that run, and starts no other.
    FailFast,
    /// Lets the attempts that run come to their end, and starts no other.
    #[default]
    FinishRunning,
    /// Goes on with every stage that does not need the failed one.
    KeepGoing,
}

/// Stages that run at the end.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Handlers {
    /// Stages that run after the others if the run fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failure: Vec<Id>,
    /// Stages that run last, however the run ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exit: Vec<Id>,
}

impl Handlers {
    /// The stages that run after a failure, then those that run last.
    pub fn stages(&self) -> impl Iterator<Item = &Id> {
        self.failure.iter().chain(&self.exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let backoff = Backoff::default();
        assert_eq!([1, 2, 3, 10].map(|attempts| backoff.after(attempts)), [1.0, 2.0, 4.0, 60.0]);
    }

    #[test]
    fn failures_have_names() {
        for name in ["any", "signal", "timeout", "exit:75", "http:429", "schema", "outputs", "connect"] {
            assert_eq!(RetryOn::try_from(name.to_owned()).unwrap().to_string(), name);
        }
        for bad in ["exit:256", "exit:", "http:99", "http:600", "Any", "exit:-1", ""] {
            assert!(RetryOn::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
