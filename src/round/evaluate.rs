//! Measures the merged model by the operator's command, and refuses a worse one.

use crate::config::Config;
use crate::config::sections::{Evaluation, OnBad};
use crate::round::error::RoundError;
use crate::round::journal::Rejected;
use crate::round::layout;
use crate::round::state::State;
use crate::round::validate::quarantine;
use crate::round::world::{Merged, World};
use std::collections::BTreeMap;

/// The file of the merged model in the folder of a round.
pub const MODEL: &str = "model.safetensors";

/// What the evaluation found.
pub struct Evaluated {
    /// The metrics of the merged model; none without a command.
    pub metrics: BTreeMap<String, f64>,
    /// Why the model must not be published; `None` if it may be.
    pub refusal: Option<String>,
}

/// Measures the merged model, and compares it with the current one.
///
/// # Errors
///
/// When the command fails, or a file cannot be moved.
pub fn act(
    world: &mut impl World,
    config: &Config,
    state: &State,
    merged: &Merged,
) -> Result<Evaluated, RoundError> {
    quarantine(world, state.round, &all_rejected(state, merged))?;
    let refused = |why: String| Ok(Evaluated { metrics: BTreeMap::new(), refusal: Some(why) });
    if let Some(why) = &merged.refused {
        return refused(why.clone());
    }
    if let (OnBad::Fail, Some(bad)) = (config.robustness.on_bad_update, merged.rejected.first()) {
        return refused(format!("the update of client `{}` is bad: {}", bad.id, bad.why));
    }
    let evaluation = &config.evaluation;
    if evaluation.command.is_empty() {
        return Ok(Evaluated { metrics: BTreeMap::new(), refusal: None });
    }
    let metrics = world.evaluate(state.round, &layout::of_round(state.round, MODEL))?;
    if let Some(missing) = evaluation.metric.as_ref().filter(|metric| !metrics.contains_key(*metric)) {
        let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
        return Err(RoundError::Unexpected {
            path: "evaluation.command".to_owned(),
            found: format!("metrics {}", names.join(", ")),
            expected: format!("{missing}, which evaluation.metric names"),
        });
    }
    let current = &state.carry.current;
    let is_measured = evaluation.metric.as_ref().is_none_or(|metric| current.metrics.contains_key(metric));
    let published = match is_measured {
        true => current.metrics.clone(),
        // The first model, which no round measured.
        false => world.evaluate(state.round, &layout::model(&current.file.blake3))?,
    };
    let refusal = verdict(evaluation, &metrics, &published);
    let metrics = metrics.into_iter().filter(|(_, value)| value.is_finite()).collect();
    Ok(Evaluated { metrics, refusal })
}

/// The updates that validation and the merge left out.
fn all_rejected(state: &State, merged: &Merged) -> Vec<Rejected> {
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
        format!("{metric} is {found}, worse by {worse_by:.4} than the {last} of the current model, expected at most {most}")
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
