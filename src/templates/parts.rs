//! Parts that plans of several templates have.

use super::settings::{Given, TemplateError};
use crate::rules::{self, Rule};
use crate::schema::SCHEMA;
use crate::settings::Definition;
use serde_json::{Value, json};

/// The head of a plan: its schema, its name, and the limits that all templates have.
pub(super) fn head(given: &Given, goal: String) -> Result<Value, TemplateError> {
    Ok(json!({
        "schema": SCHEMA,
        "id": given.text("id")?,
        "goal": goal,
        "limits": {"timeout": {"run": given.text("timeout")?}},
        "agents": {"fedmill": {"kind": "command", "argv": ["fedmill"], "capabilities": ["fedmill"]}},
    }))
}

/// An input of a plan: a file, a folder, or a pattern.
pub(super) fn input(name: &str, path: &str) -> Value {
    if path.contains(['*', '?', '[']) {
        return json!({"name": name, "glob": path});
    }
    json!({"name": name, "path": path})
}

/// The rule that a setting names.
pub(super) fn rule(key: &str, text: &str) -> Result<Box<dyn Rule>, TemplateError> {
    rules::parse(text, Definition::Paper).map_err(|why| TemplateError::Plan(format!("--set {key}: {why}")))
}

/// The options of a merge that all its commands share: the rule, the number of hostile clients, the base.
pub(super) fn merge_options(given: &Given) -> Vec<String> {
    let mut options = vec!["--rule".to_owned(), "{params.rule}".to_owned()];
    if given.has("byzantine") {
        options.extend(["--byzantine".to_owned(), "{params.byzantine}".to_owned()]);
    }
    if given.has("base") {
        options.extend(["--base".to_owned(), "{in.base}".to_owned()]);
    }
    options
}

/// The inputs of a merge: updates, and the base if there is one.
pub(super) fn merge_inputs(given: &Given) -> Result<Vec<Value>, TemplateError> {
    let mut inputs = vec![input("updates", given.text("updates")?)];
    if given.has("base") {
        inputs.push(input("base", given.text("base")?));
    }
    Ok(inputs)
}

/// An agent that runs a command of the operator's in a shell, in the folder of the plan; arguments of the stage follow
/// those of the command.
pub(super) fn shell(command: &str, capability: &str) -> Value {
    in_folder_of_plan("", command, capability)
}

/// The same for a command whose second argument is a file that it writes.
pub(super) fn writing_shell(command: &str, capability: &str) -> Value {
    in_folder_of_plan(r#"set -- "$1" "$PWD/$2"; "#, command, capability)
}

fn in_folder_of_plan(before: &str, command: &str, capability: &str) -> Value {
    let script = format!("{before}cd \"$FEDMILL_PLAN_DIR\" && {command} \"$@\"");
    json!({"kind": "command", "argv": ["sh", "-c", script, capability], "capabilities": [capability]})
}
