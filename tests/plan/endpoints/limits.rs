//! Retries, the pauses that endpoints ask for, and what a run may use.

use super::server::{Answer, Server};
use super::{http, model, plan};
use serde_json::json;
use std::time::Duration;

#[test]
fn an_endpoint_is_left_alone_as_long_as_it_asks() {
    let busy = |after: &'static [(&'static str, &'static str)]| Answer::Says(429, after, "busy".to_owned());
    let retry = |max: &str| {
        json!([{"id": "ask", "agent": "judge", "body": {}, "retry": {"max_attempts": 2, "on": ["http:429"],
            "backoff": {"initial": "1ms", "max": max}}}])
    };
    let settings = json!({"idempotency_header": "Idempotency-Key"});
    // An hour would end the test by its time: the longest pause of the plan holds.
    for (answer, max, least) in [
        (busy(&[("Retry-After", "1")]), "60s", 1000),
        (busy(&[("Retry-After", "3600")]), "300ms", 300),
        (busy(&[("Retry-After", "soon")]), "60s", 0),
        (busy(&[]), "60s", 0),
    ] {
        let server = Server::new([answer, Answer::ok("{}")]);
        let plan = plan(&server, http(&server, &settings), &retry(max));
        let run = plan.run();
        assert_eq!(run.code, Some(0), "{run:#?}");
        let asked = server.asked();
        let between = asked[1].at - asked[0].at;
        assert!(asked.len() == 2 && between >= Duration::from_millis(least), "{between:?}");
        assert_eq!(asked[0].header("idempotency-key"), asked[1].header("idempotency-key"));
        assert_eq!(plan.output("ask/reply"), "{}");
    }
    let server = Server::new([Answer::Says(500, &[], String::new())]);
    plan(&server, http(&server, &settings), &retry("1s")).run().assert_fails(2, &["status 500"]);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn requests_are_counted_before_they_are_made() {
    // Two requests of three instances; and two attempts of five, which fail.
    let fan = json!([{"id": "ask", "agent": "judge", "for_each": {"range": 3}, "body": {"n": "{item}"}}]);
    let again = json!([{"id": "ask", "agent": "judge",
        "retry": {"max_attempts": 5, "backoff": {"initial": "1ms"}}}]);
    for (stages, answer, name) in
        [(fan, Answer::ok("{}"), "ask.2"), (again, Answer::Says(500, &[], String::new()), "ask")]
    {
        let server = Server::new([answer]);
        let plan = plan(&server, http(&server, &json!({})), &stages).with("limits.http_calls", json!(2));
        let expected =
            format!("refused: limits.http_calls, 2, is used up, and stage `{name}` needs another request");
        // A resumed run has no more requests.
        for _ in 0..2 {
            plan.run().assert_fails(1, &[&expected]);
            assert_eq!(server.asked().len(), 2);
        }
    }
}

#[test]
fn tokens_are_counted_even_of_replies_that_do_not_fit() {
    let stages = json!([{"id": "ask", "agent": "judge", "prompt": "p",
        "retry": {"max_attempts": 5, "on": ["schema"], "backoff": {"initial": "1ms"}}}]);
    let server = Server::new([Answer::chat("no ballot")]);
    let judge = model(&server, &json!({"format": {"type": "object"}}));
    let plan = plan(&server, judge, &stages).with("limits.tokens", json!(14));
    plan.run()
        .assert_fails(1, &["refused: limits.tokens, 14, is used up, and stage `ask` needs another request"]);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_reply_that_is_kept_needs_no_request() {
    let server = Server::new([Answer::chat("x")]);
    let stages = json!([{"id": "ask", "agent": "judge", "prompt": "p"}]);
    let plan = plan(&server, model(&server, &json!({"cache": "content"})), &stages)
        .with("limits.http_calls", json!(1))
        .with("limits.tokens", json!(7))
        .with("loops", json!([{"id": "l", "over": ["ask"], "max_iters": 3}]));
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(server.asked().len(), 1);
}
