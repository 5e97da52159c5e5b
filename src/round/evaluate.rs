//! Measures the merged model by the operator's command, and refuses a worse one.

use crate::round::config::Config;
use crate::round::config::sections::Evaluation;
use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::state::State;
use crate::round::validate::quarantine;
use crate::round::world::{Merged, World};
use std::collections::BTreeMap;

/// The file of the merged model in the folder of a round.
pub const MODEL: &str = "model.safetensors";

/// The metrics of the merged model; none without a command.
///
/// # Errors
///
/// When the guard refuses the model, or the command fails.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    merged: &Merged,
) -> Result<BTreeMap<String, f64>, RoundError> {
    quarantine(world, state.round, &all_rejected(state, merged))?;
    if config.evaluation.command.is_empty() {
        return Ok(BTreeMap::new());
    }
    let metrics = world.evaluate(state.round, &layout::of_round(state.round, MODEL))?;
    match verdict(&config.evaluation, &metrics, &state.carry.current.metrics) {
        Some(why) => Err(RoundError::Refused(why)),
        None => Ok(metrics),
    }
}

/// The updates that validation and the merge left out.
fn all_rejected(state: &State, merged: &Merged) -> Vec<crate::round::journal::Rejected> {
    let before = state.validated().map_or_else(Vec::new, |validated| validated.rejected.clone());
    before.into_iter().chain(merged.rejected.iter().cloned()).collect()
}

/// Why a model must not be published; `None` if it may be.
pub fn verdict(
    evaluation: &Evaluation,
    metrics: &BTreeMap<String, f64>,
    published: &BTreeMap<String, f64>,
) -> Option<String> {
    if let Some((name, value)) = metrics.iter().find(|(_, value)| !value.is_finite()) {
        return Some(format!("the metric {name} is {value}, expected a finite number"));
    }
    let metric = evaluation.metric.as_ref()?;
    let Some(found) = metrics.get(metric) else {
        return Some(format!("the evaluation measured no {metric}, which guards publishing"));
    };
    let last = published.get(metric)?;
    let worse_by = if evaluation.higher_is_better { last - found } else { found - last };
    let most = evaluation.max_regression;
    (worse_by > most).then(|| {
        format!("{metric} is {found}, worse by {worse_by} than the {last} of the last model, expected at most {most}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(value: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("accuracy".to_owned(), value)])
    }

    fn refuses(value: f64, last: Option<f64>, higher_is_better: bool, max_regression: f64) -> bool {
        let metric = Some("accuracy".to_owned());
        let evaluation = Evaluation { metric, higher_is_better, max_regression, ..Evaluation::default() };
        let last = last.map(metrics).unwrap_or_default();
        verdict(&evaluation, &metrics(value), &last).is_some()
    }

    #[test]
    fn a_model_may_be_worse_by_the_regression_and_no_more() {
        assert!(!refuses(0.9, Some(0.95), true, 0.0625));
        assert!(refuses(0.875, Some(0.95), true, 0.0625));
        assert!(!refuses(0.5, Some(0.25), true, 0.0), "better");
        assert!(refuses(0.5, Some(0.25), false, 0.125), "a loss that grew");
        assert!(!refuses(0.25, Some(0.5), false, 0.0));
        assert!(!refuses(0.1, None, true, 0.0), "the first model has nothing to be compared with");
    }

    #[test]
    fn a_metric_that_is_missing_or_no_number_refuses() {
        assert!(refuses(f64::NAN, None, true, 1.0));
        assert!(refuses(f64::INFINITY, Some(0.5), true, 1.0));
        let evaluation = Evaluation { metric: Some("loss".to_owned()), ..Evaluation::default() };
        assert!(verdict(&evaluation, &metrics(0.5), &BTreeMap::new()).is_some());
    }
}
