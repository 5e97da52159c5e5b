//! What the stages of loops measured, iteration by iteration.

use super::rest::replay;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Event, Made};
use crate::schema::Plan;
use std::collections::BTreeMap;

/// The metrics that stages of loops measured, by name: a number for each iteration that measured it, the mean of a
/// fan-out, the oldest first.
///
/// # Errors
///
/// When stages of the plan wait for each other.
pub fn series(plan: &Plan, events: &[Event]) -> Result<BTreeMap<String, Vec<f64>>, RunError> {
    let (_, state) = replay(plan, events.iter())?;
    let mut series: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (stage, groups) in
        state.groups.iter().enumerate().filter(|(stage, _)| state.loop_of(*stage).is_some())
    {
        for group in groups {
            let made: Vec<&Made> =
                group.instances.iter().filter_map(|instance| instance.made.as_ref()).collect();
            for metric in plan.stages[stage].metrics.iter().map(|metric| metric.as_str()) {
                let values: Vec<f64> =
                    made.iter().filter_map(|made| made.metrics.get(metric).copied()).collect();
                if !values.is_empty() {
                    let mean = values.iter().sum::<f64>() / values.len() as f64;
                    series.entry(metric.to_owned()).or_default().push(mean);
                }
            }
        }
    }
    Ok(series)
}
