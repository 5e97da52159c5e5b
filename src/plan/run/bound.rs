//! The most instances of a run.

use super::error::RunError;
use super::fill::instances;
use super::state::State;
use crate::schema::Plan;
use crate::schema::stage::MOST_INSTANCES;

/// Checks that the stages of a plan do not fan out to more instances than a run holds.
///
/// # Errors
///
/// When they do.
pub fn check_instances(plan: &Plan, state: &State) -> Result<(), RunError> {
    let mut total: u64 = 0;
    for (place, stage) in plan.stages.iter().enumerate() {
        total += u64::from(instances(plan, state, stage).unwrap_or(0));
        if total > MOST_INSTANCES {
            let at = format!("$.stages[{place}].for_each");
            let why = format!(
                "with the stages before it, found {total} instances, expected at most {MOST_INSTANCES} in a plan"
            );
            return Err(RunError::Plan { at, why });
        }
    }
    Ok(())
}
