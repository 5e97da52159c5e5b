//! What is sent, and what of a reply is kept.

use super::server::{Answer, Server};
use super::{http, model, plan};
use crate::harness::fedmill_after;
use serde_json::json;

#[test]
fn a_reply_is_an_output_and_its_numbers_are_metrics() {
    let body = r#"{"acc": 0.9, "text": "x"}"#;
    for answer in [Answer::ok(body), Answer::Chunked(body.to_owned(), 7)] {
        let server = Server::new([answer]);
        let stages = json!([
            {"id": "ask", "agent": "judge", "metrics": ["acc"], "body": {"f": ["{params.f}", 1]},
             "success_when": "metrics.acc > 0.8", "out": [{"name": "copy", "path": "-"}]},
            {"id": "use", "needs": ["ask"], "agent": "shell", "argv": ["cat $0", "{ask.reply}"],
             "out": [{"name": "o", "path": "-"}]},
        ]);
        let settings =
            json!({"method": "PUT", "idempotency_header": "Idempotency-Key", "headers": {"X-A": "b"}});
        let plan = plan(&server, http(&server, &settings), &stages).with("params", json!({"f": 2}));
        let run = plan.run();
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "plan.run/out/use/o\n"), "{run:#?}");
        assert_eq!([plan.output("ask/reply"), plan.output("ask/copy"), plan.output("use/o")], [body; 3]);
        let asked = server.asked();
        assert_eq!((asked.len(), asked[0].line.as_str()), (1, "PUT /"));
        assert_eq!(asked[0].json(), json!({"f": ["2", 1]}));
        assert_eq!(asked[0].header("content-type"), "application/json");
        assert_eq!((asked[0].header("host"), asked[0].header("x-a")), (server.host().as_str(), "b"));
        let receipt = plan.dir.json("plan.run/receipts/ask.json");
        assert_eq!(receipt["made"]["calls"], 1);
        assert_eq!(receipt["made"]["metrics"], json!({"acc": 0.9}));
        assert_eq!(asked[0].header("idempotency-key"), receipt["work"]);
    }
}

#[test]
fn a_reply_that_is_no_object_lacks_metrics() {
    let server = Server::new([Answer::ok("[0.9]")]);
    let stages = json!([{"id": "ask", "agent": "judge", "metrics": ["acc"]}]);
    let plan = plan(&server, http(&server, &json!({})), &stages);
    plan.run().assert_fails(2, &["stage `ask`: metric `acc` is missing from its outputs"]);
}

#[test]
fn a_model_is_asked_once_for_equal_work() {
    let format =
        json!({"type": "object", "properties": {"score": {"type": "number"}}, "required": ["score"]});
    let settings = json!({"cache": "content", "system": "Be brief.", "options": {"seed": 7, "num_ctx": 4096},
        "format": format});
    let server = Server::new([Answer::chat(json!({"score": 0.5}))]);
    let stages = json!([
        {"id": "ask", "agent": "judge", "prompt": "Is it {params.word}?", "metrics": ["score"]},
        {"id": "fail", "needs": ["ask"], "sh": "exit 1"},
    ]);
    let plan = plan(&server, model(&server, &settings), &stages)
        .with("params", json!({"word": "good"}))
        .with("loops", json!([{"id": "l", "over": ["ask"], "max_iters": 3}]));
    // The run fails behind the model twice: the second one takes it up again.
    for _ in 0..2 {
        plan.run().assert_fails(2, &["stage `fail`: exited with status 1"]);
    }
    assert_eq!(plan.states(), "ask@1 ok, ask@2 ok, ask@3 ok, fail failed");
    assert_eq!([plan.output("ask@1/reply"), plan.output("ask@3/reply")], [r#"{"score":0.5}"#; 2]);
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].line.as_str()), (1, "POST /api/chat"));
    let messages =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it good?"}]);
    let expected = json!({"model": "m", "messages": messages, "stream": false, "format": format,
        "options": {"seed": 7, "num_ctx": 4096}});
    assert_eq!(asked[0].json(), expected);
    let made = |name: &str| plan.dir.json(&format!("plan.run/receipts/{name}.json"))["made"].clone();
    assert_eq!((&made("ask@1")["calls"], &made("ask@1")["tokens"]), (&json!(1), &json!(7)));
    assert_eq!((&made("ask@2")["calls"], &made("ask@2")["tokens"]), (&json!(0), &json!(0)));
}

#[test]
fn each_part_of_a_request_to_a_model_makes_other_work() {
    let server = Server::new([Answer::chat(r#"{"a": 1}"#)]);
    let stages = |prompt: &str| json!([{"id": "ask", "agent": "judge", "prompt": prompt}]);
    let same =
        json!({"cache": "content", "options": {"seed": 7}, "format": {"type": "object"}, "system": "s"});
    let with = |key: &str, value: serde_json::Value| {
        let mut settings = same.clone();
        settings[key] = value;
        settings
    };
    let mut works = Vec::new();
    for (settings, prompt) in [
        (same.clone(), "p"),
        (same.clone(), "q"),
        (with("model", json!("n")), "p"),
        (with("options", json!({"seed": 8})), "p"),
        (with("format", json!({})), "p"),
        (with("system", json!("t")), "p"),
        (same.clone(), "p"),
    ] {
        let plan = plan(&server, model(&server, &settings), &stages(prompt));
        assert_eq!(plan.run().code, Some(0));
        works.push(plan.dir.json("plan.run/receipts/ask.json")["work"].as_str().unwrap().to_owned());
    }
    assert_eq!(works.first(), works.last());
    works.sort();
    works.dedup();
    assert_eq!(works.len(), 6);
}

#[test]
fn a_secret_of_the_environment_stays_out_of_the_run() {
    // The server prints the secret in its answer: the log of the attempt hides it.
    let server = Server::new([Answer::Says(400, &[], "no hunter2-secret here".to_owned())]);
    let stages = json!([{"id": "ask", "agent": "judge"}]);
    let settings = json!({"headers": {"Authorization": "env:TOKEN"}});
    let plan = plan(&server, http(&server, &settings), &stages);
    plan.write();
    let run = fedmill_after(&plan.dir, "export TOKEN=hunter2-secret", &["plan", "run", "plan.json"]);
    run.assert_fails(2, &["stage `ask`: the endpoint answered with status 400"]);
    assert_eq!(server.asked()[0].header("authorization"), "hunter2-secret");
    assert_eq!(plan.dir.read("plan.run/attempts/ask/stdout"), b"no env:TOKEN here");
    for (name, bytes) in plan.dir.contents() {
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"), "{name}");
    }
    assert!(!run.stderr.contains("hunter2"), "{run:#?}");
    let missing = fedmill_after(&plan.dir, "unset TOKEN", &["plan", "run", "plan.json"]);
    missing
        .assert_fails(2, &["stage `ask`: header `Authorization`: the variable TOKEN is not set; export it"]);
    assert_eq!(server.asked().len(), 1);
}
