//! One round: merge, evaluate, and refuse a model that is not good enough.

use super::parts::{head, merge_inputs, merge_options, shell};
use super::settings::{Given, Setting, TemplateError};
use super::shards::params;
use serde_json::{Value, json};

/// What the plan does.
pub const ABOUT: &str = "Merge a round, evaluate the model, and fail if it is not good enough.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "round", "the name of the plan"),
    Setting::required("updates", "the updates: a folder, or a pattern such as in/*.safetensors"),
    Setting::optional("base", "the model that the updates started from"),
    Setting::with_default("rule", "mean", "the rule"),
    Setting::optional("byzantine", "the number of clients to assume hostile"),
    Setting::optional(
        "evaluate",
        "the command that prints the metrics of a model as JSON; its argument is the model",
    ),
    Setting::with_default("metric", "loss", "the metric that must be good enough"),
    Setting::optional("at_most", "the highest value of the metric"),
    Setting::optional("at_least", "the lowest value of the metric"),
    Setting::with_default("timeout", "1h", "how long a stage may take"),
];

/// The plan.
///
/// # Errors
///
/// When a setting is wrong.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let mut plan = head(given, format!("merge {} and evaluate the model", given.text("updates")?))?;
    plan["params"] = params(given)?;
    plan["inputs"] = json!(merge_inputs(given)?);
    let mut argv = vec!["aggregate".to_owned()];
    argv.extend(merge_options(given));
    argv.extend(["--report", "{out.report}", "-o", "{out.model}", "{in.updates}"].map(str::to_owned));
    let aggregate = json!({"id": "aggregate", "agent": "fedmill", "argv": argv, "out": [
        {"name": "model", "path": "merged.safetensors"}, {"name": "report", "path": "report.json"}]});
    let metric = given.text("metric")?;
    let mut evaluate = evaluation("evaluate", metric);
    evaluate["needs"] = json!(["aggregate"]);
    evaluate["argv"] = json!(["{aggregate.model}"]);
    let mut bounds = Vec::new();
    for (key, sign) in [("at_most", "<="), ("at_least", ">=")] {
        if given.has(key) {
            plan["params"][key] = given.json(key)?;
            bounds.push(format!("metrics.{metric} {sign} params.{key}"));
        }
    }
    if !bounds.is_empty() {
        evaluate["success_when"] = json!(bounds.join(" && "));
    }
    if given.has("evaluate") {
        plan["agents"]["evaluator"] = shell(given.text("evaluate")?, "evaluate");
    }
    plan["stages"] = json!([aggregate, evaluate]);
    Ok(plan)
}

/// A stage that evaluates a model.
pub(super) fn evaluation(id: &str, metric: &str) -> Value {
    json!({"id": id, "needs_capability": ["evaluate"], "metrics": [metric],
        "out": [{"name": "metrics", "path": "-", "metrics": true}]})
}
