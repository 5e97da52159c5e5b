//! The official clients of Ollama and OpenAI, and fedmill, on the same server.

use super::Workflow;
use crate::harness::{skip, source_tree};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The variable that makes a missing client a failure.
const REQUIRE: &str = "FEDMILL_REQUIRE_ENDPOINTS";

/// `data/ollama/server.py`, as long as the value lives.
struct StandIn {
    child: Child,
    url: String,
}

impl StandIn {
    fn start() -> Self {
        let script = source_tree().unwrap().join("data/ollama/server.py");
        let mut child = Command::new("python3").arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the clients can be used. If not, prints that the test is skipped, or fails.
fn has_clients() -> bool {
    let import = ["-c", "import ollama, openai"];
    let status = Command::new("python3").args(import).stderr(Stdio::null()).status();
    let has = source_tree().is_some() && status.is_ok_and(|status| status.success());
    if !has {
        let why = "`python3 -c 'import ollama, openai'` does not run (data/ollama/requirements.txt)";
        assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and {why}");
        skip(why);
    }
    has
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "vote": {"enum": ["accept", "reject"]},
            "score": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
        },
        "required": ["vote", "score"],
        "additionalProperties": false,
    })
}

#[test]
fn fedmill_gets_the_answers_that_official_clients_get() {
    if !has_clients() {
        return;
    }
    let server = StandIn::start();
    let script = source_tree().unwrap().join("data/ollama/clients.py");
    let official = Command::new("python3").arg(script).arg(&server.url).output().unwrap();
    let error = String::from_utf8_lossy(&official.stderr);
    assert!(official.status.success(), "clients.py: {error}");
    let official: Value = serde_json::from_slice(&official.stdout).unwrap();

    let (system, prompt) = ("You review a merge.", "Is round 7 good?");
    let judge = |model: &str, seed: u32, format: Option<Value>| {
        json!({"kind": "ollama", "url": server.url, "model": model, "system": system, "format": format,
            "options": {"seed": seed, "num_ctx": 4096}})
    };
    let stage = |id: &str| json!({"id": id, "agent": id, "prompt": prompt});
    let mut ballot = stage("ballot");
    ballot["metrics"] = json!(["score"]);
    let mut busy = stage("busy");
    busy["retry"] = json!({"max_attempts": 2, "on": ["http:429"], "backoff": {"initial": "1ms"}});
    let body = json!({"model": "m", "seed": 7,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "ballot", "schema": schema(), "strict": true}}});
    let completion = json!({"id": "completion", "agent": "completion", "body": body});
    let stages = json!([
        stage("text"),
        stage("same"),
        stage("other"),
        ballot,
        busy,
        stage("loose"),
        stage("broken"),
        completion
    ]);
    let plan = Workflow::new(&stages)
        .with("limits.hosts", json!(["127.0.0.1"]))
        .with("limits.on_failure", json!("keep_going"))
        .with("agents.text", judge("m", 7, None))
        .with("agents.same", judge("m", 7, None))
        .with("agents.other", judge("m", 8, None))
        .with("agents.ballot", judge("m", 7, Some(schema())))
        .with("agents.busy", judge("busy", 9, None))
        .with("agents.loose", judge("loose", 7, Some(schema())))
        .with("agents.broken", judge("broken", 7, None))
        .with(
            "agents.completion",
            json!({"kind": "http", "url": format!("{}/v1/chat/completions", server.url)}),
        );
    plan.run().assert_fails(
        2,
        &[
            "stage `loose`: the reply does not fit: is no JSON",
            "stage `broken`: the endpoint answered with status 500",
        ],
    );
    let expected =
        "text ok, same ok, other ok, ballot ok, busy ok, loose failed, broken failed, completion ok";
    assert_eq!(plan.states(), expected);

    let text = plan.output("text/reply");
    assert_eq!(text, official["text"]["content"]);
    assert_eq!(text, plan.output("same/reply"));
    assert_ne!(text, plan.output("other/reply"));
    // fedmill sends the members of a schema in the order of their names, and the server answers in the order it gets.
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let ballot = parsed(&plan.output("ballot/reply"));
    assert_eq!(ballot, parsed(official["ballot"]["content"].as_str().unwrap()));
    let made = plan.dir.json("plan.run/receipts/ballot.json")["made"].clone();
    assert_eq!(made["tokens"], official["ballot"]["tokens"]);
    assert_eq!(made["metrics"]["score"].as_f64(), ballot["score"].as_f64());
    let completion = parsed(&plan.output("completion/reply"));
    let content = completion["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(parsed(content), parsed(official["completion"].as_str().unwrap()));
}
