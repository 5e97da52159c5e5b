//! Random graphs with random failures: the runner and GNU make agree on what ran and failed.

use super::Workflow;
use crate::harness::skip;
use crate::rng::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// A stage: the stages that it needs, and whether it fails.
pub(super) type Node = (Vec<usize>, bool);

pub(super) fn random_graph(rng: &mut Rng) -> Vec<Node> {
    let count = 2 + rng.below(29) as usize;
    let node = |place: usize, rng: &mut Rng| {
        let needs = (0..place).filter(|_| rng.chance(12)).collect();
        (needs, rng.chance(10))
    };
    (0..count).map(|place| node(place, rng)).collect()
}

/// What each stage came to with make.
pub(super) fn with_make(graph: &[Node], workflow: &Workflow) -> BTreeMap<String, &'static str> {
    let mut text = String::from("all:");
    (0..graph.len()).for_each(|place| text.push_str(&format!(" s{place}")));
    text.push('\n');
    for (place, (needs, fails)) in graph.iter().enumerate() {
        let needs: String = needs.iter().map(|need| format!(" s{need}")).collect();
        let end = if *fails { "false" } else { "touch $@" };
        text.push_str(&format!("s{place}:{needs}\n\t@touch $@.began && {end}\n"));
    }
    workflow.dir.write("make/Makefile", text);
    let mut make = Command::new("make");
    make.args(["-k", "-j2", "-s", "all"]).current_dir(workflow.dir.path("make")).env_remove("MAKEFLAGS");
    make.output().unwrap();
    let state = |place: usize| {
        let has = |name: String| workflow.dir.exists(&format!("make/{name}"));
        match (has(format!("s{place}.began")), has(format!("s{place}"))) {
            (_, true) => "ok",
            (true, false) => "failed",
            (false, false) => "blocked",
        }
    };
    (0..graph.len()).map(|place| (format!("s{place}"), state(place))).collect()
}

#[test]
fn random_graphs_run_as_with_make() {
    if Command::new("make").arg("--version").output().is_err() {
        return skip("GNU make is not installed");
    }
    let mut failed = 0;
    for seed in 0..12 {
        let graph = random_graph(&mut Rng::new(seed));
        let stages = graph.iter().enumerate().map(|(place, (needs, fails))| {
            let needs: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
            json!({"id": format!("s{place}"), "needs": needs, "sh": if *fails { "exit 1" } else { "true" }})
        });
        let stages: Vec<Value> = stages.collect();
        let workflow = Workflow::new(&json!(stages)).with("limits.on_failure", json!("keep_going"));
        let expected = with_make(&graph, &workflow);
        let any_fails = expected.values().any(|state| *state == "failed");
        assert_eq!(workflow.run().code, Some(if any_fails { 2 } else { 0 }));
        let states = workflow.states();
        let found = states.split(", ").filter_map(|stage| stage.split_once(' '));
        let found: BTreeMap<String, &str> = found.map(|(name, state)| (name.to_owned(), state)).collect();
        assert_eq!(found, expected, "seed {seed}");
        failed += expected.values().filter(|state| **state != "ok").count();
    }
    assert!(failed > 20, "only {failed} stages of all graphs failed or were blocked");
}
