//! `fedmill privacy compose` and `calibrate`: their numbers, and their refusals.

use crate::harness::{Dir, fedmill};
use serde_json::Value;

#[track_caller]
fn printed(dir: &Dir, args: &[&str]) -> Value {
    let run = fedmill(dir, &[&["privacy"], args, &["--json"]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    serde_json::from_str(&run.stdout).unwrap()
}

const PLAN: [&str; 8] =
    ["--noise-multiplier", "1.3", "--sampling-rate", "0.0025", "--rounds", "6000", "--delta", "1e-5"];

#[test]
fn both_accountants_compute_a_plan() {
    let dir = Dir::new();
    let found = printed(&dir, &[&["compose"], &PLAN[..]].concat());
    let (rdp, pld) = (found["epsilon_rdp"].as_f64().unwrap(), found["epsilon_pld"].as_f64().unwrap());
    assert!((rdp - 0.724_223_402_610_959_5).abs() < 1e-9, "{found}");
    assert!((0.640..0.6404).contains(&pld), "{found}");
    assert_eq!(found["order"], 19.0);
    assert_eq!(found["slack"], Value::Null);
    assert!(found["assumptions"].as_array().unwrap().len() >= 3);
}

#[test]
fn a_table_is_for_people() {
    let run = fedmill(&Dir::new(), &[&["privacy", "compose", "--dimension", "1000000"], &PLAN[..]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    for part in
        ["0.724678", "0.724224", "order 19", "slack of discrete noise", "1.635e-2", "Neighbours: with and without one client"]
    {
        assert!(run.stdout.contains(part), "{part}: {run:#?}");
    }
}

#[test]
fn nothing_is_free_and_no_noise_is_infinite() {
    let dir = Dir::new();
    for free in [["1", "0.1", "0"], ["1", "0", "100"], ["0", "0", "3"]] {
        let [z, q, rounds] = free;
        let args =
            ["compose", "--noise-multiplier", z, "--sampling-rate", q, "--rounds", rounds, "--delta", "1e-5"];
        let found = printed(&dir, &args);
        assert_eq!((&found["epsilon_rdp"], &found["epsilon_pld"]), (&0.0.into(), &0.0.into()), "{found}");
    }
    let found = printed(&dir, &["compose", "--noise-multiplier", "0", "--delta", "1e-5"]);
    assert_eq!((&found["epsilon_rdp"], &found["epsilon_pld"]), (&"infinity".into(), &"infinity".into()));
}

#[test]
fn events_are_read_as_a_tree_or_a_list() {
    let dir = Dir::new();
    let event = r#"{"class_name": "SelfComposedDpEvent", "count": 6000, "event": {"class_name": "PoissonSampledDpEvent",
        "sampling_probability": 0.0025, "event": {"class_name": "GaussianDpEvent", "noise_multiplier": 1.3}}}"#;
    dir.write("tree.json", event);
    dir.write("list.json", format!("[{event}]"));
    let plan = printed(&dir, &[&["compose"], &PLAN[..]].concat());
    for file in ["tree.json", "list.json"] {
        let found = printed(&dir, &["compose", "--events", file, "--delta", "1e-5"]);
        assert_eq!(found["epsilon_rdp"], plan["epsilon_rdp"]);
        assert_eq!(found["epsilon_pld"], plan["epsilon_pld"]);
    }
}

#[test]
fn unknown_events_are_refused_by_name() {
    let dir = Dir::new();
    dir.write("laplace.json", r#"[{"class_name": "LaplaceDpEvent", "noise_multiplier": 1.0}]"#);
    let run = fedmill(&dir, &["privacy", "compose", "--events", "laplace.json", "--delta", "1e-5"]);
    run.assert_fails(2, &["laplace.json", "LaplaceDpEvent"]);
    let gone = fedmill(&dir, &["privacy", "compose", "--events", "gone.json", "--delta", "1e-5"]);
    gone.assert_fails(2, &["gone.json"]);
}

#[test]
fn sampling_that_does_not_fit_the_neighbours_is_refused() {
    let args = [&["privacy", "compose", "--adjacency", "replace-one"], &PLAN[..]].concat();
    fedmill(&Dir::new(), &args)
        .assert_fails(2, &["PoissonSampledDpEvent", "replace-one", "add-or-remove-one"]);
    let args = [&["privacy", "compose", "--sampling", "without-replacement"], &PLAN[..]].concat();
    fedmill(&Dir::new(), &args).assert_fails(2, &["--population"]);
}

#[test]
fn a_fixed_number_of_clients_means_replace_one() {
    let sampling = ["compose", "--sampling", "without-replacement", "--population", "60000"];
    let found = printed(&Dir::new(), &[&sampling, &PLAN[..]].concat());
    assert_eq!(found["adjacency"], "replace-one");
    assert!(found["epsilon_pld"].as_f64().unwrap() < found["epsilon_rdp"].as_f64().unwrap());
}

#[test]
fn delta_is_computed_at_an_epsilon() {
    let args =
        ["compose", "--noise-multiplier", "0.5", "--sampling-rate", "0.2", "--rounds", "3", "--epsilon", "1"];
    let delta = printed(&Dir::new(), &args)["delta_pld"].as_f64().unwrap();
    assert!((delta - 0.155_94).abs() < 2e-4, "{delta}");
}

#[test]
fn epsilon_is_drawn_against_rounds() {
    let dir = Dir::new();
    for name in ["plot.svg", "plot.png"] {
        let args = [
            "compose",
            "--noise-multiplier",
            "2",
            "--sampling-rate",
            "0.1",
            "--rounds",
            "50",
            "--plot",
            name,
        ];
        printed(&dir, &[&args[..], &["--delta", "1e-5"]].concat());
        assert!(dir.read(name).len() > 1000);
    }
    let svg = String::from_utf8(dir.read("plot.svg")).unwrap();
    assert!(svg.contains("epsilon by rounds") && svg.contains("loss distribution"));
}

#[test]
fn calibrate_solves_for_the_option_left_out() {
    let dir = Dir::new();
    let common = ["calibrate", "--delta", "1e-5", "--sampling-rate", "0.04"];
    let noise = printed(&dir, &[&common[..], &["--epsilon", "8", "--rounds", "2000"]].concat());
    let multiplier = noise["noise_multiplier"].as_f64().unwrap();
    assert!((multiplier - 1.29).abs() < 2e-3, "{noise}");
    assert!((7.99..=8.0).contains(&noise["epsilon"].as_f64().unwrap()), "{noise}");
    let text = multiplier.to_string();
    let rounds = printed(&dir, &[&common[..], &["--epsilon", "8", "--noise-multiplier", &text]].concat());
    assert!((2000..2003).contains(&rounds["rounds"].as_u64().unwrap()), "{rounds}");
    let both = [&common[..], &["--rounds", "2000", "--noise-multiplier", &text]].concat();
    assert_eq!(printed(&dir, &both)["epsilon"], noise["epsilon"]);
    let by_rdp = [&common[..], &["--epsilon", "8", "--rounds", "2000", "--accountant", "rdp"]].concat();
    assert!((printed(&dir, &by_rdp)["noise_multiplier"].as_f64().unwrap() - 1.3562).abs() < 2e-3);
}

#[test]
fn calibrate_needs_exactly_two_options() {
    let common = ["privacy", "calibrate", "--delta", "1e-5", "--rounds", "10"];
    fedmill(&Dir::new(), &common).assert_fails(2, &["two of the three"]);
    let all = [&common[..], &["--epsilon", "1", "--noise-multiplier", "1"]].concat();
    fedmill(&Dir::new(), &all).assert_fails(2, &["two of the three"]);
    let coarse = [&common[..], &["--epsilon", "1e-3", "--dimension", "100000000"]].concat();
    fedmill(&Dir::new(), &coarse).assert_fails(2, &["slack", "--level 3"]);
}
