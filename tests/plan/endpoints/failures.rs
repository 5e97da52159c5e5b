//! Endpoints that do not answer as they must, and plans that may not call them.

use super::server::{Answer, Server};
use super::{agent, http, model, plan};
use serde_json::json;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A request to an HTTP endpoint whose replies must be a ballot.
fn fails(answer: Answer, settings: &serde_json::Value, expected: &str, state: &str) {
    let server = Server::new([answer.clone()]);
    let plan = plan(&server, http(&server, settings), &json!([{"id": "ask", "agent": "judge", "body": {}}]));
    plan.run().assert_fails(2, &[&format!("stage `ask`: {expected}")]);
    assert_eq!(plan.states(), format!("ask {state}"), "{answer:?}");
    assert_eq!(server.asked().len(), 1, "{answer:?}");
}

#[test]
fn a_failure_says_what_the_endpoint_did() {
    let ballot = json!({"format": {"type": "object", "properties": {"vote": {"enum": ["yes", "no"]}}}});
    let raw = |text: &str| Answer::Raw(text.to_owned());
    for (answer, expected) in [
        (Answer::Says(500, &[], "down".to_owned()), "the endpoint answered with status 500"),
        (Answer::Says(404, &[], String::new()), "the endpoint answered with status 404"),
        (Answer::ok("{"), "the reply does not fit: is no JSON: EOF"),
        (Answer::ok("[]"), "the reply does not fit: $: found [], expected object"),
        (
            Answer::ok(r#"{"vote": "maybe"}"#),
            r#"the reply does not fit: $.vote: found "maybe", expected one of "yes", "no""#,
        ),
        (raw(""), "the endpoint cannot be reached: 127.0.0.1:"),
        (
            raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"vote\""),
            "the endpoint cannot be reached: 127.0.0.1:",
        ),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"),
            "the endpoint cannot be reached: 127.0.0.1:",
        ),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
            "the endpoint cannot be reached: 127.0.0.1:",
        ),
        (raw("hello\r\n\r\n"), "the endpoint cannot be reached: 127.0.0.1:"),
        (Answer::Endless, "the reply does not fit: found more than 16777216 bytes, the most of a reply"),
    ] {
        fails(answer, &ballot, expected, "failed");
    }
}

#[test]
fn an_endpoint_that_says_nothing_is_given_up() {
    let settings = json!({"timeout": "300ms"});
    fails(Answer::Silent, &settings, "took longer than 0.3 s", "timeout");
    let stuck = Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned() + &"x".repeat(3));
    fails(stuck, &settings, "the endpoint cannot be reached", "failed");
    let server = Server::new([Answer::Silent]);
    let stages = json!([{"id": "ask", "agent": "judge", "timeout": {"run": "20s", "idle": "200ms"}}]);
    let idle = plan(&server, http(&server, &json!({"timeout": "20s"})), &stages);
    idle.run().assert_fails(2, &["stage `ask`: printed nothing for 0.2 s"]);
    // The timeout of the stage holds beside that of the agent.
    let stages = json!([{"id": "ask", "agent": "judge", "timeout": {"run": "200ms"}}]);
    let short = plan(&server, http(&server, &json!({"timeout": "20s"})), &stages);
    short.run().assert_fails(2, &["stage `ask`: took longer than 0.2 s"]);
}

#[test]
fn an_attempt_at_an_endpoint_is_ended_with_the_run() {
    let server = Server::new([Answer::Silent]);
    let stages = json!([{"id": "ask", "agent": "judge", "timeout": {"run": "60s"}}, {"id": "b", "sh": "sleep 0.3; exit 1"}]);
    let plan = plan(&server, http(&server, &json!({"timeout": "60s"})), &stages)
        .with("limits.on_failure", json!("fail_fast"));
    let began = Instant::now();
    plan.run().assert_fails(2, &["stage `b`: exited with status 1"]);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(plan.states(), "ask cancelled, b failed");
}

#[test]
fn a_model_must_answer_with_a_text() {
    for (answer, expected) in [
        (json!({"error": "x"}), "$.message.content is missing"),
        (
            json!({"message": {"content": "x"}, "done": false}),
            "$.done: found false, expected the whole answer",
        ),
        (json!("x"), "found no JSON object"),
    ] {
        let server = Server::new([Answer::ok(answer)]);
        let plan = plan(
            &server,
            model(&server, &json!({})),
            &json!([{"id": "ask", "agent": "judge", "prompt": "p"}]),
        );
        plan.run().assert_fails(2, &[&format!("stage `ask`: the reply does not fit: {expected}")]);
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_a_failure_to_connect() {
    let server = Server::new([Answer::ok("{}")]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stages = json!([{"id": "ask", "agent": "judge",
        "retry": {"max_attempts": 2, "on": ["connect"], "backoff": {"initial": "10ms"}}}]);
    let judge = http(&server, &json!({"url": format!("http://{closed}/")}));
    let plan = plan(&server, judge, &stages).with("limits.hosts", json!(["127.0.0.1"]));
    let expected = format!("stage `ask`: the endpoint cannot be reached: {closed}: Connection refused");
    plan.run().assert_fails(2, &[&expected]);
    let journal = String::from_utf8(plan.dir.read("plan.run/events.jsonl")).unwrap();
    assert_eq!(journal.matches("fedmill.plan.begin").count(), 2);
}

#[test]
fn no_redirect_is_followed() {
    let other = Server::new([Answer::ok("{}")]);
    let location = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", other.url());
    for location in [location.clone(), location.replace("302", "307")] {
        let expected =
            format!("the endpoint answered with status {}; fedmill follows no redirect", &location[9..12]);
        fails(Answer::Raw(location), &json!({}), &expected, "failed");
    }
    assert_eq!(other.asked().len(), 0);
}

#[test]
fn a_plan_that_may_not_call_an_endpoint_runs_nothing() {
    let server = Server::new([Answer::ok("{}")]);
    let stages = json!([{"id": "first", "sh": "true"}, {"id": "ask", "agent": "judge"}]);
    let url = |url: &str| agent(&server, json!({"kind": "http"}), &json!({"url": url}));
    for (judge, hosts, expected) in [
        (http(&server, &json!({})), json!([]), "$.agents.judge.url: found host 127.0.0.1:"),
        (
            http(&server, &json!({})),
            json!(["127.0.0.1:1", "localhost"]),
            "which lists 127.0.0.1:1, localhost",
        ),
        (
            url("https://127.0.0.1/"),
            json!(["127.0.0.1"]),
            "expected a scheme of http: this version does not encrypt",
        ),
        (
            http(&server, &json!({"format": {"properties": {"a": {"pattern": "x"}}}})),
            json!(["127.0.0.1"]),
            "$.agents.judge.format.properties.a.pattern: found `pattern`, expected one of type, properties",
        ),
    ] {
        let plan = plan(&server, judge, &stages).with("limits.hosts", hosts);
        plan.run().assert_fails(2, &["plan.json:", ": $.agents.judge.", expected]);
        assert!(!plan.dir.exists("plan.run"));
    }
    assert_eq!(server.asked().len(), 0);
}
