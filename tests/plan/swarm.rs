//! Swarms: who sees whose proposals, and which one holds.

use super::endpoints::server::{Answer, Server};
use crate::harness::{Dir, fedmill};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An agent whose proposal is the set of the agents that it heard of: itself first, then all that stand in the proposals
/// that it reads. It votes for the third.
const AGENT: &str = r#"#!/bin/sh
verb=$1
shift
case $verb in
propose) echo "${FEDMILL_STAGE#r0_}" ;;
revise) cat "$@" | sort -nu ;;
vote) test "$#" = "$EXPECTED" && echo '{"option": "p3"}' ;;
esac
"#;

fn swarm(dir: &Dir, settings: &[&str]) -> crate::harness::Run {
    let mut args = vec!["plan", "new", "--template", "swarm", "-o", "p.json", "--set", "goal=a good {x}"];
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    fedmill(dir, &args)
}

/// The agents within `steps` steps of an agent, by a search over pairs of neighbours.
fn within(pairs: &[(usize, usize)], from: usize, steps: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::from([from]);
    for _ in 0..steps {
        for (a, b) in pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
            // What is reached in this step reaches nothing before the next.
            if reached.contains(&a) && b > 0 {
                reached.insert(b + 1000);
            }
        }
        reached = reached.into_iter().map(|agent| agent % 1000).collect();
    }
    reached
}

#[test]
fn each_round_carries_proposals_one_step_further() {
    let mesh: Vec<(usize, usize)> = (1..=6).flat_map(|a| (1..a).map(move |b| (a, b))).collect();
    let tree = vec![(1, 2), (1, 3), (2, 4), (2, 5), (3, 6)];
    // Groups of three, and the first of each.
    let groups = vec![(1, 2), (1, 3), (2, 3), (4, 5), (4, 6), (5, 6), (1, 4)];
    for (topology, pairs) in [("mesh", mesh), ("hierarchical", tree), ("hybrid", groups)] {
        for rounds in 0..3 {
            let dir = Dir::new();
            dir.write("agent.sh", AGENT);
            let command = format!("command=EXPECTED=6 sh {}", dir.path("agent.sh").display());
            let (topology_set, rounds_set) = (format!("topology={topology}"), format!("rounds={rounds}"));
            let settings = ["capability=c", "size=6", &command, &topology_set, &rounds_set];
            let run = swarm(&dir, &settings);
            assert_eq!(run.code, Some(0), "{run:#?}");
            let run = fedmill(&dir, &["plan", "run", "p.json"]);
            assert_eq!(run.stdout, "p.run/out/take_3/proposal\n", "{run:#?}");
            for agent in 1..=6 {
                let text = dir.read(&format!("p.run/out/r{rounds}_{agent}/proposal"));
                let found: BTreeSet<usize> =
                    String::from_utf8(text).unwrap().lines().map(|line| line.parse().unwrap()).collect();
                assert_eq!(found, within(&pairs, agent, rounds), "{topology} {rounds} {agent}");
            }
            assert_eq!(
                dir.read("p.run/out/take_3/proposal"),
                dir.read(&format!("p.run/out/r{rounds}_3/proposal"))
            );
        }
    }
}

#[test]
fn a_swarm_without_consensus_ends_as_its_settings_say() {
    for (setting, code) in [("no_consensus=fail", 2), ("no_consensus=first", 0)] {
        let dir = Dir::new();
        dir.write("agent.sh", AGENT.replace("p3", "p$$"));
        let command = format!("command=EXPECTED=3 sh {}", dir.path("agent.sh").display());
        assert_eq!(swarm(&dir, &["capability=c", "rounds=0", &command, setting]).code, Some(0));
        let run = fedmill(&dir, &["plan", "run", "p.json"]);
        assert_eq!(run.code, Some(code), "{run:#?}");
        if code == 0 {
            assert_eq!(run.stdout, "p.run/out/take_1/proposal\n");
        }
    }
}

/// An agent that fails to propose or to revise holds up no other; its last proposal stands.
#[test]
fn the_swarm_goes_on_without_an_agent_that_fails() {
    // Agent 2 proposes nothing, and agent 4 does not revise. The others list what they read.
    let script = r#"#!/bin/sh
case $FEDMILL_STAGE in r0_2 | r1_4 | r2_4) exit 3 ;; esac
verb=$1
shift
case $verb in
propose) echo "${FEDMILL_STAGE#r0_}" ;;
revise) cat "$@" | sort -nu ;;
vote) echo "$@" >> "$HOME/votes"; printf '{"option": "%s"}' "$CHOICE" ;;
esac
"#;
    for (choice, code, taken) in [("p4", 0, "4\n"), ("p1", 0, "1\n3\n4\n"), ("p2", 2, "")] {
        let dir = Dir::new();
        dir.write("agent.sh", script);
        let home = dir.path("").display().to_string();
        let command = format!("command=env HOME={home} CHOICE={choice} sh {home}/agent.sh");
        let settings = ["capability=c", "size=4", "rounds=2", &command];
        assert_eq!(swarm(&dir, &settings).code, Some(0));
        let lint = fedmill(&dir, &["plan", "lint", "p.json"]);
        assert_eq!((lint.code, lint.stdout.as_str()), (Some(0), "no finding\n"));
        let run = fedmill(&dir, &["plan", "run", "p.json"]);
        assert_eq!(run.code, Some(code), "{choice}: {run:#?}");
        let status = fedmill(&dir, &["plan", "status", "--json", "p.run"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let row = |name: &str| {
            let rows = status["stages"].as_array().unwrap();
            rows.iter().find(|row| row["name"] == name).unwrap().clone()
        };
        let state = |name: &str| row(name)["state"].as_str().unwrap().to_owned();
        let states = ["r0_2", "r1_2", "r2_2", "r0_4", "r1_4", "r2_4", "r2_1"].map(state);
        assert_eq!(states, ["failed", "skipped", "skipped", "ok", "failed", "failed", "ok"]);
        assert_eq!(row("r0_2")["why"], "exited with status 3");
        let votes = String::from_utf8(dir.read("votes")).unwrap();
        assert_eq!(votes.lines().count(), 4, "all four vote: {votes}");
        let first: Vec<&str> = votes.lines().next().unwrap().split(' ').collect();
        assert_eq!((first.len(), first[1]), (4, "p2="), "{votes}");
        assert!(first[3].starts_with("p4=") && first[3].ends_with("out/r0_4/proposal"), "{votes}");
        if code == 0 {
            let take = format!("p.run/out/take_{}/proposal", &choice[1..]);
            assert_eq!(String::from_utf8(dir.read(&take)).unwrap(), taken);
        } else {
            let ballots = row("vote")["ballots"].clone();
            let why = ballots[0]["why"].as_str().unwrap();
            assert!(why.contains(r#"found "p2", expected one of "p1", "p3", "p4""#), "{why}");
        }
    }
}

#[test]
fn a_swarm_needs_its_least_proposals() {
    for (least, code) in [("1", 0), ("2", 0), ("3", 2)] {
        let dir = Dir::new();
        dir.write("agent.sh", format!("[ $FEDMILL_STAGE != r0_1 ] || exit 3\n{AGENT}"));
        let command = format!("command=EXPECTED=3 sh {}", dir.path("agent.sh").display());
        let least = format!("min_proposals={least}");
        assert_eq!(swarm(&dir, &["capability=c", "rounds=1", &command, &least]).code, Some(0));
        let run = fedmill(&dir, &["plan", "run", "p.json"]);
        assert_eq!(run.code, Some(code), "{least}: {run:#?}");
        if code != 0 {
            run.assert_fails(2, &["stage `vote`: 2 of 3 options are left (p2, p3), expected at least 3"]);
        }
    }
}

#[test]
fn settings_that_make_no_swarm_are_refused() {
    let dir = Dir::new();
    for (settings, expected) in [
        (&["capability=c"][..], "found 0 agents with capability `c`, expected 2 to 100"),
        (&["capability=c", "command=x", "size=1"], "found 1 agents with capability `c`, expected 2 to 100"),
        (
            &["capability=c", "command=x", "size=101"],
            "--set size: found `101`, expected a whole number from 1 to 100",
        ),
        (
            &["capability=c", "command=x", "rounds=21"],
            "--set rounds: found `21`, expected a whole number from 0 to 20",
        ),
        (
            &["capability=c", "command=x", "topology=ring"],
            "found `ring`, expected mesh, hierarchical or hybrid",
        ),
        (
            &["capability=c", "command=x", "min_proposals=4"],
            "--set min_proposals: found `4`, expected a whole number from 1 to the number of agents",
        ),
        (&["capability=c", "command=x", "no_consensus=x"], "found `x`, expected fail, first or gate"),
    ] {
        swarm(&dir, settings).assert_fails(2, &[expected]);
    }
}

/// Models read the texts of proposals, not paths; each option of the vote stands beside its proposal.
#[test]
fn models_of_the_registry_read_what_others_propose() {
    let dir = Dir::new();
    let ballot = Answer::chat(json!({"option": "p1"}));
    let servers = ["first idea", "second idea"]
        .map(|text| Server::new([Answer::chat(text), Answer::chat(text), ballot.clone()]));
    let agents = json!({"a": model(&servers[0]), "b": model(&servers[1])});
    dir.write("agents.json", agents.to_string());
    assert_eq!(fedmill(&dir, &["agents", "add", "state", "agents.json"]).code, Some(0));
    dir.write("task.txt", "the task with {braces}");
    let args = ["plan", "new", "--template", "swarm", "-o", "p.json", "--agents", "state"];
    let settings = ["goal=a plan", "capability=think", "rounds=1", "task=task.txt", "weight_cap=0.5"];
    let args: Vec<&str> =
        args.into_iter().chain(settings.into_iter().flat_map(|setting| ["--set", setting])).collect();
    let run = fedmill(&dir, &args);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let run = fedmill(&dir, &["plan", "run", "p.json"]);
    assert_eq!(run.stdout, "p.run/out/take_1/proposal\n", "{run:#?}");
    assert_eq!(String::from_utf8(dir.read("p.run/out/take_1/proposal")).unwrap(), "first idea");
    let asked = servers[1].asked();
    let prompt = |at: usize| asked[at].json()["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(prompt(0).starts_with("Goal: a plan\n\nTask:\nthe task with {braces}\n\n"), "{}", prompt(0));
    assert!(prompt(1).contains("Yours:\nsecond idea\n\nAnother, 1:\nfirst idea\n\n"), "{}", prompt(1));
    assert!(prompt(2).contains("p1:\nfirst idea\n\np2:\nsecond idea\n\n"), "{}", prompt(2));
    // A voter without a reply schema gets that of a ballot.
    assert_eq!(asked[2].json()["format"]["properties"]["option"]["enum"], json!(["p1", "p2"]));
}

fn model(server: &Server) -> Value {
    json!({"kind": "ollama", "url": server.url(), "model": "m", "capabilities": ["think"]})
}
