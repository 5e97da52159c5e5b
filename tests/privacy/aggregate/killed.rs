//! Rounds that are cut off before every step that makes something durable, files to files: never two outputs of one
//! charge, and never one of none.

use super::*;
use crate::harness::fedmill_after;
use fedmill::kernels::chacha20::Stream;
use fedmill::kernels::discrete_gaussian::noise;
use fedmill::kernels::lanes::Isa;
use fedmill::privacy::ledger::replay::Fate;

const OUTPUT: &str = "released.safetensors";

fn folder() -> Dir {
    let dir = Dir::new();
    model_f32("base", &values(9, 40)).write(&dir);
    for client in 0..3 {
        model_f32(&format!("updates/client-{client}"), &values(client, 40)).meta("kind", "delta").write(&dir);
    }
    start_budget(&dir, &[]);
    dir
}

fn charges(dir: &Dir) -> usize {
    books(dir).state.counted().count()
}

/// What a run left under a temporary name, if it is a model.
fn temporaries(dir: &Dir) -> Vec<Model> {
    let names = dir.names().into_iter();
    let names = names.filter(|name| name.starts_with(&format!(".{OUTPUT}")) && !dir.read(name).is_empty());
    names.map(|name| Model::read(dir, &name)).collect()
}

/// What `recover` says of a round that died.
fn explained(dir: &Dir) -> String {
    let run = fedmill(dir, &["privacy", "recover", "dp"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.stdout
}

#[track_caller]
fn assert_verified(dir: &Dir, step: usize) {
    let models: &[&str] = if dir.exists(OUTPUT) { &["--model", OUTPUT] } else { &[] };
    let run = fedmill(dir, &[&["privacy", "verify", "dp"], models].concat());
    assert_eq!(run.code, Some(0), "step {step}: {run:#?}");
}

/// What became of a round that died before a step and was run again.
#[derive(PartialEq, Debug)]
struct Died {
    /// Charges when it had died.
    charged: usize,
    /// Whether its output was there.
    seen: bool,
    /// Charges once it was run again.
    after: usize,
}

/// Kills the round at every durable step, and runs it again.
fn killed_everywhere(more: &[&str]) -> Vec<Died> {
    let mut found = Vec::new();
    for step in 1.. {
        let dir = folder();
        let args = ["aggregate", "updates", "-q", "--dp", "dp", "--base", "base.safetensors", "-o", OUTPUT];
        let args = [&args, more].concat();
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        if run.code == Some(0) {
            break;
        }
        assert!(run.code != Some(1) && run.code != Some(2), "{run:#?}");
        let (charged, seen) = (charges(&dir), dir.exists(OUTPUT));
        assert!(charged >= usize::from(seen), "step {step}: seen and not paid for");
        let before = seen.then(|| dir.read(OUTPUT));
        let unseen = temporaries(&dir);
        assert_verified(&dir, step);
        let is_open = books(&dir).state.orphans().next().is_some();
        let keeps_key = dir.contents().keys().any(|name| name.starts_with("dp/key-"));
        assert_explained(&explained(&dir), is_open, seen, keeps_key);

        fedmill(&dir, &args).assert_merged(OUTPUT);
        let model = Model::read(&dir, OUTPUT);
        if let Some(before) = before {
            assert!(dir.read(OUTPUT) == before, "step {step}: other noise on what was seen");
        }
        for temporary in unseen {
            let charge = |model: &Model| model.metadata["fedmill.privacy.ledger"].clone();
            let same = charge(&temporary) == charge(&model);
            assert!(!same || temporary.tensors == model.tensors, "step {step}: two outputs of one charge");
        }
        assert_verified(&dir, step);
        assert_eq!(dir.exists("report.json"), args.contains(&"--report"), "step {step}");
        let left = dir.contents();
        assert!(!left.keys().any(|name| name.starts_with("dp/key-")), "step {step}: a key is left");
        let state = books(&dir).state;
        let released =
            state.charges.iter().filter(|charged| matches!(charged.fate, Fate::Released { .. })).count();
        assert_eq!(released, 1, "step {step}");
        found.push(Died { charged, seen, after: charges(&dir) });
    }
    found
}

#[track_caller]
fn assert_explained(told: &str, is_open: bool, seen: bool, keeps_key: bool) {
    let expected = match (is_open, seen, keeps_key) {
        (false, ..) => "nothing is to be done",
        (true, true, _) => "its output was published as",
        (true, false, true) => "its key is kept; the same run again",
        (true, false, false) => "noise may have been drawn, and seen, so it stays charged",
    };
    assert!(told.contains(expected), "expected `{expected}` in: {told}");
}

#[test]
fn a_round_that_is_run_again_pays_again_unless_its_output_stands() {
    let found = killed_everywhere(&[]);
    assert!(found.len() >= 10, "{found:#?}");
    for died in &found {
        let expected = if died.seen { 1 } else { died.charged + 1 };
        assert_eq!(died.after, expected, "{found:#?}");
    }
    let is_there = |charged, seen| found.iter().any(|died| (died.charged, died.seen) == (charged, seen));
    assert!(is_there(0, false) && is_there(1, false) && is_there(1, true), "{found:#?}");
}

/// With moments, whose file is published first, and a report.
#[test]
fn a_resumable_round_with_a_state_pays_once_from_when_its_key_is_kept() {
    let state = ["--strategy", "fedadam", "--state", "state.safetensors", "--report", "report.json"];
    let found = killed_everywhere(&[&["--resumable"], &state[..]].concat());
    assert!(found.len() >= 14, "{found:#?}");
    let paid_twice = found.iter().filter(|died| died.after == 2).count();
    let from = found.iter().position(|died| died.charged == 1).unwrap() + paid_twice;
    assert!(paid_twice <= 8, "between the charge and the key: {found:#?}");
    for died in &found[from..] {
        assert_eq!((died.charged, died.after), (1, 1), "{found:#?}");
    }
    assert!(
        found[from..].iter().any(|died| !died.seen) && found[from..].iter().any(|died| died.seen),
        "{found:#?}"
    );
}

/// The bytes that a round would have had are those that it has, however often it is killed.
#[test]
fn a_resumable_round_keeps_its_bytes_through_many_deaths() {
    let dir = folder();
    let args = [
        "aggregate",
        "updates",
        "-q",
        "--dp",
        "dp",
        "--base",
        "base.safetensors",
        "-o",
        OUTPUT,
        "--resumable",
    ];
    let mut made: Vec<Model> = Vec::new();
    let mut last = None;
    for step in 1.. {
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        made.extend(temporaries(&dir));
        if run.code == Some(0) {
            last = Some(Model::read(&dir, OUTPUT));
            break;
        }
        if dir.exists(OUTPUT) {
            made.push(Model::read(&dir, OUTPUT));
        }
    }
    made.extend(last);
    let charge = |model: &Model| model.metadata["fedmill.privacy.ledger"].clone();
    for model in &made {
        let alike = made.iter().filter(|other| charge(other) == charge(model));
        assert!(alike.clone().all(|other| other.tensors == model.tensors), "two outputs of one charge");
    }
    assert!(made.len() >= 3, "{}", made.len());
    assert_verified(&dir, 0);
}

/// A key is zeroed before its file is removed. Cut off between the two it must not pass for a key: everybody knows its noise.
#[test]
fn a_key_that_was_wiped_in_part_makes_no_noise() {
    let mut killed = 0;
    for step in 1.. {
        let dir = Dir::new();
        Update::new("base").f64("w", &[64], &[0.0; 64]).write(&dir);
        start_budget(&dir, &[]);
        let args =
            ["aggregate", "-q", "--dp", "dp", "--base", "base.safetensors", "-o", OUTPUT, "--resumable"];
        let keeps_key = || dir.contents().keys().any(|name| name.starts_with("dp/key-"));
        (1..).take_while(|_| !keeps_key()).for_each(|step| {
            let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
            assert!(run.code != Some(0), "{run:#?}");
        });
        let seq = books(&dir).state.charges.last().unwrap().head.seq.to_string();
        let void = ["privacy", "void", "dp", "--seq", &seq, "--attest", "nobody looked"];
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &void);
        let is_half =
            dir.contents().iter().any(|(name, bytes)| name.starts_with("dp/key-") && bytes == &[0; 32]);
        if is_half {
            assert!(explained(&dir).contains("its key is gone"), "{}", explained(&dir));
        }
        fedmill(&dir, &args).assert_merged(OUTPUT);
        let mut known = [0; 64];
        let key = [0; 32];
        let stream = Stream { key: &key, domain: 1, segment: 0 };
        noise(Isa::detect(), stream, Level::L2, 0, &mut known);
        let unit = grid(1.0).unit() / DENOMINATOR as f64;
        let released = Model::read(&dir, OUTPUT).f64("w");
        let near = released.iter().zip(known).filter(|(x, known)| (*x / unit - *known as f64).abs() < 1.0);
        assert_eq!(near.count(), 0, "step {step}: the noise is that of a key of zeros");
        if run.code == Some(0) {
            break;
        }
        killed += usize::from(is_half);
    }
    assert!(killed > 0, "no run was cut off between zeros and removal");
}

/// Between the charge and the output the updates may change: then it is another release, and is paid for.
#[test]
fn other_updates_are_another_release() {
    let args = [
        "aggregate",
        "updates",
        "-q",
        "--dp",
        "dp",
        "--base",
        "base.safetensors",
        "-o",
        OUTPUT,
        "--resumable",
    ];
    let dir = folder();
    let keeps_key = || dir.contents().keys().any(|name| name.starts_with("dp/key-"));
    let mut step = 1;
    while !keeps_key() {
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        assert!(run.code != Some(0), "{run:#?}");
        step += 1;
    }
    let before = charges(&dir);
    let whole = dir.read("updates/client-1.safetensors");
    model_f32("updates/client-1", &values(7, 40)).meta("kind", "delta").write(&dir);
    fedmill(&dir, &args).assert_merged(OUTPUT);
    assert_eq!(charges(&dir), before + 1);
    let other = Model::read(&dir, OUTPUT).tensors;
    // The first can still be made, for nothing; its noise is not that of the other.
    dir.write("updates/client-1.safetensors", whole);
    fedmill(&dir, &args).assert_merged(OUTPUT);
    assert_eq!(charges(&dir), before + 1);
    assert!(Model::read(&dir, OUTPUT).tensors != other);
    assert!(!keeps_key());
}
