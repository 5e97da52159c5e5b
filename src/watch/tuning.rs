//! What the loops of a run tuned.

use crate::plan::run::state::State;
use crate::schema::Plan;
use crate::schema::value::Scalar;
use crate::tuning::Step;
use serde::Serialize;

/// A loop that tunes a parameter.
#[derive(Serialize, Debug)]
pub struct TuningRow {
    /// The name of the loop.
    pub r#loop: String,
    /// The parameter, as a JSON pointer.
    pub param: String,
    /// The value in use.
    pub value: Scalar,
    /// What was tried, and what came of it.
    pub steps: Vec<StepRow>,
}

/// A step of tuning.
#[derive(Serialize, Debug)]
pub struct StepRow {
    /// The iteration after which it happened.
    pub iteration: u32,
    /// What happened.
    #[serde(flatten)]
    pub step: Step,
}

/// The loops of a run that tune a parameter.
pub(super) fn tuning(plan: &Plan, state: &State) -> Vec<TuningRow> {
    let loops = state.tuned.loops.iter().filter_map(|(looped, tuning)| {
        let settings = plan.loops.get(*looped)?;
        let steps = tuning.history.iter();
        Some(TuningRow {
            r#loop: settings.id.to_string(),
            param: settings.tune.as_ref()?.param.clone(),
            value: tuning.value.clone(),
            steps: steps
                .map(|(iteration, step)| StepRow { iteration: *iteration, step: step.clone() })
                .collect(),
        })
    });
    loops.collect()
}
