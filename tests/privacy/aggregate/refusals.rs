//! Options that are refused under a budget: nothing is charged, and nothing published.

use super::*;

fn folder() -> Dir {
    let dir = Dir::new();
    model_f32("base", &values(1, 40)).write(&dir);
    for client in 0..4 {
        model_f32(&format!("updates/client-{client}"), &values(client, 40))
            .meta("num_examples", "3")
            .write(&dir);
    }
    start_budget(&dir, &[]);
    dir
}

/// The command ends with status 2 and these texts, and changes no file.
#[track_caller]
fn assert_refused(dir: &Dir, args: &[&str], parts: &[&str]) {
    let before = dir.contents();
    release_to(dir, "released.safetensors", args).assert_fails(2, parts);
    dir.assert_unchanged_since(&before);
}

#[test]
fn rules_that_compare_clients_are_refused() {
    let dir = folder();
    let rules = [
        "median",
        "trimmed-mean:cut=1",
        "meamed",
        "krum",
        "multi-krum",
        "bulyan",
        "geometric-median",
        "centered-clipping:tau=1",
        "mda",
        "smea",
        "caf",
        "monna:trusted=client-0",
        "distance-trim",
    ];
    for rule in rules {
        let name = rule.split(':').next().unwrap();
        let why = ["error: --rule ", name, "under --dp", "depend on other clients", "hint: use mean"];
        assert_refused(&dir, &["--rule", rule, "--byzantine", "1"], &why);
    }
    for step in ["nnm", "bucketing:s=2", "clip:norm=1", "arc", "outliers"] {
        let name = step.split(':').next().unwrap();
        let why = ["error: --pre ", name, "under --dp", "depends on the others", "hint: use mean alone"];
        assert_refused(&dir, &["--pre", step, "--byzantine", "1"], &why);
    }
}

#[test]
fn outputs_about_single_clients_are_refused() {
    let dir = folder();
    let report = ["--report", "report.json"];
    for more in [["--shadow-rules", "median"], ["--metrics", "geometry"], ["--metrics", "signs"]] {
        let why = ["under --dp", "describes single clients without noise", "hint: leave it out"];
        assert_refused(&dir, &[&report[..], &more].concat(), &why);
    }
    for strategy in ["fednova", "qfedavg:q=1,local-lr=0.1", "fedbuff", "fedexp", "scaffold"] {
        let args = ["--strategy", strategy, "--population", "10"];
        let state: &[&str] = if strategy == "scaffold" { &["--state", "state.safetensors"] } else { &[] };
        let name = strategy.split(':').next().unwrap();
        let why = ["--strategy ", name, "under --dp", "reports of single clients", "hint: fedavg, fedprox"];
        assert_refused(&dir, &[&args, state].concat(), &why);
    }
}

#[test]
fn outputs_outside_the_noised_sum_are_refused() {
    let dir = folder();
    dir.write("tiers.json", r#"{"tiers":[{"name":"all","clients":["client-0","client-1"]}]}"#);
    let hint = "hint: `fedmill privacy clip`";
    assert_refused(
        &dir,
        &["--partial"],
        &["error: --partial under --dp", "not part of the noised sum", hint],
    );
    let tiers = ["--tiers", "tiers.json"];
    let run = release_to(&dir, "released.safetensors", &tiers);
    run.assert_fails(2, &["tiers"]);
}

#[test]
fn options_that_reveal_the_number_of_clients_are_refused() {
    let dir = folder();
    let why = ["error: --min-clients under --dp", "reveal the number of clients", "hint: leave it out"];
    assert_refused(&dir, &["--min-clients", "2"], &why);
    assert_refused(&dir, &["--weights", "examples"], &["--weights", "cannot be used with"]);
    assert_refused(&dir, &["--weights", "uniform"], &["--weights", "cannot be used with"]);
    assert_refused(&dir, &["--explain"], &["--explain", "cannot be used with"]);
}

#[test]
fn a_base_and_a_budget_are_needed() {
    let dir = folder();
    let before = dir.contents();
    let args = ["aggregate", "updates", "--dp", "dp", "-o", "released.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["--base"]);
    let args = ["aggregate", "updates", "--resumable", "-o", "released.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["--dp"]);
    let args = ["aggregate", "updates", "--test-seed", "1", "-o", "released.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["--dp"]);
    let args =
        ["aggregate", "updates", "--dp", "none", "--base", "base.safetensors", "-o", "released.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["none: holds no privacy ledger", "hint: "]);
    let args = ["aggregate", "updates", "--dp", "dp", "--base", "none", "-o", "released.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["none"]);
    dir.assert_unchanged_since(&before);
    Update::new("other").f32("a", &[3], &[0.0; 3]).write(&dir);
    let before = dir.contents();
    let args =
        ["aggregate", "updates", "--dp", "dp", "--base", "other.safetensors", "-o", "released.safetensors"];
    fedmill(&dir, &args).assert_fails(2, &["3 coordinates, the plan has 40"]);
    dir.assert_unchanged_since(&before);
}

/// A fault of the base ends the run before the charge, with and without clients.
#[test]
fn a_base_that_is_not_finite_costs_nothing() {
    for value in [f64::NAN, f64::INFINITY] {
        let dir = folder();
        let mut broken = values(1, 40);
        broken[17] = value;
        model_f32("base", &broken).write(&dir);
        let before = dir.contents();
        let why =
            ["base.safetensors: tensor `b` of the base holds", "at flat index 7, expected a finite number"];
        release_to(&dir, "released.safetensors", &[]).assert_fails(2, &why);
        dir.assert_unchanged_since(&before);
        std::fs::remove_dir_all(dir.path("updates")).unwrap();
        std::fs::create_dir(dir.path("updates")).unwrap();
        let before = dir.contents();
        release_to(&dir, "released.safetensors", &[]).assert_fails(2, &why);
        dir.assert_unchanged_since(&before);
    }
}

/// Outputs that would replace an input, or cannot be made, cost nothing.
#[test]
fn outputs_that_cannot_be_written_cost_nothing() {
    let dir = folder();
    let before = dir.contents();
    release_to(&dir, "base.safetensors", &[]).assert_fails(2, &["is also an input"]);
    release_to(&dir, "updates/client-1.safetensors", &[]).assert_fails(2, &["is also an input"]);
    release_to(&dir, "no/such/released.safetensors", &[]).assert_fails(2, &["no/such"]);
    release_to(&dir, "dp", &[]).assert_fails(2, &["dp"]);
    release_to(&dir, "released.safetensors", &["--report", "released.safetensors"])
        .assert_fails(2, &["another output"]);
    dir.assert_unchanged_since(&before);
}
