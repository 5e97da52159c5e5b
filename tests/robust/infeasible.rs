//! Settings that are infeasible for every rule.
//!
//! Each ends the run with status 2 and a reason, and leaves the folder unchanged.

use super::{Round, bulyans_most, krums_most, less_than_half, tolerant, write_round};
use crate::bad_request::assert_ends;
use crate::harness::{fedmill, shortest};
use fedmill::rules::pre::{self, STEPS};

fn round(clients: usize) -> Round {
    (0..clients).map(|i| vec![i as f32, 1.0, -2.0]).collect()
}

#[track_caller]
fn assert_refused(clients: usize, args: &[&str], parts: &[&str]) {
    let dir = write_round(&round(clients));
    assert_ends(
        &dir,
        &[&["aggregate", "in", "-o", "merged.safetensors", "--report", "r.json"], args].concat(),
        parts,
    );
}

#[test]
fn more_hostile_than_a_rule_stands() {
    for (rule, most) in tolerant() {
        for clients in [3, 4, 7, 8, 11, 20] {
            let most = most(clients);
            let said = format!("tolerates at most {most} hostile of {clients} clients");
            for f in [most + 1, clients, 1000] {
                let name = rule.split(':').next().unwrap();
                assert_refused(clients, &["--rule", &rule, "--byzantine", &f.to_string()], &[name, &said]);
            }
        }
    }
}

/// Krum by the definitions of two libraries: ByzFL needs an honest majority, Flower one honest client.
#[test]
fn as_many_hostile_as_a_librarys_rule_stands_and_no_more() {
    for (library, most) in
        [("byzfl", less_than_half as fn(usize) -> usize), ("flower", |clients| clients - 1)]
    {
        for rule in ["krum", "multi-krum"] {
            for clients in [3, 4, 8] {
                let most = most(clients);
                let args = ["--rule", rule, "--compat", library, "--byzantine"];
                let said = format!("tolerates at most {most} hostile of {clients} clients");
                assert_refused(clients, &[&args[..], &[&(most + 1).to_string()]].concat(), &[rule, &said]);
                let dir = write_round(&round(clients));
                let fixed = ["aggregate", "in", "-q", "-o", "merged.safetensors"];
                let run = fedmill(&dir, &[&fixed, &args[..], &[&most.to_string()]].concat());
                run.assert_merged("merged.safetensors");
            }
        }
    }
}

#[test]
fn more_hostile_than_a_step_stands() {
    let mut refused = Vec::new();
    for entry in STEPS {
        let step = shortest(entry, "");
        // This step tolerates any number, so the rule decides.
        if pre::parse(&step).unwrap().tolerates(7) == 7 {
            continue;
        }
        for f in ["4", "5", "7", "8"] {
            let parts = [&*format!("{step} tolerates at most 3 hostile of 7 clients")];
            assert_refused(7, &["--rule", "median", "--pre", &step, "--byzantine", f], &parts);
        }
        refused.push(step);
    }
    assert!(["nnm", "arc", "outliers"].iter().all(|step| refused.iter().any(|r| r == step)), "{refused:?}");
}

#[test]
fn a_fraction_is_held_to_the_same() {
    let f = |share: f64, clients: usize| (share * clients as f64) as usize;
    assert!(f(0.4, 20) <= krums_most(20) && f(0.45, 20) > krums_most(20) && f(0.25, 20) > bulyans_most(20));
    assert_refused(20, &["--rule", "krum", "--byzantine", "0.45"], &["krum", "tolerates at most 8"]);
    assert_refused(20, &["--rule", "bulyan", "--byzantine", "0.25"], &["bulyan", "tolerates at most 4"]);
    assert_refused(20, &["--rule", "median", "--byzantine", "0.5"], &["median", "tolerates at most 9"]);
}

#[test]
fn settings_out_of_range() {
    for rule in [
        "multi-krum:m=0",
        "multi-krum:m=-1",
        "multi-krum:m=8",
        "geometric-median:smoothing=-1",
        "geometric-median:smoothing=NaN",
        "geometric-median:iterations=x",
        "centered-clipping:tau=-1",
        "centered-clipping:tau=NaN",
        "centered-clipping:tau=some",
        "centered-clipping:iterations=-1",
        "monna",
        "monna:trusted=",
        "monna:trusted=client-07",
        "distance-trim:keep=-0.1",
        "distance-trim:keep=1.5",
        "distance-trim:keep=NaN",
        "krum:m=2",
        "bulyan:f=1",
        "mda:trusted=client-00",
    ] {
        assert_refused(7, &["--rule", rule], &[rule.split(':').next().unwrap()]);
    }
    assert_refused(7, &["--rule", "monna:trusted=client-99"], &["client-99"]);
}

#[test]
fn steps_out_of_range() {
    for step in [
        "bucketing",
        "bucketing:s=0",
        "bucketing:s=x",
        "clip",
        "clip:norm=-1",
        "clip:norm=NaN",
        "clip:norm=x",
        "nnm:k=2",
        "arc:norm=1",
    ] {
        assert_refused(7, &["--rule", "median", "--pre", step], &[step.split(':').next().unwrap()]);
    }
    assert_refused(
        7,
        &["--rule", "median", "--pre", "nnn"],
        &["nnn", "nnm", "bucketing", "clip", "arc", "outliers"],
    );
}

#[test]
fn options_out_of_range() {
    for option in ["--distances=exact", "--seed=x", "--seed=-1", "--shadow-rules=medain", "--pre="] {
        assert_refused(7, &["--rule", "krum", option], &[option.split('=').next().unwrap()]);
    }
}

/// Buckets count as rows. With fewer rows, a rule tolerates fewer hostile ones.
#[test]
fn buckets_are_what_the_rule_sees() {
    let step = ["--pre", "bucketing:s=2", "--seed", "1", "--byzantine", "1"];
    assert_refused(8, &[&["--rule", "krum"], &step[..]].concat(), &["krum"]); // Four buckets.
}
