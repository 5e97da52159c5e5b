//! Gates that wait for a person: those of a run, and those of the plans inside of it.

use super::status::Watched;
use crate::plan::run::key::Key;
use crate::plan::run::state::State;
use crate::schema::Plan;
use crate::schema::stage::Kind;
use jiff::Timestamp;
use serde::Serialize;

/// A gate without an answer.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct OpenGate {
    /// The stage that asks.
    pub stage: String,
    /// What the person should look at; empty if the plan does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// The file that takes the answer, `approve` or `reject`: its path in the directory of the run.
    pub answer: String,
    /// The time until which the stage waits, in RFC 3339.
    pub until: String,
}

impl OpenGate {
    /// What the stage waits for, in words.
    pub fn awaited(&self) -> String {
        format!("approve or reject in {} until {}", self.answer, self.until)
    }
}

/// The gate of a stage, if it waits for an answer.
pub(super) fn gate(plan: &Plan, state: &State, key: Key) -> Option<OpenGate> {
    let group = state.group(key);
    let until = group.gate_until.filter(|_| group.outcome.is_none() && group.answer.is_none())?;
    let gate = plan.stages[key.stage].gate.as_ref()?;
    let stage = key.name(plan);
    Some(OpenGate {
        question: gate.question.clone(),
        answer: format!("gates/{stage}"),
        until: Timestamp::from_second(until as i64).map_or_else(|_| String::new(), |at| at.to_string()),
        stage,
    })
}

/// The gates that wait for an answer in the run of a plan which a stage runs, and in the runs inside of that one.
pub(super) fn inner_gates(run: &Watched, key: Key) -> Vec<OpenGate> {
    let stage = &run.plan.stages[key.stage];
    let mut found = Vec::new();
    let instances = (0..).zip(&run.state.group(key).instances);
    for (index, _) in instances.filter(|(_, instance)| instance.running && stage.kind == Some(Kind::Plan)) {
        let key = Key { index: stage.fans_out().then_some(index), ..key };
        let folder = format!("plans/{}", key.name(&run.plan));
        // An inner run that just begins has no gate yet.
        let Ok(inner) = Watched::read(&run.root.join(&folder)) else { continue };
        let keys = (0..inner.plan.stages.len()).map(|stage| inner.state.current(stage));
        let open = keys
            .flat_map(|key| gate(&inner.plan, &inner.state, key).into_iter().chain(inner_gates(&inner, key)));
        let below = |gate: OpenGate| OpenGate { answer: format!("{folder}/{}", gate.answer), ..gate };
        found.extend(open.map(below));
    }
    found
}
