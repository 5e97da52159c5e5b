//! A round merged in shards of the model: the bytes of one process, by several.

use super::parts::{head, merge_inputs, merge_options, rule};
use super::settings::{Given, Setting, TemplateError};
use crate::rules::Needs;
use serde_json::{Value, json};

/// What the plan does.
pub const ABOUT: &str = "Merge a round in shards of the model: gram, decide, combine, merge.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "shards", "the name of the plan"),
    Setting::required("updates", "the updates: a folder, or a pattern such as in/*.safetensors"),
    Setting::optional("base", "the model that the updates started from"),
    Setting::with_default("rule", "mean", "the rule"),
    Setting::optional("byzantine", "the number of clients to assume hostile"),
    Setting::with_default("shards", "4", "the number of shards"),
    Setting::with_default(
        "passes",
        "2",
        "2, or 1 for a rule that works on each coordinate: no gram, no decide, and no metrics of clients",
    ),
    Setting::with_default("timeout", "1h", "how long a stage may take"),
];

/// The plan.
///
/// # Errors
///
/// When a setting is wrong.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let shards = given.count("shards")?;
    let mut plan = head(given, format!("merge {} in {shards} shards", given.text("updates")?))?;
    plan["params"] = params(given)?;
    plan["inputs"] = json!(merge_inputs(given)?);
    let stage = |id: &str, needs: &[&str], own: &[&str], out: Value| {
        let mut argv = vec![id.to_owned()];
        argv.extend(merge_options(given));
        argv.extend(own.iter().map(ToString::to_string));
        argv.push("{in.updates}".to_owned());
        json!({"id": id, "agent": "fedmill", "needs": needs, "argv": argv, "out": out})
    };
    let shard = ["--shard", "{shard}/{shards}"];
    let passes = passes(given)?;
    let decided: &[&str] = if passes == 1 { &[] } else { &["--decision", "{decide.decision}"] };
    let (after_decide, to_merge): (&[&str], &[&str]) =
        if passes == 1 { (&[], &["combine"]) } else { (&["decide"], &["decide", "combine"]) };
    let mut combine = stage(
        "combine",
        after_decide,
        &[&shard, decided, &["-o", "{out.part}"]].concat(),
        json!([{"name": "part", "path": "part-{shard}.safetensors"}]),
    );
    combine["for_each"] = json!({"shards": shards});
    let merge = stage(
        "merge",
        to_merge,
        &[&["--partials", "{combine.part}"], decided, &["--report", "{out.report}", "-o", "{out.model}"]]
            .concat(),
        json!([{"name": "model", "path": "merged.safetensors"}, {"name": "report", "path": "report.json"}]),
    );
    if passes == 1 {
        plan["stages"] = json!([combine, merge]);
        return Ok(plan);
    }
    let mut gram = stage(
        "gram",
        &[],
        &[&shard[..], &["-o", "{out.part}"]].concat(),
        json!([{"name": "part", "path": "gram-{shard}.safetensors"}]),
    );
    gram["for_each"] = json!({"shards": shards});
    let decide = stage(
        "decide",
        &["gram"],
        &["--partials", "{gram.part}", "-o", "{out.decision}"],
        json!([{"name": "decision", "path": "decision.json"}]),
    );
    plan["stages"] = json!([gram, decide, combine, merge]);
    Ok(plan)
}

/// The parameters of a merge.
pub(super) fn params(given: &Given) -> Result<Value, TemplateError> {
    let mut params = json!({"rule": given.text("rule")?});
    if given.has("byzantine") {
        params["byzantine"] = given.json("byzantine")?;
    }
    Ok(params)
}

/// How often the shards are read: once only by a rule that works on each coordinate.
fn passes(given: &Given) -> Result<u32, TemplateError> {
    let name = given.text("rule")?;
    match given.text("passes")? {
        "1" if rule("rule", name)?.needs() != Needs::Nothing => Err(TemplateError::Plan(format!(
            "--set passes: found 1, expected 2: rule `{name}` compares whole updates"
        ))),
        "1" => Ok(1),
        "2" => Ok(2),
        other => {
            let (key, found) = ("passes".to_owned(), other.to_owned());
            Err(TemplateError::Value { key, found, expected: "1 or 2" })
        }
    }
}
