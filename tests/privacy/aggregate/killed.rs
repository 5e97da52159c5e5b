//! Rounds stopped before every durable step, files to files.
//!
//! No charge ever has two outputs, and no output ever lacks a charge.

use super::*;
use crate::harness::fedmill_after;
use fedmill::kernels::chacha20::Stream;
use fedmill::kernels::discrete_gaussian::noise;
use fedmill::kernels::lanes::Isa;
use fedmill::privacy::ledger::replay::Fate;

pub(super) const OUTPUT: &str = "released.safetensors";

pub(super) fn folder() -> Dir {
    let dir = Dir::new();
    model_f32("base", &values(9, 40)).write(&dir);
    for client in 0..3 {
        model_f32(&format!("updates/client-{client}"), &values(client, 40)).meta("kind", "delta").write(&dir);
    }
    start_budget(&dir, &[]);
    dir
}

fn folder_with(budget: &[(String, Vec<u8>)]) -> Dir {
    let dir = folder();
    for (name, bytes) in budget.iter().filter(|(name, _)| !name.ends_with('/')) {
        dir.write(name, bytes);
    }
    dir
}

pub(super) fn charges(dir: &Dir) -> usize {
    books(dir).state.counted().count()
}

/// Models under temporary names, left by a process that died.
fn temporaries(dir: &Dir) -> Vec<Model> {
    let names = dir.names().into_iter();
    let names = names.filter(|name| name.starts_with(&format!(".{OUTPUT}")) && !dir.read(name).is_empty());
    names.map(|name| Model::read(dir, &name)).collect()
}

/// The explanation of `recover` for a round that died.
pub(super) fn explained(dir: &Dir) -> String {
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

/// A round that died before a step and was started again.
#[derive(PartialEq, Debug)]
struct Death {
    /// Number of charges after the death.
    charged: usize,
    /// Whether the output existed then.
    seen: bool,
    /// Whether all outputs were complete then, and waited for their names.
    complete: bool,
    /// Number of charges after the second start.
    after: usize,
}

/// Kills the round at every durable step, and starts it again.
fn killed_everywhere(more: &[&str]) -> Vec<Death> {
    let mut deaths = Vec::new();
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
        assert!(charged >= usize::from(seen), "step {step}: output without a charge");
        let before = seen.then(|| dir.read(OUTPUT));
        let unseen = temporaries(&dir);
        assert_verified(&dir, step);
        let is_open = books(&dir).state.orphans().next().is_some();
        let keeps_key = dir.contents().keys().any(|name| name.starts_with("dp/key-"));
        let records: Vec<_> =
            dir.contents().into_iter().filter(|(name, _)| name.starts_with("dp/outputs-")).collect();
        let complete =
            records.iter().any(|(_, bytes)| !String::from_utf8_lossy(bytes).contains("\"outputs\":null"));
        assert_explained(&explained(&dir), is_open, seen, (complete, keeps_key));

        fedmill(&dir, &args).assert_merged(OUTPUT);
        let model = Model::read(&dir, OUTPUT);
        if let Some(before) = before {
            assert!(dir.read(OUTPUT) == before, "step {step}: other noise on an output that existed");
        }
        let left = temporaries(&dir);
        assert!(left.is_empty(), "step {step}: a temporary is left");
        for temporary in unseen {
            let charge = |model: &Model| model.metadata["fedmill.privacy.ledger"].clone();
            let same = charge(&temporary) == charge(&model);
            assert!(!same || temporary.tensors == model.tensors, "step {step}: two outputs of one charge");
        }
        assert_verified(&dir, step);
        assert_eq!(dir.exists("report.json"), args.contains(&"--report"), "step {step}");
        let left = dir.contents();
        let stale =
            |name: &&String| ["dp/key-", "dp/outputs-", "dp/."].iter().any(|start| name.starts_with(start));
        let stale: Vec<_> = left.keys().filter(stale).collect();
        assert!(stale.is_empty(), "step {step}: {stale:?} is left");
        let state = books(&dir).state;
        let released =
            state.charges.iter().filter(|charge| matches!(charge.fate, Fate::Released { .. })).count();
        assert_eq!(released, 1, "step {step}");
        deaths.push(Death { charged, seen, complete, after: charges(&dir) });
    }
    deaths
}

#[track_caller]
fn assert_explained(explanation: &str, is_open: bool, seen: bool, (complete, keeps_key): (bool, bool)) {
    let expected = match (is_open, seen, keeps_key) {
        (false, ..) => "there is nothing to do",
        (true, true, _) => "its output was published as",
        (true, false, _) if complete => "its outputs are complete, but could not get their names",
        (true, false, true) => "its key is kept; the same command",
        (true, false, false) => "noise may have been drawn and seen, so it stays charged",
    };
    assert!(explanation.contains(expected), "expected `{expected}` in: {explanation}");
}

#[track_caller]
fn assert_pays_once(deaths: &[Death]) {
    assert!(deaths.iter().all(|death| death.after == 1), "{deaths:#?}");
    let is_there = |charged, seen| deaths.iter().any(|death| (death.charged, death.seen) == (charged, seen));
    assert!(is_there(0, false) && is_there(1, false) && is_there(1, true), "{deaths:#?}");
    assert!(deaths.iter().any(|death| death.complete && !death.seen), "{deaths:#?}");
}

#[test]
fn a_round_that_is_killed_anywhere_pays_once() {
    assert_pays_once(&killed_everywhere(&[]));
}

/// The round also writes moments, whose file is published first, and a report.
#[test]
fn a_round_with_a_state_that_is_killed_anywhere_pays_once() {
    let state = ["--strategy", "fedadam", "--state", "state.safetensors", "--report", "report.json"];
    assert_pays_once(&killed_everywhere(&[&["--resumable"], &state[..]].concat()));
}

/// The index of a model in shards appears last.
#[test]
fn a_round_in_shards_that_is_killed_anywhere_pays_once() {
    let dir = folder();
    let args = ["aggregate", "updates", "-q", "--dp", "dp", "--base", "base.safetensors", "-o", OUTPUT];
    let args = [&args[..], &["--max-shard-size", "80"]].concat();
    let budget: Vec<_> = dir.contents().into_iter().filter(|(name, _)| name.starts_with("dp/")).collect();
    for step in 1.. {
        let dir = folder_with(&budget);
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        if run.code == Some(0) {
            break;
        }
        fedmill(&dir, &args).assert_merged("released.safetensors.index.json");
        assert_eq!(charges(&dir), 1, "step {step}");
    }
}

/// Whatever a killed round left, a voided charge leaves no output and no key behind, or stays.
#[test]
fn void_wipes_or_names_what_the_charge_left() {
    let state = ["--strategy", "fedadam", "--state", "state.safetensors", "--report", "report.json"];
    let args = ["aggregate", "updates", "-q", "--dp", "dp", "--base", "base.safetensors", "-o", OUTPUT];
    let args = [&args[..], &state].concat();
    let void = ["privacy", "void", "dp", "--seq", "1", "--attest", "the machine was off"];
    let (mut voided, mut refused) = (0, 0);
    for step in 1.. {
        let dir = folder();
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        if run.code == Some(0) {
            break;
        }
        if books(&dir).state.orphans().next().is_none() {
            continue;
        }
        let names = || dir.contents().into_keys().filter(|name| !name.ends_with('/'));
        assert!(!names().any(|name| name.contains(".sum.")), "step {step}: a sum without noise has a name");
        let run = fedmill(&dir, &void);
        if run.code == Some(0) {
            let left: Vec<String> = names()
                .filter(|name| {
                    name.contains("fedmill-tmp") || name.contains("key-") || name.contains("outputs-")
                })
                .chain(names().filter(|name| [OUTPUT, "state.safetensors"].contains(&name.as_str())))
                .collect();
            assert!(left.is_empty(), "step {step}: {left:?}");
            voided += 1;
        } else {
            assert_eq!(run.code, Some(1), "{run:#?}");
            let named = if dir.exists(OUTPUT) { OUTPUT } else { "state.safetensors" };
            assert!(dir.exists(named) && run.stderr.contains(named), "step {step}: {run:#?}");
            refused += 1;
        }
    }
    assert!(voided > 5 && refused > 3, "{voided} voided, {refused} refused");
}

/// The directory of complete outputs was renamed: a void would lose sight of them.
#[test]
fn void_looks_for_outputs_in_a_directory_that_is_gone() {
    let args = ["aggregate", "updates", "-q", "--dp", "dp", "--base", "base.safetensors"];
    let to = |output| [&args[..], &["-o", output]].concat();
    let void = ["privacy", "void", "dp", "--seq", "1", "--attest", "the machine was off"];
    let mut found = false;
    for step in 1.. {
        let dir = folder();
        std::fs::create_dir(dir.path("out")).unwrap();
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &to("out/m.safetensors"));
        if run.code == Some(0) || dir.exists("out/m.safetensors") {
            break;
        }
        std::fs::rename(dir.path("out"), dir.path("new")).unwrap();
        if books(&dir).state.orphans().next().is_some() {
            let run = fedmill(&dir, &void);
            assert!(
                run.code == Some(1) && run.stderr.contains("give the directory its name back"),
                "{run:#?}"
            );
            found = true;
        }
        fedmill(&dir, &to("new/m.safetensors")).assert_merged("new/m.safetensors");
        assert_eq!(charges(&dir), 1, "step {step}");
        let left: Vec<_> = dir.contents().into_keys().filter(|name| name.contains("fedmill-tmp")).collect();
        assert!(left.is_empty(), "step {step}: {left:?}");
    }
    assert!(found);
}

/// Another path gets a copy, wherever the output was published or found. What is lost is paid for again on request only.
#[test]
fn the_same_inputs_pay_a_second_time_only_on_request() {
    let dir = folder();
    let round = |more: &[&str], output: &str| {
        let args = ["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors", "-o", output];
        fedmill(&dir, &[&args, more].concat())
    };
    round(&["--round", "1"], OUTPUT).assert_merged(OUTPUT);
    let bytes = dir.read(OUTPUT);
    let copied = round(&["--round", "1"], "copy.safetensors");
    copied.assert_merged("copy.safetensors");
    assert!(copied.stderr.contains("nothing is charged") && dir.read("copy.safetensors") == bytes);
    round(&["--round", "1", "--release-again"], "new.safetensors").assert_merged("new.safetensors");
    assert_eq!(charges(&dir), 2);
    assert!(dir.read("new.safetensors") != bytes, "a second release has other noise");
    std::fs::rename(dir.path("new.safetensors"), dir.path("moved.safetensors")).unwrap();
    round(&["--round", "1"], "moved.safetensors").assert_merged("moved.safetensors");
    // One output is lost, and the other is no longer as it was released.
    std::fs::remove_file(dir.path("moved.safetensors")).unwrap();
    dir.write(OUTPUT, [&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat());
    let before = dir.contents();
    let why =
        ["charge 3 paid for this round", "new.safetensors does not hold the model", "-o", "--release-again"];
    round(&["--round", "1"], "other.safetensors").assert_fails(1, &why);
    dir.assert_unchanged_since(&before);
    assert_eq!(charges(&dir), 2);
}

/// A copy would reveal that no client changed between two rounds without numbers.
#[test]
fn a_round_without_a_number_is_not_copied() {
    let dir = folder();
    let to = |output| ["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors", "-o", output];
    fedmill(&dir, &to(OUTPUT)).assert_merged(OUTPUT);
    fedmill(&dir, &to(OUTPUT)).assert_merged(OUTPUT);
    let before = dir.contents();
    let why =
        ["charge 1 paid for this round", "released.safetensors\nhint: use that model", "--release-again"];
    fedmill(&dir, &to("other.safetensors")).assert_fails(1, &why);
    dir.assert_unchanged_since(&before);
}

/// A run that starts while another makes the same release waits, and copies its model.
#[test]
fn runs_of_one_round_at_once_pay_once() {
    let dir = folder();
    let start = |output: &str| {
        let mut command = std::process::Command::new(crate::harness::program());
        command.args(["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors"]);
        command.args(["--round", "1", "-o", output]);
        command.current_dir(dir.path("")).spawn().unwrap()
    };
    let outputs = ["one.safetensors", "two.safetensors", "three.safetensors"];
    for mut run in outputs.map(start) {
        assert!(run.wait().unwrap().success());
    }
    assert_eq!(charges(&dir), 1);
    assert!(outputs.iter().all(|output| dir.read(output) == dir.read(outputs[0])));
}

/// A round with a number, to which an output is added.
const ROUND_1: [&str; 8] =
    ["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors", "--round", "1"];

/// A folder whose round was stopped when its model was published and its release was not recorded.
fn stopped_before_its_record() -> Dir {
    let args = [&ROUND_1[..], &["-o", OUTPUT]].concat();
    let stopped = |step: u32| {
        let dir = folder();
        fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        (dir.exists(OUTPUT) && books(&dir).state.orphans().next().is_some()).then_some(dir)
    };
    (1..60).find_map(stopped).unwrap()
}

/// An attacker may have seen the model where it was, so its charge stays, wherever the file is now and however often a run
/// was started again.
#[test]
fn a_charge_whose_model_was_published_and_moved_is_not_voided() {
    let args = [&ROUND_1[..], &["-o", OUTPUT]].concat();
    let void = ["privacy", "void", "dp", "--seq", "1", "--attest", "the machine was off"];
    let mut stops = 0;
    for step in 1.. {
        let dir = stopped_before_its_record();
        std::fs::rename(dir.path(OUTPUT), dir.path("moved.safetensors")).unwrap();
        assert!(
            explained(&dir).contains("released.safetensors, and is not there any more"),
            "{}",
            explained(&dir)
        );
        let again = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
        if again.code == Some(0) {
            break;
        }
        if books(&dir).state.orphans().next().is_some() {
            fedmill(&dir, &void).assert_fails(1, &["record 1", OUTPUT]);
            stops += 1;
        }
        fedmill(&dir, &args).assert_merged(OUTPUT);
        assert!(dir.read(OUTPUT) == dir.read("moved.safetensors"), "step {step}: two outputs of one charge");
        assert_eq!(charges(&dir), 1);
    }
    assert!(stops > 5, "{stops}");
    let dir = stopped_before_its_record();
    std::fs::rename(dir.path(OUTPUT), dir.path("moved.safetensors")).unwrap();
    let adopt = ["privacy", "recover", "dp", "--adopt", "1", "--output", "moved.safetensors"];
    assert_eq!(fedmill(&dir, &adopt).code, Some(0));
    fedmill(&dir, &args).assert_merged(OUTPUT);
    assert!(dir.read(OUTPUT) == dir.read("moved.safetensors"), "the model is copied from where it was found");
    assert_eq!(charges(&dir), 1);
}

/// A model without a record of its release would be lost, and its charge could be voided.
#[test]
fn a_model_without_a_record_of_its_release_is_not_replaced() {
    let dir = stopped_before_its_record();
    model_f32("other/client", &values(7, 40)).meta("kind", "delta").write(&dir);
    let before = dir.contents();
    let other = ["aggregate", "other", "--dp", "dp", "--base", "base.safetensors", "-o", OUTPUT];
    let hint = "`fedmill privacy recover dp --adopt 1`";
    fedmill(&dir, &other).assert_fails(2, &[OUTPUT, "the output of charge 1", "not recorded", hint]);
    dir.assert_unchanged_since(&before);
    assert_eq!(fedmill(&dir, &["privacy", "recover", "dp", "--adopt", "1"]).code, Some(0));
    fedmill(&dir, &other).assert_merged(OUTPUT);
    assert_eq!(charges(&dir), 2);
}

/// A resumable round has the same bytes after any number of deaths.
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

/// A key is overwritten with zeros before its file is removed. A process that dies in between leaves zeros, which must
/// not be used as a key, because their noise is known.
#[test]
fn a_key_that_was_wiped_in_part_makes_no_noise() {
    let mut killed = 0;
    for step in 1.. {
        let dir = Dir::new();
        Update::new("base").f64("w", &[64], &[0.0; 64]).write(&dir);
        start_budget(&dir, &[]);
        let args = [
            "aggregate",
            "-q",
            "--dp",
            "dp",
            "--base",
            "base.safetensors",
            "-o",
            OUTPUT,
            "--resumable",
            "--allow-empty",
        ];
        let is_open = || books(&dir).state.orphans().next().is_some();
        (1..).take_while(|_| !is_open()).for_each(|step| {
            let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
            assert!(run.code != Some(0), "{run:#?}");
        });
        let seq = books(&dir).state.charges.last().unwrap().head.seq.to_string();
        let void = ["privacy", "void", "dp", "--seq", &seq, "--attest", "the machine was off"];
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &void);
        let is_half = dir
            .contents()
            .iter()
            .any(|(name, bytes)| name.starts_with("dp/key-") && bytes.iter().all(|byte| *byte == 0));
        if is_half {
            assert!(explained(&dir).contains("its key is gone"), "{}", explained(&dir));
        }
        // The key is lost, so the run pays once more.
        fedmill(&dir, &[&args[..], &["--release-again"]].concat()).assert_merged(OUTPUT);
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
    assert!(killed > 0, "no process died between zeros and removal");
}

/// If the updates change between the charge and the output, it is another release, and costs another charge.
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
    while books(&dir).state.orphans().next().is_none() {
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
    // The first release can still be made at no cost, with other noise than the second.
    dir.write("updates/client-1.safetensors", whole);
    fedmill(&dir, &args).assert_merged(OUTPUT);
    assert_eq!(charges(&dir), before + 1);
    assert!(Model::read(&dir, OUTPUT).tensors != other);
    assert!(!keeps_key());
}
