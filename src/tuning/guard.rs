//! What a runner never tunes, whatever a plan says.

use crate::language::tunable::{forbidden, not_repeatable, parameter, tuned_before};
use crate::schema::Plan;
use crate::schema::looped::{Policy, Preset, Tune};

/// The first tuning of a plan that a runner refuses: its place in the plan, and why.
pub fn fault(plan: &Plan) -> Option<(String, String)> {
    let tuned =
        plan.loops.iter().enumerate().filter_map(|(place, looped)| Some((place, looped.tune.as_ref()?)));
    tuned.into_iter().find_map(|(place, tune)| {
        let twice = tuned_before(plan, place).map(|why| ("param", why));
        let (field, why) = twice.or_else(|| fault_of(plan, tune))?;
        Some((format!("$.loops[{place}].tune.{field}"), why))
    })
}

fn fault_of(plan: &Plan, tune: &Tune) -> Option<(&'static str, String)> {
    let name = parameter(tune).filter(|name| plan.params.contains_key(*name));
    let Some(name) = name else {
        return Some(("param", format!("found `{}`, expected /params/NAME", tune.param)));
    };
    if let Some(found) = forbidden(plan, tune) {
        return Some(("param", found.why(name)));
    }
    let value = plan.params.get(name).filter(|value| tune.allows(value));
    let [least, most] = tune.bounds.unwrap_or([1.0; 2]);
    match (tune.policy, tune.bounds, value) {
        (Policy::Ucb, None, Some(_)) if tune.values.len() > 1 => {}
        (Policy::Ucb, ..) => {
            let why = format!("expected two values or more, `{name}` among them, and no `bounds`");
            return Some(("values", why));
        }
        (_, Some(_), Some(value)) if tune.values.is_empty() && value.number() > Some(0.0) => {}
        _ => return Some(("param", "expected a number above 0 within `bounds`, and no `values`".to_owned())),
    }
    if tune.preset == Preset::Explore && matches!(tune.policy, Policy::Asha | Policy::Pbt) {
        return Some(("preset", "found `explore`, and the policy draws candidates itself".to_owned()));
    }
    let is_sound = least.is_finite()
        && most.is_finite()
        && tune.max_ratio > 1.0
        && tune.max_ratio.is_finite()
        && (5..=1000).contains(&tune.population);
    if !is_sound || tune.every == 0 || tune.rollback.after_failures == 0 || tune.validate.replay_rounds < 2 {
        let why = "expected finite bounds, a ratio above 1, counts of at least 1, 5 to 1000 members and two iterations to repeat";
        return Some(("bounds", why.to_owned()));
    }
    if tune.validate.shadow.is_empty() {
        return Some(("validate.shadow", "found no stage".to_owned()));
    }
    tune.validate.shadow.iter().find_map(|id| {
        let stage = plan.stages.iter().find(|stage| stage.id == *id);
        let why = stage.map_or(Some("is no stage of the plan"), not_repeatable)?;
        Some(("validate.shadow", format!("found stage `{id}`, which {why}")))
    })
}
