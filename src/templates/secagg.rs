//! A session of secure aggregation, by parties whose keys lie in the folder of the plan.

use super::parts::{head, input, shell};
use super::settings::{Given, Setting, TemplateError};
use serde_json::{Value, json};

/// What the plan does.
pub const ABOUT: &str =
    "Sum updates by secure aggregation, and merge their mean: open, mask, check, sum, help, unmask.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "secagg", "the name of the plan"),
    Setting::required("base", "the model that the updates started from"),
    Setting::required("key", "the server's secret key, which `secagg keygen` wrote"),
    Setting::required("clients", "the folder of the public keys of the clients"),
    Setting::required("helpers", "the folder of the public keys of the helpers"),
    Setting::required(
        "helper_keys",
        "the secret keys of the helpers that answer here, with `;` between them",
    ),
    Setting::optional(
        "masks",
        "the ids of clients that mask here, with `;` between them; without it the stage `mask` waits for a person",
    ),
    Setting::with_default(
        "client_keys",
        "keys",
        "the folder of the secret keys of those clients, each named by its id",
    ),
    Setting::with_default(
        "updates",
        "updates",
        "the folder of the updates of those clients, as ID.safetensors",
    ),
    Setting::with_default("clip", "1", "the largest change of a parameter"),
    Setting::with_default("session", "session", "the folder of the session, which all parties share"),
    Setting::with_default("strategy", "fedavg", "the server's step with the mean"),
    Setting::with_default("program", "fedmill", "the program, as the shell of a stage finds it"),
    Setting::with_default("timeout", "1h", "how long a stage may take"),
];

/// The plan.
///
/// # Errors
///
/// When a setting is wrong.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let text = |key: &str| given.text(key);
    let (session, base, key) = (text("session")?, text("base")?, text("key")?);
    let mut plan = head(given, format!("sum updates in the session {session}, and merge their mean"))?;
    plan["params"] = json!({"clip": given.json("clip")?});
    plan["inputs"] = json!([input("base", base)]);
    agents(&mut plan["agents"], text("program")?);
    let (clients, helpers) = (text("clients")?, text("helpers")?);
    let terms = ["--clients", clients, "--helpers", helpers, "--base", base, "--clip", "{params.clip}"];
    let mut open = stage("open", &[], &[&[session, "--key", key], &terms[..]].concat());
    open["agent"] = json!("open");
    let answering = list(given, "helper_keys")?;
    let mut check = stage("check", &["mask"], &["check", session, "--key", "{item}"]);
    check["for_each"] = json!({"values": answering});
    let sum = stage("sum", &["check"], &["sum", session, "--key", key]);
    let mut help = stage("help", &["sum"], &["help", session, "--key", "{item}"]);
    help["for_each"] = json!({"values": answering});
    let mut unmask = stage("unmask", &["help"], &["{out.mean}", session, "--key", key]);
    unmask["agent"] = json!("unmask");
    unmask["out"] = json!([{"name": "mean", "path": "mean.safetensors"}]);
    let merge = json!({"id": "merge", "agent": "fedmill", "needs": ["unmask"], "argv": ["aggregate", "--base",
        "{in.base}", "--strategy", text("strategy")?, "-o", "{out.model}", "{unmask.mean}"],
        "out": [{"name": "model", "path": "merged.safetensors"}]});
    plan["stages"] = json!([open, mask(given)?, check, sum, help, unmask, merge]);
    Ok(plan)
}

/// The agents that work in the folder of the plan. A session that is open is not opened again.
fn agents(agents: &mut Value, program: &str) {
    agents["secagg"] = shell(&format!("{program} secagg"), "secagg");
    let script = format!(
        "cd \"$FEDMILL_PLAN_DIR\"; if [ -e \"$1/manifest.json\" ]; then echo \"$1/manifest.json\"; else {program} secagg open \
         \"$@\"; fi"
    );
    agents["open"] =
        json!({"kind": "command", "argv": ["sh", "-c", script, "open"], "capabilities": ["open"]});
    let script = format!(
        "mean=\"$PWD/$1\"; shift; cd \"$FEDMILL_PLAN_DIR\" && {program} secagg unmask \"$@\" -o \"$mean\""
    );
    agents["unmask"] =
        json!({"kind": "command", "argv": ["sh", "-c", script, "unmask"], "capabilities": ["unmask"]});
}

/// A stage of a party. The same step again makes the same files in the folder that all parties share.
fn stage(id: &str, needs: &[&str], argv: &[&str]) -> Value {
    json!({"id": id, "agent": "secagg", "needs": needs, "argv": argv, "side_effects": "idempotent",
        "out": [{"name": "path", "path": "-"}]})
}

/// The clients mask here; or a person says when they did.
fn mask(given: &Given) -> Result<Value, TemplateError> {
    let (session, base, key) = (given.text("session")?, given.text("base")?, given.text("key")?);
    if !given.has("masks") {
        let question = format!(
            "let each client run `secagg mask {session} UPDATE`; approve once enough updates are there"
        );
        return Ok(json!({"id": "mask", "needs": ["open"],
            "gate": {"timeout": given.text("timeout")?, "default": "reject", "question": question}}));
    }
    let update = format!("{}/{{item}}.safetensors", given.text("updates")?);
    let own = format!("{}/{{item}}", given.text("client_keys")?);
    let server = format!("{key}.pub");
    let argv =
        ["mask", session, &update, "--base", base, "--key", &own, "--trust", &server, given.text("helpers")?];
    let mut mask = stage("mask", &["open"], &argv);
    mask["for_each"] = json!({"values": list(given, "masks")?});
    Ok(mask)
}

fn list<'g>(given: &'g Given, key: &str) -> Result<Vec<&'g str>, TemplateError> {
    let text = given.text(key)?;
    let values: Vec<&str> = text.split(';').map(str::trim).filter(|value| !value.is_empty()).collect();
    if values.is_empty() {
        let (key, found) = (key.to_owned(), text.to_owned());
        return Err(TemplateError::Value { key, found, expected: "one value or more" });
    }
    Ok(values)
}
