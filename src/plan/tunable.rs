//! Which parameters a loop may tune. The linter and the runner both ask here.

use super::schema::Plan;
use super::schema::looped::Tune;
use super::schema::policy::SideEffects;
use super::schema::stage::Stage;
use super::schema::value::Scalar;
use serde_json::Value;

/// Parameters, and options of commands, that no tuning changes: they protect clients.
pub const NEVER_TUNED: [&str; 12] = [
    "eps",
    "epsilon",
    "delta",
    "f",
    "byzantine",
    "quorum",
    "min_clients",
    "clip",
    "clip_norm",
    "clipping",
    "noise",
    "noise_multiplier",
];

/// Why a loop may not tune its parameter: it protects clients, or the plan freezes it.
pub enum Forbidden {
    /// What the parameter sets.
    Protects(String),
    /// The pointer of `safety.frozen` that covers it.
    Frozen(String),
}

/// The name of the parameter that a loop tunes; `None` if its pointer names no parameter.
pub fn parameter(tune: &Tune) -> Option<&str> {
    tune.param.strip_prefix("/params/").filter(|name| !name.is_empty() && !name.contains('/'))
}

/// Why a loop may not tune its parameter.
pub fn forbidden(plan: &Plan, tune: &Tune) -> Option<Forbidden> {
    let name = parameter(tune)?;
    let itself = protects(name).then(|| name.to_owned()).or_else(|| tune.values.iter().find_map(set_by));
    if let Some(what) = itself.or_else(|| plan.stages.iter().find_map(|stage| use_in(stage, name))) {
        return Some(Forbidden::Protects(what));
    }
    let covers = |pointer: &&String| {
        let whole = pointer.trim_end_matches('/');
        tune.param == whole || tune.param.starts_with(&format!("{whole}/"))
    };
    plan.safety.frozen.iter().find(covers).cloned().map(Forbidden::Frozen)
}

/// What to say of a loop whose parameter an earlier loop tunes too.
pub fn tuned_before(plan: &Plan, place: usize) -> Option<String> {
    let param = |place: usize| Some(&plan.loops.get(place)?.tune.as_ref()?.param);
    let own = param(place)?;
    let first = (0..place).find(|earlier| param(*earlier) == Some(own))?;
    Some(format!(
        "found `{own}`, which $.loops[{first}].tune.param tunes too, expected one loop for each parameter"
    ))
}

/// Why the shadow runs of a loop's tuning may not repeat a stage.
pub fn not_repeatable(stage: &Stage) -> Option<&'static str> {
    if stage.side_effects != SideEffects::None {
        return Some("has side effects, expected none in a shadow run");
    }
    let works = stage.works()
        && stage.plan.is_none()
        && !stage.decides()
        && stage.consensus.is_none()
        && stage.gate.is_none();
    (!works)
        .then_some("runs a plan, decides, votes or waits for a person, expected work alone in a shadow run")
}

fn protects(word: &str) -> bool {
    let word = word.trim_start_matches('-').replace('-', "_").to_lowercase();
    NEVER_TUNED.contains(&word.as_str())
}

/// What of a stage a parameter sets, if that protects clients: an option, a setting of a rule, a variable, a value of
/// a request.
fn use_in(stage: &Stage, name: &str) -> Option<String> {
    let reference = format!("{{params.{name}}}");
    let of_stage = |what: &str| format!("{what} of stage `{}`", stage.id);
    for (place, argument) in stage.argv.iter().enumerate().filter(|(_, text)| text.contains(&reference)) {
        let before = place.checked_sub(1).map(|before| stage.argv[before].as_str());
        let option = before.filter(|option| option.starts_with('-') && protects(option));
        if let Some(option) = option.or_else(|| key_before(argument, &reference)) {
            return Some(of_stage(option));
        }
    }
    let variables = stage.env.iter().filter(|(_, text)| text.contains(&reference));
    if let Some((variable, _)) = variables.into_iter().find(|(variable, _)| protects(variable)) {
        return Some(of_stage(variable));
    }
    let key = stage.body.as_ref().and_then(|body| key_of(body, &reference))?;
    Some(of_stage(&key))
}

/// What of the settings that protect clients a declared value sets, as in `krum:f=1`.
fn set_by(value: &Scalar) -> Option<String> {
    let Scalar::Text(text) = value else { return None };
    let set = key_before(text, "").map(str::to_owned);
    set.or_else(|| protects(text).then(|| text.clone())).map(|key| format!("{key} by the value `{text}`"))
}

/// The key in front of a reference, as in `krum:f={params.x}`, if it protects clients.
fn key_before<'t>(text: &'t str, reference: &str) -> Option<&'t str> {
    text.match_indices(reference).find_map(|(place, _)| {
        let before = text[..place].strip_suffix(['=', ':'])?;
        let is_part = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        let start = before.rfind(|character| !is_part(character)).map_or(0, |end| end + 1);
        Some(&before[start..]).filter(|key| protects(key))
    })
}

/// The key of an object that protects clients and whose value has a reference.
fn key_of(value: &Value, reference: &str) -> Option<String> {
    match value {
        Value::Object(object) => object.iter().find_map(|(key, value)| match value {
            Value::String(text) if protects(key) && text.contains(reference) => Some(key.clone()),
            other => key_of(other, reference),
        }),
        Value::Array(list) => list.iter().find_map(|value| key_of(value, reference)),
        _ => None,
    }
}
