//! The plan of the next round that `aggregate --plan-out` and `round run` write, and its run.

use super::new::round;
use crate::harness::{Dir, Run, Update, fedmill, fedmill_after};
use serde_json::{Value, json};

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn ok(dir: &Dir, command: &str) -> Run {
    let run = fedmill(dir, &words(command));
    assert_eq!(run.code, Some(0), "{command}: {run:#?}");
    run
}

/// Puts other updates where the last ones lie.
fn next_updates(dir: &Dir, to: &str, least: f32) {
    for client in 0..5_i16 {
        let values: Vec<f32> = (0..4_i16).map(|at| least + f32::from(client + at) / 4.0).collect();
        Update::new(&format!("{to}/c{client}")).f32("w", &[4], &values).write(dir);
    }
}

#[test]
fn the_plan_repeats_the_command_from_the_merged_model() {
    let dir = round();
    let rule = "--rule krum --byzantine 1 --pre bucketing:s=1";
    ok(
        &dir,
        &format!(
            "aggregate -q in {rule} --base base.safetensors --seed 7 --plan-out next.json -o m.safetensors"
        ),
    );
    let plan = dir.json("next.json");
    assert_eq!(plan["params"], json!({"seed": 8}));
    let inputs = plan["inputs"].as_array().unwrap();
    let base = inputs.iter().find(|input| input["name"] == "base").unwrap();
    assert!(base["pin"]["m.safetensors"].as_str().unwrap().starts_with("blake3:"), "{base}");
    let lint = ok(&dir, "plan lint next.json --json").stdout;
    assert_eq!(serde_json::from_str::<Value>(&lint).unwrap()["findings"], json!([]), "{lint}");

    next_updates(&dir, "in", 2.0);
    ok(&dir, "plan run -q next.json");
    ok(&dir, &format!("aggregate -q in {rule} --base m.safetensors --seed 8 -o w.safetensors"));
    assert_eq!(dir.read("next.run/out/aggregate/m.safetensors"), dir.read("w.safetensors"));

    Update::new("m").f32("w", &[4], &[9.0; 4]).write(&dir);
    let run = fedmill(&dir, &words("plan run next.json --dir other"));
    run.assert_fails(2, &["input `base`: m.safetensors: found blake3:", "and the plan pins blake3:"]);
}

#[test]
fn a_plan_that_could_not_be_run_is_refused_before_the_merge() {
    let dir = round();
    let command = "aggregate in --base base.safetensors -o m.safetensors --plan-out";
    let run = fedmill(&dir, &words(&format!("{command} plans/next.json")));
    run.assert_fails(2, &["--plan-out plans/next.json: found the file ", "expected one below "]);
    assert!(!dir.exists("m.safetensors") && !dir.exists("plans/next.json"));
}

const INIT: &str = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
                    --denominator 3 --base base.safetensors --sampling all";

/// What is spent of the budget, and the number of its charges.
fn spent(dir: &Dir) -> (f64, f64, u64) {
    let status: Value = serde_json::from_str(&ok(dir, "privacy status dp --json").stdout).unwrap();
    let number = |key: &str| status[key].as_f64().unwrap();
    (number("epsilon_spent"), number("epsilon_next"), status["charges"].as_u64().unwrap())
}

#[test]
fn the_plan_of_a_private_round_charges_the_budget_and_stops_at_it() {
    let dir = round();
    ok(&dir, INIT);
    let release = "aggregate -q in --base base.safetensors --dp dp";
    ok(&dir, &format!("{release} --plan-out next.json -o m.safetensors"));
    let mut plan = dir.json("next.json");
    assert_eq!((&plan["limits"]["eps"], &plan["limits"]["delta"]), (&json!(50.0), &json!(0.001)));
    next_updates(&dir, "in", 2.0);
    let (once, next, charges) = spent(&dir);
    assert!(charges == 1 && once < next, "{once} {next}");

    // A limit below what the round would cost: nothing is charged.
    plan["limits"]["eps"] = json!((once + next) / 2.0);
    dir.write("less.json", plan.to_string());
    let run = fedmill(&dir, &words("plan run less.json"));
    run.assert_fails(
        1,
        &["the ledgers of the run come to epsilon ", "past limits.eps, ", "with stage `aggregate`"],
    );
    assert_eq!(spent(&dir), (once, next, 1));
    plan["limits"]["eps"] = json!(50.0);
    plan["limits"]["delta"] = json!(1e-4);
    dir.write("delta.json", plan.to_string());
    fedmill(&dir, &words("plan run delta.json")).assert_fails(1, &["delta 1e-3, past limits.delta, 1e-4"]);

    ok(&dir, "plan run -q next.json");
    let (twice, _, charges) = spent(&dir);
    assert_eq!((twice, charges), (next, 2), "the forecast of the next round is what it costs");
    let status: Value = serde_json::from_str(&ok(&dir, "plan status next.run --json").stdout).unwrap();
    let eps = status["limits"].as_array().unwrap().iter().find(|row| row["limit"] == "eps").unwrap();
    assert_eq!((&eps["used"], &eps["bound"]), (&json!(twice), &json!(50.0)));
}

#[test]
fn a_charge_past_the_limit_is_not_made_however_its_command_is_spelled() {
    let dir = round();
    ok(&dir, INIT);
    let (before, next, _) = spent(&dir);
    let dp = dir.path("dp").to_str().unwrap().to_owned();
    // What a spend with this noise costs is above what the budget's plan foresees.
    let more = ["--noise-multiplier", "1"];
    let program = crate::harness::program();
    let shell = format!("exec {program} privacy --log-format json spend \"$@\"");
    let reserve = format!("exec {program} privacy spend --reserve \"$@\"");
    for (number, before_dp) in [
        vec!["fedmill", "privacy", "spend"],
        vec!["fedmill", "-q", "privacy", "spend"],
        vec!["fedmill", "privacy", "-q", "spend"],
        vec!["sh", "-c", &shell, "sh"],
        // A reserve takes its part of the budget as a charge does.
        vec!["fedmill", "privacy", "spend", "--reserve"],
        vec!["sh", "-c", &reserve, "sh"],
    ]
    .into_iter()
    .enumerate()
    {
        let plan = json!({"schema": "fedmill.plan/1", "id": "p", "limits": {"timeout": {"run": "1m"}, "eps": next * 1.01, "delta": 1e-3},
            "agents": {"charge": {"kind": "command", "argv": before_dp}, "fedmill": {"kind": "command", "argv": ["fedmill"]}},
            "stages": [{"id": "spend", "agent": "charge", "argv": [dp, more[0], more[1]]},
                {"id": "after", "needs": ["spend"], "agent": "fedmill", "argv": ["--version"]}]});
        let name = format!("p{number}");
        dir.write(&format!("{name}.json"), plan.to_string());
        // A resumed run has no more epsilon.
        for _ in 0..2 {
            let run = fedmill(&dir, &words(&format!("plan run {name}.json")));
            run.assert_fails(1, &["refused: the ledgers of the run come to epsilon ", "past limits.eps"]);
            assert_eq!(spent(&dir).0, before, "{before_dp:?}");
        }
        let status = ok(&dir, &format!("plan status {name}.run --json"));
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let state = |stage: usize| status["stages"][stage]["state"].as_str().unwrap();
        assert_eq!((state(0), state(1)), ("failed", "not run"));
    }
    // Two ledgers count together, also where the runner sees neither.
    ok(&dir, &INIT.replace("init dp", "init other"));
    let other = dir.path("other").to_str().unwrap().to_owned();
    let spend =
        |id: &str, dp: &str| json!({"id": id, "agent": "quiet", "argv": [dp, "--noise-multiplier", "2"]});
    let mut plan = json!({"schema": "fedmill.plan/1", "id": "two", "limits": {"timeout": {"run": "1m"}, "eps": next * 1.5,
        "delta": 1e-2, "max_parallel": 1}, "agents": {"quiet": {"kind": "command", "argv": ["fedmill", "-q", "privacy", "spend"]}},
        "stages": [spend("first", &dp), spend("second", &other)]});
    dir.write("two.json", plan.to_string());
    let run = fedmill(&dir, &words("plan run two.json"));
    run.assert_fails(1, &["refused: the ledgers of the run come to epsilon ", "with stage `second`"]);
    assert!(spent(&dir).0 > before);
    plan["limits"]["eps"] = json!(next * 4.0);
    dir.write("enough.json", plan.to_string());
    ok(&dir, "plan run -q enough.json --dir enough");
}

#[test]
fn each_run_of_a_federation_leaves_the_plan_of_its_next_round() {
    let dir = round();
    let client = r#"{"node_id":"ID","compute_capability":1,"data_size":10,"connection_quality":1}"#;
    let rows: Vec<String> = (0..5).map(|id| client.replace("ID", &format!("c{id}"))).collect();
    dir.write("clients.jsonl", rows.join("\n"));
    ok(&dir, "round init fed --model base.safetensors");
    ok(&dir, "clients import fed clients.jsonl");
    dir.write("fed/fedmill.toml", "[coordination]\nmin_clients = 2\nclients = 5\nseed = 3\n");
    ok(&dir, "round run fed --phase open --backend cpu");
    next_updates(&dir, "fed/inbox/000001", 2.0);
    ok(&dir, "round run fed --rounds 1 --backend cpu");
    let lint = ok(&dir, "plan lint fed/next.plan.json --json").stdout;
    assert_eq!(serde_json::from_str::<Value>(&lint).unwrap()["findings"], json!([]), "{lint}");
    let plan = dir.json("fed/next.plan.json");
    // No client may learn the seed of the selection, and no stage needs it.
    assert!(plan["params"].is_null(), "{plan}");
    dir.write("old.plan.json", plan.to_string());
    let before = std::fs::read_link(dir.path("fed/current.safetensors")).unwrap();
    assert!(plan.to_string().contains(before.to_str().unwrap()));

    ok(&dir, "round run fed --phase open --backend cpu");
    next_updates(&dir, "fed/inbox/000002", 3.0);
    std::fs::copy(dir.path("fed/next.plan.json"), dir.path("fed/old.plan.json")).unwrap();
    let run = ok(&dir, "plan run -q fed/next.plan.json");
    let after = std::fs::read_link(dir.path("fed/current.safetensors")).unwrap();
    assert_ne!(before, after, "{run:#?}");
    assert!(dir.read("fed/next.plan.json") != plan.to_string().as_bytes());
    assert!(dir.json("fed/next.plan.json").to_string().contains(after.to_str().unwrap()));
    ok(&dir, "round verify fed");
    // The plan of a round that is over runs no other round.
    let run = fedmill(&dir, &words("plan run fed/old.plan.json"));
    run.assert_fails(2, &["stage `round`: exited with status 1", "another round ran since, or a rollback"]);
    // So does a run of it whose runner was killed while the round went on.
    let journal = dir.read("fed/old.plan.run/events.jsonl");
    let begun = journal.split_inclusive(|byte| *byte == b'\n').take(2).collect::<Vec<_>>().concat();
    assert!(String::from_utf8_lossy(&begun).contains("\"begin\""));
    dir.write("fed/old.plan.run/events.jsonl", begun);
    let run = fedmill(&dir, &words("plan resume fed/old.plan.run"));
    run.assert_fails(2, &["another round ran since, or a rollback"]);
    assert_eq!(std::fs::read_link(dir.path("fed/current.safetensors")).unwrap(), after);
}

#[test]
fn an_update_whose_name_is_not_utf8_is_in_no_plan() {
    let dir = round();
    let name = "$(printf 'in/c\\377.safetensors')";
    let command = words("aggregate --base base.safetensors -o m.safetensors --plan-out next.json");
    let message = "in/c\\xff.safetensors: the name is not UTF-8";
    for updates in ["in", "in/c0.safetensors", name] {
        let setup = format!("cp in/c1.safetensors \"{name}\" && set -- \"$@\" \"{updates}\"");
        let run = fedmill_after(&dir, &setup, &command);
        run.assert_fails(2, &["--plan-out next.json: ", message]);
        assert!(!dir.exists("m.safetensors") && !dir.exists("next.json"));
    }
}
