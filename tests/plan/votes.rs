//! Votes: what a count comes to, and what voters and a run do.

use super::Workflow;
use super::killed::wait_until;
use super::watch::start;
use crate::harness::{fedmill, fedmill_after};
use crate::rng::Rng;
use fedmill::plan::run::vote::{Tally, Voter, count};
use fedmill::schema::vote::Consensus;
use serde_json::{Value, json};

const OPTIONS: [&str; 3] = ["accept", "later", "reject"];

fn consensus(more: &Value) -> Consensus {
    let mut vote = json!({"capability": "v", "options": OPTIONS});
    let more = more.as_object().unwrap().clone();
    vote.as_object_mut().unwrap().extend(more);
    serde_json::from_value(vote).unwrap()
}

fn voters(ballots: &[(f64, &str)]) -> Vec<Voter> {
    let option = |option: &str| (!option.is_empty()).then(|| option.to_owned());
    ballots.iter().map(|(score, chosen)| Voter { score: *score, option: option(chosen) }).collect()
}

/// A vote with weights by score, its threshold, and voters of whom some abstain.
fn random_vote(rng: &mut Rng) -> (Consensus, f64, Vec<Voter>) {
    let percent = |rng: &mut Rng, from: u64| (from + rng.below(101 - from)) as f64 / 100.0;
    let (cap, quorum, threshold) = (percent(rng, 1), percent(rng, 0), percent(rng, 1));
    let vote = consensus(&json!({"weight_cap": cap, "quorum": quorum}));
    let voters = (0..rng.below(12)).map(|_| Voter {
        // Equal scores, so that shares tie.
        score: if rng.chance(50) { percent(rng, 0) } else { 0.5 },
        option: (!rng.chance(20)).then(|| OPTIONS[rng.below(3) as usize].to_owned()),
    });
    let voters = voters.collect();
    (vote, threshold, voters)
}

/// Weights by definition: `min(cap, t * score)`, with the `t` that halving finds so that they add up to 1.
fn oracle_weights(cap: f64, voters: &[Voter]) -> Vec<f64> {
    let with_weight = voters.iter().filter(|voter| voter.score > 0.0).count() as f64;
    if cap * with_weight <= 1.0 {
        let equal = |voter: &Voter| if voter.score > 0.0 { 1.0 / with_weight } else { 0.0 };
        return voters.iter().map(equal).collect();
    }
    let at = |t: f64| voters.iter().map(|voter| (t * voter.score).min(cap)).collect::<Vec<f64>>();
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if at(middle).iter().sum::<f64>() < 1.0 { low = middle } else { high = middle }
    }
    at(high)
}

/// The winner by definition.
fn oracle_winner(vote: &Consensus, threshold: f64, voters: &[Voter]) -> Option<&'static str> {
    let weights = oracle_weights(vote.weight_cap, voters);
    let share = |option: &str| {
        let chose = |voter: &Voter| f64::from(u8::from(voter.option.as_deref() == Some(option)));
        voters.iter().zip(&weights).map(|(voter, weight)| chose(voter) * weight).sum::<f64>()
    };
    let shares = OPTIONS.map(share);
    let answered: f64 = shares.iter().sum();
    let wins = |place: &usize| {
        let share = shares[*place];
        let others = (0..3).filter(|other| other != place).map(|other| shares[other]);
        share >= threshold - 1e-9 && share > 0.0 && others.into_iter().all(|other| share > other + 1e-9)
    };
    (0..3).find(wins).filter(|_| answered >= vote.quorum - 1e-9).map(|place| OPTIONS[place])
}

#[test]
fn a_count_is_what_its_definition_says() {
    let mut rng = Rng::new(1);
    let mut won = 0;
    for round in 0..5000 {
        let (vote, threshold, voters) = random_vote(&mut rng);
        let Tally { weights, winner, .. } = count(&vote, threshold, &voters);
        for (found, expected) in weights.iter().zip(oracle_weights(vote.weight_cap, &voters)) {
            assert!((found - expected).abs() < 1e-9, "round {round}: {weights:?} {voters:?}");
        }
        let expected = oracle_winner(&vote, threshold, &voters);
        assert_eq!(winner.ok().as_deref(), expected, "round {round}: {vote:?} {threshold} {voters:?}");
        won += u32::from(expected.is_some());
    }
    assert!((500..4500).contains(&won), "{won} of 5000 votes had a winner");
}

#[test]
fn no_voter_has_more_than_the_cap() {
    let mut rng = Rng::new(2);
    let mut kept = 0;
    for _ in 0..5000 {
        let (vote, threshold, voters) = random_vote(&mut rng);
        let weights = count(&vote, threshold, &voters).weights;
        let positive = weights.iter().filter(|weight| **weight > 0.0).count() as f64;
        // Voters that are too few for the cap have equal weights.
        let most = vote.weight_cap.max(1.0 / positive);
        assert!(weights.iter().all(|weight| *weight <= most + 1e-12), "{vote:?} {weights:?}");
        let all: f64 = weights.iter().sum();
        assert!(weights.is_empty() || positive == 0.0 || (all - 1.0).abs() < 1e-9, "{weights:?}");
        kept += u32::from(weights.contains(&vote.weight_cap));
    }
    assert!(kept > 200, "the cap held in {kept} votes");
}

#[test]
fn the_order_of_voters_changes_no_bit() {
    let mut rng = Rng::new(3);
    for _ in 0..2000 {
        let (vote, threshold, mut voters) = random_vote(&mut rng);
        let before = count(&vote, threshold, &voters);
        for place in (1..voters.len()).rev() {
            voters.swap(place, rng.below(place as u64 + 1) as usize);
        }
        let after = count(&vote, threshold, &voters);
        assert_eq!(
            (before.shares, before.answered, before.winner),
            (after.shares, after.answered, after.winner)
        );
    }
}

#[test]
fn more_weight_for_a_voter_takes_nothing_from_its_option() {
    let mut rng = Rng::new(4);
    let mut grew = 0;
    for _ in 0..5000 {
        let (vote, threshold, mut voters) = random_vote(&mut rng);
        let Some(place) = (0..voters.len()).find(|place| voters[*place].option.is_some()) else { continue };
        let option = voters[place].option.clone().unwrap();
        let before = count(&vote, threshold, &voters);
        // A voter whose weight was 0 makes one more among whom the cap divides the weight.
        if voters[place].score == 0.0 {
            continue;
        }
        voters[place].score += (1.0 - voters[place].score) * rng.below(100) as f64 / 100.0;
        let after = count(&vote, threshold, &voters);
        assert!(after.shares[&option] >= before.shares[&option] - 1e-12, "{vote:?} {voters:?}");
        grew += u32::from(after.shares[&option] > before.shares[&option] + 1e-9);
        if before.winner.as_ref() == Ok(&option) {
            assert_eq!(after.winner, Ok(option), "{vote:?} {voters:?}");
        }
    }
    assert!(grew > 1000, "the share grew in {grew} votes");
}

#[test]
fn thresholds_ties_and_quorums_hold_to_the_letter() {
    let count = |more: Value, threshold: f64, ballots: &[(f64, &str)]| {
        let Tally { winner, .. } = count(&consensus(&more), threshold, &voters(ballots));
        winner.unwrap_or_else(|why| format!("none: {why}"))
    };
    let of_ten = |accept: usize, rest: &'static str| {
        let option = move |place: usize| if place < accept { "accept" } else { rest };
        (0..10).map(|place| (0.3, option(place))).collect::<Vec<_>>()
    };
    for (more, threshold, ballots, expected) in [
        (json!({}), 0.7, of_ten(7, "reject"), "accept"),
        (
            json!({}),
            0.7,
            of_ten(6, "reject"),
            "none: no option has 0.7 of all weight: accept 0.6, later 0, reject 0.4",
        ),
        // Who abstains counts against each option.
        (
            json!({}),
            0.7,
            of_ten(6, ""),
            "none: no option has 0.7 of all weight: accept 0.6, later 0, reject 0",
        ),
        (
            json!({"quorum": 0.61}),
            0.1,
            of_ten(6, ""),
            "none: those who answered carry 0.6 of all weight, and the quorum is 0.61",
        ),
        (json!({"quorum": 0.6}), 0.6, of_ten(6, ""), "accept"),
        (json!({}), 0.5, of_ten(5, "reject"), "none: a tie: accept and reject have 0.5 of all weight each"),
        (json!({"quorum": 0}), 0.5, of_ten(0, ""), "none: no voter with weight answered"),
        (json!({}), 0.5, vec![], "none: no voter with weight answered"),
        // 0.9 of 1.5 alone would win; with the cap, it has as much as the other two.
        (
            json!({"weight_cap": 0.5}),
            0.5,
            vec![(0.9, "accept"), (0.3, "reject"), (0.3, "reject")],
            "none: a tie: accept and reject have 0.5 of all weight each",
        ),
        (json!({"weight_cap": 1}), 0.6, vec![(0.9, "accept"), (0.3, "reject"), (0.3, "reject")], "accept"),
        (
            json!({"weight_cap": 1, "weight": "equal"}),
            0.6,
            vec![(0.9, "accept"), (0.3, "reject"), (0.3, "reject")],
            "reject",
        ),
        // ln(0.9 / 0.1) is 2.197, and twice ln(0.6 / 0.4) is 0.811.
        (
            json!({"weight_cap": 1, "weight": "log_odds"}),
            0.72,
            vec![(0.9, "accept"), (0.6, "reject"), (0.6, "reject")],
            "accept",
        ),
        (
            json!({"weight_cap": 1, "weight": "log_odds"}),
            0.74,
            vec![(0.9, "accept"), (0.6, "reject"), (0.6, "reject")],
            "none: no option has 0.74 of all weight: accept 0.73, later 0, reject 0.27",
        ),
        // A voter that is right in half of all cases, or fewer, has no weight.
        (
            json!({"weight": "log_odds"}),
            0.1,
            vec![(0.5, "accept"), (0.2, "accept")],
            "none: no voter with weight answered",
        ),
        // A score of 1 counts as 0.999999, whose log-odds are 13.8; those of 0.999 are 6.9.
        (
            json!({"weight_cap": 1, "weight": "log_odds"}),
            0.66,
            vec![(1.0, "accept"), (0.999, "reject")],
            "accept",
        ),
        (
            json!({"weight_cap": 1, "weight": "log_odds"}),
            0.68,
            vec![(1.0, "accept"), (0.999, "reject")],
            "none: no option has 0.68 of all weight: accept 0.667, later 0, reject 0.333",
        ),
        // Eight tenths add up to less than 0.8 in f64.
        (json!({}), 0.8, of_ten(8, "reject"), "accept"),
        (
            json!({}),
            0.800_001,
            of_ten(8, "reject"),
            "none: no option has 0.8 of all weight: accept 0.8, later 0, reject 0.2",
        ),
    ] {
        assert_eq!(count(more.clone(), threshold, &ballots), expected, "{more} {threshold} {ballots:?}");
    }
}

/// A vote of agents that run these commands, with these scores, between `accept` and `reject`.
fn vote(more: &Value, voters: &[(&str, f64)]) -> Workflow {
    let mut consensus = json!({"capability": "review", "options": ["accept", "reject"], "weight_cap": 0.5});
    consensus.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let stages = json!([
        {"id": "vote", "consensus": consensus},
        {"id": "yes", "branch": "accept", "needs": ["vote"], "sh": "true"},
        {"id": "no", "branch": "reject", "needs": ["vote"], "sh": "true"},
        {"id": "end", "when": "choices.vote == 'accept'", "needs": ["vote", "yes", "no"], "agent": "shell",
         "argv": ["echo {vote}; cat \"$@\"", "sh", "{vote.reply}"], "out": [{"name": "o", "path": "-"}]},
    ]);
    let mut plan = Workflow::new(&stages);
    for (place, (command, score)) in voters.iter().enumerate() {
        let agent = json!({"kind": "command", "argv": ["sh", "-c", command], "capabilities": ["review"], "score": score});
        plan = plan.with(&format!("agents.v{place}"), agent);
    }
    plan
}

const ACCEPT: &str = "echo '{\"option\": \"accept\", \"reason\": \"good\"}'";
const REJECT: &str = "echo '{\"option\": \"reject\"}'";

fn row(plan: &Workflow) -> Value {
    let run = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    status["stages"][0].clone()
}

#[test]
fn the_option_that_wins_chooses_the_branch() {
    let plan = vote(&json!({"threshold": 0.6}), &[(ACCEPT, 0.9), (ACCEPT, 0.5), (REJECT, 0.8)]);
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(plan.states(), "vote ok, yes ok, no skipped, end ok");
    let text = plan.output("end/o");
    assert!(text.starts_with("accept\n") && text.contains("\"reason\": \"good\""), "{text}");
    let row = row(&plan);
    assert_eq!(row["choice"], "accept");
    assert_eq!(
        row["ballots"][1],
        json!({"agent": "v2", "weight": 4.0 / 11.0, "option": "reject", "why": null}),
        "{row}"
    );
    // The journal has the weights and the shares.
    let journal = String::from_utf8(plan.dir.read("plan.run/events.jsonl")).unwrap();
    assert!(
        journal.contains(r#""shares":{"accept":0.6363636363636364,"reject":0.36363636363636365}"#),
        "{journal}"
    );
}

#[test]
fn a_ballot_that_is_no_ballot_is_an_abstention_on_record() {
    let voters = [
        (ACCEPT, 0.9),
        ("sleep 20", 0.8),
        ("exit 3", 0.7),
        ("echo accept", 0.6),
        ("echo '{\"option\": \"maybe\"}'", 0.5),
        ("echo '{\"vote\": \"accept\"}'", 0.4),
        ("head -c 2000000 /dev/zero", 0.3),
    ];
    let plan = vote(&json!({"quorum": 0.1, "threshold": 0.2, "timeout": "1s"}), &voters);
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let row = row(&plan);
    let ballots = row["ballots"].as_array().unwrap();
    assert_eq!(ballots[0]["option"], "accept");
    for (place, expected) in [
        (1, "took longer than 1 s"),
        (2, "exited with status 3"),
        (3, "the reply does not fit: is no JSON"),
        (4, "the reply does not fit: $.option: found \"maybe\", expected one of \"accept\", \"reject\""),
        (5, "the reply does not fit: $.option: is missing"),
        (6, "the reply does not fit: found 2000000 bytes, expected at most 1048576"),
    ] {
        assert_eq!(ballots[place]["option"], Value::Null);
        let why = ballots[place]["why"].as_str().unwrap();
        assert!(why.starts_with(expected), "{why}");
    }
}

#[test]
fn a_vote_without_a_winner_ends_as_the_plan_says() {
    let voters = [(ACCEPT, 0.9), (REJECT, 0.9)];
    let plan = vote(&json!({}), &voters);
    plan.run().assert_fails(2, &["stage `vote`: no consensus: a tie: accept and reject have 0.5"]);
    let plan = vote(&json!({"on_no_consensus": "fallback", "fallback": "reject"}), &voters);
    assert_eq!(plan.run().code, Some(0));
    assert_eq!(plan.states(), "vote ok, yes skipped, no ok, end skipped");
    assert!(row(&plan)["why"].as_str().unwrap().starts_with("no consensus: a tie"));
    for (answer, voters, code, states) in [
        (
            "approve",
            vec![(ACCEPT, 0.2), (REJECT, 0.2), (REJECT, 0.2)],
            0,
            "vote ok, yes skipped, no ok, end skipped",
        ),
        (
            "reject",
            vec![(ACCEPT, 0.2), (REJECT, 0.2), (REJECT, 0.2)],
            1,
            "vote failed, yes not run, no not run, end not run",
        ),
        // With a winner the person is not asked.
        (
            "reject",
            vec![(ACCEPT, 0.2), (ACCEPT, 0.2), (ACCEPT, 0.2)],
            0,
            "vote ok, yes ok, no skipped, end ok",
        ),
    ] {
        let plan = vote(&json!({"on_no_consensus": "gate"}), &voters)
            .with("stages.0.gate", json!({"timeout": "20s", "default": "reject"}));
        plan.dir.write("plan.run/gates/vote", answer);
        let run = plan.run();
        assert_eq!((run.code, plan.states().as_str()), (Some(code), states), "{run:#?}");
    }
}

#[test]
fn a_vote_that_does_not_please_its_condition_failed() {
    let plan = vote(&json!({"threshold": 0.6}), &[(REJECT, 0.9), (REJECT, 0.5), (ACCEPT, 0.8)])
        .with("stages.0.success_when", json!("choices.vote == 'accept'"));
    plan.run()
        .assert_fails(2, &["stage `vote`: success_when does not hold for {\"choices.vote\":\"reject\"}"]);
}

#[test]
fn a_voter_who_answered_is_not_asked_again() {
    // The last voter ends the runner the first time.
    let ends = "test -e $HOME/ended || { touch $HOME/ended; kill -9 $PPID; sleep 20; }; ";
    let log = |name: &str, rest: &str| format!("echo {name} >> $HOME/log; {rest}");
    let commands = [log("a", ACCEPT), log("b", "exit 1"), format!("{ends}{}", log("c", ACCEPT))];
    let voters: Vec<(&str, f64)> = commands.iter().map(String::as_str).zip([0.9, 0.8, 0.7]).collect();
    let plan = vote(&json!({"threshold": 0.6}), &voters).with("limits.max_parallel", json!(1));
    plan.write();
    let home = format!("export HOME={}", plan.dir.path("").display());
    let run = fedmill_after(&plan.dir, &home, &["plan", "run", "plan.json"]);
    assert_eq!(run.code, None, "{run:#?}");
    let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(String::from_utf8(plan.dir.read("log")).unwrap(), "a\nb\nc\n");
    assert_eq!(row(&plan)["choice"], "accept");
}

#[test]
fn a_ballot_that_the_runner_cut_short_says_nothing_of_its_voter() {
    // As an abstention it would leave the first voter the winner.
    let late = format!("test -e $HOME/mended || {{ touch $HOME/asked-$FEDMILL_STAGE; sleep 60; }}; {REJECT}");
    let plan = vote(&json!({"quorum": 0.1, "threshold": 0.3}), &[(ACCEPT, 0.9), (&late, 0.8), (&late, 0.7)]);
    let mut runner = start(&plan);
    let asked = || ["1", "2"].iter().all(|voter| plan.dir.exists(&format!("asked-vote.{voter}")));
    wait_until("the other ballots", asked);
    plan.dir.write("plan.run/STOP", "");
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    assert_eq!(plan.states(), "vote cancelled, yes not run, no not run, end not run");
    std::fs::remove_file(plan.dir.path("plan.run/STOP")).unwrap();
    plan.dir.write("mended", "");
    let home = format!("export HOME={}", plan.dir.path("").display());
    let run = fedmill_after(&plan.dir, &home, &["plan", "resume", "plan.run"]);
    assert_eq!((run.code, row(&plan)["choice"].as_str()), (Some(0), Some("reject")), "{run:#?}");
}
