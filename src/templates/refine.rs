//! A proposal and its review, again until the review is good enough.

use super::parts::{head, input, shell, writing_shell};
use super::settings::{Given, Setting, TemplateError};
use serde_json::{Value, json};

/// What the plan does.
pub const ABOUT: &str = "Propose and review in turns until the score of the review is high enough.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "refine", "the name of the plan"),
    Setting::required("start", "the file that the first proposal starts from"),
    Setting::optional(
        "propose",
        "the command that improves a file; its arguments are the file and where to write",
    ),
    Setting::optional("review", "the command that prints {\"score\": NUMBER}; its argument is the file"),
    Setting::with_default("score", "0.9", "the score that ends the loop"),
    Setting::with_default("max_iters", "10", "the most proposals"),
    Setting::with_default("timeout", "10m", "how long a stage may take"),
];

/// The plan.
///
/// # Errors
///
/// When a setting is wrong.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let mut plan = head(given, format!("improve {} until its review is good", given.text("start")?))?;
    plan["params"] = json!({"score": given.json("score")?});
    plan["inputs"] = json!([input("start", given.text("start")?)]);
    let agents = &mut plan["agents"];
    *agents = json!({});
    if given.has("propose") {
        agents["propose"] = writing_shell(given.text("propose")?, "propose");
    }
    if given.has("review") {
        agents["review"] = shell(given.text("review")?, "review");
    }
    plan["stages"] = json!([
        {"id": "propose", "needs_capability": ["propose"], "argv": ["{carry.draft}", "{out.draft}"],
         "out": [{"name": "draft", "path": "draft"}]},
        {"id": "review", "needs": ["propose"], "needs_capability": ["review"], "argv": ["{propose.draft}"],
         "out": [{"name": "review", "path": "-", "metrics": true}], "metrics": ["score"]},
    ]);
    plan["loops"] = json!([{"id": "turns", "over": ["propose", "review"], "max_iters": given.count("max_iters")?,
        "carry": {"draft": {"from": "propose.draft", "init": "start"}}, "until": "metrics.score >= params.score",
        "on_exhausted": "fail"}]);
    Ok(plan)
}
