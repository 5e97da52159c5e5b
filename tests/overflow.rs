//! Values and claims of one client that overflow the step or the state are its fault.

use crate::harness::{Dir, Model, Run, Update, aggregate, fedmill, le, without_digest};

const ADAPTIVE: [&str; 3] = ["fedadam", "fedyogi", "fedadagrad"];

/// A base and three sound clients, whose values differ a little.
fn round(dtype: &str) -> Dir {
    let dir = Dir::new();
    of("base", dtype, [0.5, 0.5]).write(&dir);
    for (name, value) in [("a", 0.25), ("b", 0.5), ("c", 1.0)] {
        of(&format!("updates/{name}"), dtype, [value, value]).write(&dir);
    }
    dir
}

fn of(name: &str, dtype: &str, values: [f64; 2]) -> Update {
    after(5, name, dtype, values)
}

/// The update of a client that claims a number of local steps.
fn after(steps: u32, name: &str, dtype: &str, values: [f64; 2]) -> Update {
    let bytes = match dtype {
        "F64" => le(values.map(f64::to_le_bytes)),
        "F32" => le(values.map(|x| (x as f32).to_le_bytes())),
        _ => le(values.map(|x| half::f16::from_f64(x).to_bits().to_le_bytes())),
    };
    let update = Update::new(name).raw("w", dtype, &[2], &bytes).meta("num_examples", "10");
    update.meta("local_steps", &steps.to_string()).meta("kind", "weights")
}

fn run(dir: &Dir, more: &[&str]) -> Run {
    aggregate(dir, &[&["--base", "base.safetensors"], more].concat())
}

fn run_skipping(dir: &Dir, more: &[&str]) -> Run {
    run(dir, &[&["--on-bad-update", "skip"], more].concat())
}

/// The run leaves out the clients of these names and no others, and merges as without them.
#[track_caller]
fn assert_left_out(dir: &Dir, hostile: &[&str], part: &str, more: &[&str]) {
    let failed = run(dir, more);
    failed.assert_fails(2, &[&format!("updates/{}.safetensors: {part}", hostile[0])]);
    let done = run_skipping(dir, more);
    assert_eq!(done.code, Some(0), "{more:?}: {done:#?}");
    assert_eq!(done.stderr.matches("skipped ").count(), hostile.len(), "{more:?}: {done:#?}");
    for name in hostile {
        let line = format!("skipped updates/{name}.safetensors: {part}");
        assert!(done.stderr.contains(&line), "{more:?}: {done:#?}");
        std::fs::remove_file(dir.path(&format!("updates/{name}.safetensors"))).unwrap();
    }
    let model = dir.read("merged.safetensors");
    let has_state = dir.exists("state.safetensors");
    if has_state {
        let state = Model::read(dir, "state.safetensors");
        for tensor in ["m.w", "v.w"] {
            let values =
                if state.dtype(tensor) == "F64" { state.f64(tensor) } else { widened(&state, tensor) };
            assert!(values.iter().all(|x| x.is_finite()), "{more:?}: {tensor} {values:?}");
        }
        std::fs::remove_file(dir.path("state.safetensors")).unwrap();
    }
    assert_eq!(run(dir, more).code, Some(0), "{more:?}");
    assert_eq!(dir.read("merged.safetensors"), model, "{more:?}");
}

fn widened(model: &Model, tensor: &str) -> Vec<f64> {
    model.f32(tensor).iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn a_square_that_does_not_fit_the_state() {
    for strategy in ADAPTIVE {
        let more = ["--strategy", strategy, "--state", "state.safetensors"];
        for (dtype, values) in [("F32", [1e30, 3e38]), ("F64", [1e160, f64::MAX])] {
            for value in values {
                let dir = round(dtype);
                of("updates/evil", dtype, [0.5, value]).write(&dir);
                assert_left_out(&dir, &["evil"], "tensor `w` holds ", &more);
            }
        }
    }
}

#[test]
fn the_fault_names_value_result_and_bound() {
    let dir = round("F64");
    of("updates/evil", "F64", [0.5, 1e200]).write(&dir);
    let part = "updates/evil.safetensors: tensor `w` holds 1e200 at flat index 1, which the server's step takes to inf in \
                `v` of the state, expected at most 1.7976931348623157e308 for F64 (1 such values in the update)";
    let more = ["--strategy", "fedadam", "--state", "state.safetensors"];
    run(&dir, &more).assert_fails(2, &[part, "hint: pass --on-bad-update skip"]);
    assert!(!dir.exists("state.safetensors"));
}

#[test]
fn two_clients_whose_sum_overflows_are_both_named() {
    let dir = round("F64");
    of("updates/evil", "F64", [0.5, 1.79e308]).write(&dir);
    of("updates/vile", "F64", [0.25, 1.79e308]).write(&dir);
    let more = ["--strategy", "fedadam", "--state", "state.safetensors"];
    assert_left_out(&dir, &["evil", "vile"], "tensor `w` holds 1.79e308 at flat index 1", &more);
}

#[test]
fn clients_with_squares_too_large_are_named_even_if_all_are() {
    let dir = Dir::new();
    of("base", "F64", [0.5, 0.5]).write(&dir);
    of("updates/a", "F64", [0.5, 1.7e308]).write(&dir);
    of("updates/b", "F64", [0.25, 1.7e308]).write(&dir);
    let more = ["--strategy", "fedadam", "--state", "state.safetensors"];
    run(&dir, &more).assert_fails(2, &["updates/a.safetensors: tensor `w` holds", "updates/b.safetensors: "]);
    // Their plain mean fits.
    assert_eq!(run(&dir, &[]).code, Some(0));
    assert_eq!(Model::read(&dir, "merged.safetensors").f64("w"), [0.375, 1.7e308]);
}

#[test]
fn a_learning_rate_that_takes_one_value_too_far() {
    let dir = round("F32");
    of("updates/evil", "F32", [0.5, 3e38]).write(&dir);
    assert_left_out(&dir, &["evil"], "tensor `w` holds 3", &["--strategy", "fedavg:lr=20"]);
}

#[test]
fn a_later_round_keeps_its_moments() {
    let dir = round("F32");
    let more = ["--strategy", "fedadam", "--state", "state.safetensors"];
    assert_eq!(run(&dir, &more).code, Some(0));
    std::fs::rename(dir.path("merged.safetensors"), dir.path("base.safetensors")).unwrap();
    let state = dir.read("state.safetensors");
    of("updates/evil", "F32", [0.5, 1e30]).write(&dir);
    assert_eq!(run_skipping(&dir, &more).code, Some(0));
    let model = dir.read("merged.safetensors");
    std::fs::remove_file(dir.path("updates/evil.safetensors")).unwrap();
    dir.write("state.safetensors", state);
    assert_eq!(run(&dir, &more).code, Some(0));
    assert_eq!(dir.read("merged.safetensors"), model);
}

/// A value that a robust rule leaves out of the result harms nothing.
#[test]
fn a_value_outside_the_result_stays() {
    for rule in [&["--rule", "median"][..], &["--rule", "trimmed-mean", "--byzantine", "1"]] {
        let dir = round("F32");
        of("updates/evil", "F32", [0.5, 1e30]).write(&dir);
        let more = [rule, &["--strategy", "fedadam", "--state", "state.safetensors"]].concat();
        let done = run(&dir, &more);
        assert!(done.code == Some(0) && !done.stderr.contains("holds"), "{done:#?}");
        assert!(widened(&Model::read(&dir, "state.safetensors"), "v.w").iter().all(|v| *v < 1.0));
    }
}

/// Sums in f64 overflow on the first try, after the first values took their step; the second try must not step twice.
#[test]
fn a_sum_tried_again_steps_once() {
    let values = |x: f64, last: f64| [vec![x; 40_000], vec![last]].concat();
    let write = |dir: &Dir, name: &str, x: f64, last: f64| {
        let update = Update::new(name).f64("w", &[40_001], &values(x, last));
        update.meta("num_examples", "10").meta("kind", "weights").write(dir);
    };
    let more = ["--strategy", "fedavgm:momentum=0.1", "--state", "state.safetensors"];
    let m_of = |last: f64| {
        let dir = Dir::new();
        write(&dir, "base", 0.5, 0.5);
        for (name, x) in [("a", 0.5), ("b", 1.5)] {
            write(&dir, &format!("updates/{name}"), x, last);
        }
        assert_eq!(run(&dir, &more).code, Some(0));
        std::fs::rename(dir.path("merged.safetensors"), dir.path("base.safetensors")).unwrap();
        write(&dir, "updates/a", 1.0, last);
        assert_eq!(run(&dir, &more).code, Some(0));
        Model::read(&dir, "state.safetensors").f64("m.w")[0]
    };
    assert_eq!(m_of(1e308), m_of(0.5));
}

#[test]
fn a_state_that_is_not_finite_is_refused() {
    let dir = round("F32");
    let more = ["--strategy", "fedadam", "--state", "state.safetensors"];
    assert_eq!(run(&dir, &more).code, Some(0));
    std::fs::rename(dir.path("merged.safetensors"), dir.path("base.safetensors")).unwrap();
    let sound = without_digest(&dir.read("state.safetensors"));
    let header = 8 + u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    for (at, value, part) in [
        (1, f32::INFINITY, "tensor `m.w` of the state holds inf at flat index 1, expected a finite number"),
        (2, f32::NAN, "tensor `v.w` of the state holds NaN at flat index 0, expected a finite number"),
        (3, -1.0, "tensor `v.w` of the state holds -1 at flat index 1, expected a finite number, at least 0"),
    ] {
        let mut state = sound.clone();
        state[header + 4 * at..header + 4 * at + 4].copy_from_slice(&value.to_le_bytes());
        dir.write("state.safetensors", &state);
        run_skipping(&dir, &more).assert_fails(2, &["state.safetensors: ", part, "hint: restore the state"]);
        assert!(!dir.exists("merged.safetensors"));
    }
}

#[test]
fn a_claim_of_steps_that_stretches_the_others() {
    let dir = round("F16");
    of("updates/d", "F16", [0.5, 3.0]).write(&dir);
    let evil = Update::new("updates/evil").half("w", "F16", &[2], &[half::f16::from_f64(0.5).to_bits(); 2]);
    evil.meta("num_examples", "40").meta("local_steps", "10000000").meta("kind", "weights").write(&dir);
    let part =
        "fednova needs metadata `local_steps`: found 10000000, expected about as many as most clients, 5";
    assert_left_out(&dir, &["evil"], part, &["--strategy", "fednova"]);
}

/// Factors stretch this value past F32, and no claim is to blame.
#[test]
fn a_value_that_factors_take_too_far() {
    let dir = round("F32");
    let evil = Update::new("updates/evil").f32("w", &[2], &[0.5, 3e38]);
    evil.meta("num_examples", "1000").meta("local_steps", "1").meta("kind", "weights").write(&dir);
    assert_left_out(&dir, &["evil"], "tensor `w` holds 3", &["--strategy", "fednova:steps=5"]);
}

/// Clients a, b and c took 50 steps. The hostile client claims one, so its value is multiplied by 38 and leaves F32.
fn stretched(dtype: &str, huge: f64) -> Dir {
    let dir = Dir::new();
    of("base", dtype, [0.5, 0.5]).write(&dir);
    for (name, value) in [("a", 0.25), ("b", 0.5), ("c", 1.0)] {
        after(50, &format!("in/{name}"), dtype, [value, value]).write(&dir);
    }
    after(1, "in/evil", dtype, [0.5, huge]).write(&dir);
    dir
}

/// The median bounds such a value: it counts as the largest of its coordinate, and no more.
#[test]
fn a_stretched_value_that_an_order_statistic_leaves_out_stays() {
    let factor = (3.0 * 50.0 + 1.0) / 4.0 / 50.0;
    let [a, b, c] = [-0.25, 0.0, 0.5].map(|delta| factor * delta);
    // The second value of `evil` is huge, and the first is the base's.
    let wanted = [
        ("median", [0.0, (b + c) / 2.0]),
        ("trimmed-mean:cut=1", [0.0, (b + c) / 2.0]),
        ("meamed", [(a + b) / 3.0, (a + b + c) / 3.0]),
    ];
    for (dtype, huge) in [("F32", f64::from(f32::MAX)), ("F32", -3e38), ("F64", f64::MAX), ("F64", 1e308)] {
        let dir = stretched(dtype, huge);
        for (rule, want) in wanted {
            let [first, mut second] = want;
            if huge < 0.0 {
                second = if rule == "meamed" { (a + b + c) / 3.0 } else { (a + b) / 2.0 };
            }
            let method = ["--strategy", "fednova", "--rule", rule, "--byzantine", "1"];
            let more = [&method[..], &["--base", "base.safetensors"]].concat();
            let args = [&["aggregate", "in", "-o", "merged.safetensors"], &more[..]].concat();
            fedmill(&dir, &args).assert_merged("merged.safetensors");
            let merged = Model::read(&dir, "merged.safetensors");
            let got = if dtype == "F64" { merged.f64("w") } else { widened(&merged, "w") };
            for (got, delta) in got.iter().zip([first, second]) {
                assert!((got - 0.5 - delta).abs() < 1e-6, "{dtype} {huge} {rule}: {got}, {delta}");
            }
            let shard = ["combine", "in", "--shard", "1/1", "-o", "shard.safetensors"];
            fedmill(&dir, &[&shard[..], &more].concat()).assert_merged("shard.safetensors");
        }
    }
}

/// One value beyond F32 changes only its own coordinate, to the last bit.
#[test]
fn a_stretched_value_leaves_other_coordinates_as_they_are() {
    let wide = |name: &str, x: f32, first: f32, steps: &str| {
        let mut values: Vec<f32> = (0..5000).map(|j| x * (1.0 + j as f32 / 777.0)).collect();
        values[0] = first;
        let update = Update::new(name).f32("w", &[5000], &values).meta("local_steps", steps);
        update.meta("num_examples", "10").meta("kind", "weights")
    };
    let merged = |first: f32| {
        let dir = Dir::new();
        wide("base", 0.1, 0.5, "1").write(&dir);
        wide("updates/a", 0.2, 0.5, "50").write(&dir);
        wide("updates/b", 0.3, 0.5, "50").write(&dir);
        wide("updates/c", 0.7, first, "1").write(&dir);
        assert_eq!(run(&dir, &["--strategy", "fednova", "--rule", "median"]).code, Some(0));
        Model::read(&dir, "merged.safetensors").f32("w")
    };
    assert_eq!(merged(3e38), merged(0.75));
}

/// A huge value that has a part in the result is its client's fault.
#[test]
fn a_stretched_value_in_the_result_is_named() {
    for (dtype, huge) in [("F32", 3e38), ("F64", 1.5e308)] {
        let dir = stretched(dtype, huge);
        std::fs::rename(dir.path("in"), dir.path("updates")).unwrap();
        let more = ["--strategy", "fednova", "--rule", "trimmed-mean:cut=0"];
        assert_left_out(&dir, &["evil"], "tensor `w` holds ", &more);
    }
}

/// The square of this value fits f64, and that of the scaled value does not.
#[test]
fn a_square_that_a_factor_takes_too_far() {
    let dir = stretched("F64", 1e154);
    std::fs::rename(dir.path("in"), dir.path("updates")).unwrap();
    let more = ["--strategy", "fednova", "--rule", "geometric-median"];
    assert_left_out(&dir, &["evil"], "its values are too large: their squares do not fit f64", &more);
}

/// The second measurement, of scaled updates, counts the block that holds the huge value.
#[test]
fn a_stretched_value_hides_no_distance() {
    let dir = stretched("F32", 3e38);
    std::fs::rename(dir.path("in"), dir.path("updates")).unwrap();
    let method = ["--strategy", "fednova", "--rule", "distance-trim", "--byzantine", "1"];
    assert_eq!(run(&dir, &[&method[..], &["--report", "report.json"]].concat()).code, Some(0));
    let factor = (3.0 * 50.0 + 1.0) / 4.0 / 50.0;
    let median = [0.0, factor * 0.25];
    let clients = dir.json("report.json")["clients"].clone();
    for (i, delta) in [-0.25, 0.0, 0.5].into_iter().enumerate() {
        let want = median.map(|x| factor * delta - x).iter().map(|x| x * x).sum::<f64>().sqrt();
        let got = clients[i]["score"].as_f64().unwrap();
        assert!((got - want).abs() < 1e-6, "client {i}: {got}, expected {want}");
    }
    assert_eq!(clients[3]["kept"], false);
}

#[test]
fn shards_and_tiers_name_the_client() {
    let dir = round("F32");
    of("updates/evil", "F32", [0.5, 1e30]).write(&dir);
    let shard = ["--shard", "1/1", "-o", "shard.safetensors", "updates"];
    let more = ["--base", "base.safetensors", "--strategy", "fedadam", "--state", "state.safetensors"];
    let part = "updates/evil.safetensors: tensor `w` holds 1.0000000150474662e30 at flat index 1";
    fedmill(&dir, &[&["combine"], &more[..], &shard].concat()).assert_fails(2, &[part, "`v` of the state"]);
    dir.write(
        "tiers.json",
        r#"{"schema": "fedmill.tiers/1", "tiers": [{"name": "all", "clients": ["*"], "rule": "mean"}]}"#,
    );
    let more = ["--strategy", "fedadam", "--state", "state.safetensors", "--tiers", "tiers.json"];
    let done = run_skipping(&dir, &more);
    assert!(done.code == Some(0) && done.stderr.contains(part), "{done:#?}");
}

#[test]
fn a_leaf_names_the_client_whose_value_overflows_its_sum() {
    let dir = round("F64");
    of("updates/evil", "F64", [0.5, 1.79e308]).write(&dir);
    let args = ["aggregate", "--partial", "--base", "base.safetensors", "updates", "-o", "leaf.safetensors"];
    let part = "updates/evil.safetensors: its values are too large: the largest, 1.79e308, does not fit f64 once the \
                weights of all clients, 40, multiply it";
    fedmill(&dir, &args).assert_fails(2, &[part]);
    let done = fedmill(&dir, &[&args[..], &["--on-bad-update", "skip"]].concat());
    assert_eq!(done.code, Some(0), "{done:#?}");
}

#[test]
fn num_examples_holds_its_bound_to_the_digit() {
    for (text, is_sound) in [
        ("9007199254740992", true),
        ("9007199254740992.000", true),
        ("9.007199254740992e15", true),
        ("9007199254740993", false),
        ("9007199254740992.5", false),
        ("9.0071992547409920001e+15", false),
        ("-0", true),
    ] {
        let dir = round("F32");
        let update = Update::new("updates/evil").f32("w", &[2], &[0.5, 0.5]);
        update.meta("num_examples", text).meta("kind", "weights").write(&dir);
        let done = run(&dir, &["--report", "report.json"]);
        assert_eq!(done.code, Some(if is_sound { 0 } else { 2 }), "{text}: {done:#?}");
        if text == "-0" {
            assert!(String::from_utf8(dir.read("report.json")).unwrap().contains("\"examples\": 0.0"));
        }
    }
}

/// A round of seven clients for SCAFFOLD, of which the one in the middle sends a huge control variate.
fn controlled(huge: f64) -> (Dir, Vec<f64>) {
    let dir = Dir::new();
    let control = |i: usize| if i == 3 { huge } else { 0.125 * (i + 1) as f64 };
    Update::new("base").f64("w", &[2], &[0.5, 0.5]).write(&dir);
    for i in 0..7 {
        let w = 0.5 + 0.01 * i as f64;
        let update = Update::new(&format!("updates/c{i}")).f64("w", &[2], &[w, w]);
        update.f64("scaffold.delta_c.w", &[2], &[control(i), 1.0]).meta("kind", "weights").write(&dir);
    }
    let mut controls: Vec<f64> = (0..7).map(control).collect();
    controls.sort_by(f64::total_cmp);
    (dir, controls)
}

/// The delta of a client says nothing about its control variate, so no rule on deltas lets one client set the server's.
#[test]
fn a_huge_control_variate_moves_no_robust_state() {
    let scaffold = ["--strategy", "scaffold", "--population", "14", "--state", "state.safetensors"];
    for huge in [f64::MAX, -f64::MAX, 1e30] {
        let (dir, sorted) = controlled(huge);
        let trimmed = sorted[1..6].iter().sum::<f64>() / 5.0;
        for (method, want) in [
            (&["--rule", "krum", "--byzantine", "1"][..], trimmed),
            (&["--rule", "mda", "--byzantine", "1"], trimmed),
            (&["--rule", "caf", "--byzantine", "1"], trimmed),
            (&["--rule", "geometric-median", "--byzantine", "1"], trimmed),
            (&["--rule", "trimmed-mean", "--byzantine", "1", "--pre", "nnm"], trimmed),
            (&["--pre", "arc", "--byzantine", "1"], trimmed),
            (&["--rule", "trimmed-mean", "--byzantine", "1"], trimmed),
            (&["--rule", "geometric-median"], sorted[3]),
            (&["--rule", "centered-clipping:tau=1"], sorted[3]),
            (&["--rule", "median"], sorted[3]),
        ] {
            let _ = std::fs::remove_file(dir.path("state.safetensors"));
            let done = run(&dir, &[method, &scaffold].concat());
            assert_eq!(done.code, Some(0), "{method:?}: {done:#?}");
            let c = Model::read(&dir, "state.safetensors").f64("c.w");
            assert!((c[0] - 0.5 * want).abs() < 1e-12 && c[1] == 0.5, "{method:?} {huge}: {c:?}, {want}");
        }
    }
}

/// If no client is hostile, the rule's choice of clients holds for control variates too.
#[test]
fn control_variates_follow_a_rule_that_assumes_no_hostile_client() {
    let (dir, _) = controlled(9.0);
    let scaffold = ["--strategy", "scaffold", "--population", "14", "--state", "state.safetensors"];
    let krum = ["--rule", "krum", "--byzantine", "0", "--report", "report.json"];
    assert_eq!(run(&dir, &[&krum[..], &scaffold].concat()).code, Some(0));
    let clients = dir.json("report.json")["clients"].clone();
    let chosen = (0..7).find(|i| clients[i]["kept"] == true).unwrap();
    let control = if chosen == 3 { 9.0 } else { 0.125 * (chosen + 1) as f64 };
    assert_eq!(Model::read(&dir, "state.safetensors").f64("c.w"), [0.5 * control, 0.5]);
}
