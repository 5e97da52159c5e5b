//! Several rules on one round: each is merged and evaluated, and the best model is the result.

use super::parts::{head, merge_inputs, rule, shell};
use super::round::evaluation;
use super::settings::{Given, Setting, TemplateError};
use serde_json::{Value, json};

/// What the plan does.
pub const ABOUT: &str = "Merge a round by several rules, evaluate each model, and take the best.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "sweep", "the name of the plan"),
    Setting::required("updates", "the updates: a folder, or a pattern such as in/*.safetensors"),
    Setting::optional("base", "the model that the updates started from"),
    Setting::required("rules", "the rules, separated by semicolons"),
    Setting::optional("byzantine", "the number of clients to assume hostile"),
    Setting::optional(
        "evaluate",
        "the command that prints the metrics of a model as JSON; its argument is the model",
    ),
    Setting::with_default("metric", "loss", "the metric that chooses"),
    Setting::with_default("best", "lowest", "lowest or highest: which value of the metric is best"),
    Setting::with_default("timeout", "1h", "how long a stage may take"),
];

/// The plan.
///
/// # Errors
///
/// When a setting is wrong.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let rules: Vec<&str> =
        given.text("rules")?.split(';').map(str::trim).filter(|rule| !rule.is_empty()).collect();
    let best = match given.text("best")? {
        "lowest" => "min",
        "highest" => "max",
        found => {
            let (key, found) = ("best".to_owned(), found.to_owned());
            return Err(TemplateError::Value { key, found, expected: "lowest or highest" });
        }
    };
    if rules.len() < 2 {
        let (key, found) = ("rules".to_owned(), rules.join(";"));
        return Err(TemplateError::Value {
            key,
            found,
            expected: "two rules or more with semicolons between them, such as mean;median",
        });
    }
    check_rules(given, &rules)?;
    let mut plan = head(given, format!("find the best of {} rules", rules.len()))?;
    plan["inputs"] = json!(merge_inputs(given)?);
    let mut argv = vec!["aggregate", "--rule", "{item}"];
    if given.has("byzantine") {
        plan["params"] = json!({"byzantine": given.json("byzantine")?});
        argv.extend(["--byzantine", "{params.byzantine}"]);
    }
    if given.has("base") {
        argv.extend(["--base", "{in.base}"]);
    }
    argv.extend(["-o", "{out.model}", "{in.updates}"]);
    let metric = given.text("metric")?;
    let merge = json!({"id": "merge", "agent": "fedmill", "for_each": {"values": rules}, "argv": argv,
        "out": [{"name": "model", "path": "merged.safetensors"}]});
    let mut evaluate = evaluation("evaluate", metric);
    evaluate["needs"] = json!(["merge"]);
    evaluate["for_each"] = json!({"values": rules});
    evaluate["argv"] = json!(["{merge.model[index]}"]);
    let case = |place: usize| json!({"if": format!("metrics.{metric}[{place}] == {best}(metrics.{metric})"), "to": format!("rule_{place}")});
    let cases: Vec<Value> = (0..rules.len()).map(case).collect();
    let choose = json!({"id": "choose", "kind": "decide", "needs": ["evaluate"], "metrics": [metric], "cases": cases,
        "else": "rule_0"});
    let take = |(place, rule): (usize, &&str)| {
        json!({"id": format!("take_{place}"), "x-rule": rule, "branch": format!("rule_{place}"),
            "needs": ["choose", "merge"], "agent": "copy", "argv": [format!("{{merge.model[{place}]}}"), "{out.model}"],
            "out": [{"name": "model", "path": "best.safetensors"}]})
    };
    plan["agents"]["copy"] = json!({"kind": "command", "argv": ["cp"], "capabilities": ["copy"]});
    if given.has("evaluate") {
        plan["agents"]["evaluator"] = shell(given.text("evaluate")?, "evaluate");
    }
    let mut stages = vec![merge, evaluate, choose];
    stages.extend(rules.iter().enumerate().map(take));
    plan["stages"] = json!(stages);
    Ok(plan)
}

/// Refuses rules that tolerate no hostile client where some are assumed: their merges would fail.
fn check_rules(given: &Given, rules: &[&str]) -> Result<(), TemplateError> {
    let assumes = given.has("byzantine") && given.json("byzantine")?.as_f64() != Some(0.0);
    for text in rules {
        if rule("rules", text)?.tolerates(MANY) == 0 && assumes {
            let byzantine = given.text("byzantine")?;
            return Err(TemplateError::Plan(format!(
                "--set rules: found `{text}`, which tolerates no hostile client, expected rules that tolerate \
                 byzantine={byzantine}; leave out `{text}`, or byzantine"
            )));
        }
    }
    Ok(())
}

/// A number of clients at which each rule that tolerates any hostile client does.
const MANY: usize = 1_000_000;
