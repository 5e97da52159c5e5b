//! Outputs and records that were damaged, edited or moved after a round was stopped.
//!
//! Nothing of a charge without a recorded release is replaced, and nothing but its true bytes becomes its release.

use super::killed::{OUTPUT, charges, explained, folder};
use super::*;
use crate::harness::fedmill_after;

const ROUND_1: [&str; 8] =
    ["aggregate", "updates", "--dp", "dp", "--base", "base.safetensors", "--round", "1"];
const RECORD: &str = "dp/outputs-1";
const VOID: [&str; 7] = ["privacy", "void", "dp", "--seq", "1", "--attest", "the machine was off"];

/// The first round to this output.
fn round_to<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&ROUND_1[..], &["-o", output], more].concat()
}

/// A second round with another client, to this output.
fn other_round(dir: &Dir, output: &str, more: &[&str]) -> Run {
    model_f32("other/client", &values(7, 40)).meta("kind", "delta").write(dir);
    let args = ["aggregate", "other", "--dp", "dp", "--base", "base.safetensors", "--round", "2"];
    fedmill(dir, &[&args[..], &["-o", output], more].concat())
}

/// Folders whose first round was stopped with an open charge, one for each step that leaves what `is_wanted`.
fn stopped(more: &[&str], is_wanted: impl Fn(&Dir) -> bool) -> Vec<Dir> {
    let stopped = |step: u32| {
        let dir = folder();
        let run = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &round_to(OUTPUT, more));
        (run.code != Some(0)).then_some(dir)
    };
    let is_open = |dir: &Dir| books(dir).state.orphans().next().is_some();
    let found: Vec<Dir> = (1..).map_while(stopped).filter(|dir| is_open(dir) && is_wanted(dir)).collect();
    assert!(!found.is_empty());
    found
}

/// The name of the complete model that waits for its name.
fn waiting(dir: &Dir) -> Option<String> {
    let is_complete =
        dir.exists(RECORD) && !String::from_utf8_lossy(&dir.read(RECORD)).contains("\"outputs\":null");
    let mut names = dir.names().into_iter().filter(|_| is_complete);
    names.find(|name| name.starts_with(&format!(".{OUTPUT}")) && name.contains("-kept"))
}

fn remove(dir: &Dir, name: &str) {
    std::fs::remove_file(dir.path(name)).unwrap();
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

/// Shards have their names before the index has.
#[test]
fn shards_without_an_index_are_not_replaced() {
    const SHARDS: [&str; 2] = ["--max-shard-size", "80"];
    let index = "released.safetensors.index.json";
    let shards = |dir: &Dir| -> Vec<String> {
        dir.names().into_iter().filter(|name| name.starts_with("released-")).collect()
    };
    for dir in stopped(&SHARDS, |dir| !shards(dir).is_empty() && !dir.exists(index)) {
        let before: Vec<_> = shards(&dir).into_iter().map(|name| (dir.read(&name), name)).collect();
        let record = dir.read(RECORD);
        // The shard names its charge, with and without the record of the outputs.
        for more in [&SHARDS[..], &[]] {
            other_round(&dir, OUTPUT, more).assert_fails(2, &["released-0000", "the output of charge 1"]);
        }
        remove(&dir, RECORD);
        other_round(&dir, OUTPUT, &SHARDS).assert_fails(2, &["released-0000", "the output of charge 1"]);
        dir.write(RECORD, record);
        fedmill(&dir, &round_to(OUTPUT, &SHARDS)).assert_merged(index);
        assert!(before.iter().all(|(bytes, name)| dir.read(name) == *bytes));
        assert_eq!(charges(&dir), 1);
        other_round(&dir, OUTPUT, &SHARDS).assert_merged(index);
    }
}

/// The state has its name before the model has. Another output does not make it free.
#[test]
fn the_state_of_an_open_charge_is_not_replaced() {
    const STATE: [&str; 4] = ["--strategy", "fedadam", "--state", "state.safetensors"];
    for dir in stopped(&STATE, |dir| dir.exists("state.safetensors")) {
        let before = dir.read("state.safetensors");
        other_round(&dir, "other.safetensors", &STATE).assert_fails(
            2,
            &["state.safetensors", "the output of charge 1", "run the command of charge 1 again"],
        );
        other_round(&dir, "free.safetensors", &["--strategy", "fedavg"]).assert_merged("free.safetensors");
        fedmill(&dir, &round_to(OUTPUT, &STATE)).assert_merged(OUTPUT);
        assert!(dir.read("state.safetensors") == before);
        assert_eq!(charges(&dir), 2);
        assert_eq!(fedmill(&dir, &["privacy", "verify", "dp"]).code, Some(0));
    }
}

/// What waits for its name, or has it, is compared with its digest; the same bytes are made again.
#[test]
fn a_damaged_output_is_made_again() {
    let damages: [fn(Vec<u8>) -> Vec<u8>; 2] = [flipped, |_| Vec::new()];
    for damage in damages {
        for dir in stopped(&[], |dir| waiting(dir).is_some() || dir.exists(OUTPUT)) {
            let name = waiting(&dir).unwrap_or_else(|| OUTPUT.to_owned());
            let made = dir.read(&name);
            dir.write(&name, damage(made.clone()));
            let run = fedmill(&dir, &round_to(OUTPUT, &[]));
            run.assert_merged(OUTPUT);
            let is_said = run.stderr.contains(
                "was damaged since the run that wrote it: this run makes the outputs of charge 1 again",
            );
            assert!(is_said && run.stderr.contains(&name), "{run:#?}");
            assert!(dir.read(OUTPUT) == made, "{name}");
            assert_eq!(charges(&dir), 1);
            assert_eq!(fedmill(&dir, &["privacy", "verify", "dp"]).code, Some(0));
            assert!(waiting(&dir).is_none() && !dir.exists(RECORD) && !dir.exists("dp/key-1"));
        }
    }
}

/// Without the record the operator cannot tell whether an output had its name, also after one more stop.
#[test]
fn a_damaged_record_blocks_no_round_and_no_void_takes_the_charge_back() {
    let damages: [fn(&Dir); 3] =
        [|dir| dir.write(RECORD, ""), |dir| dir.write(RECORD, "{\"files\":["), |dir| remove(dir, RECORD)];
    for damage in damages {
        let dir = stopped(&[], |dir| waiting(dir).is_some()).remove(0);
        let made = dir.read(&waiting(&dir).unwrap());
        damage(&dir);
        let explained = explained(&dir);
        assert!(
            explained.contains("its outputs was damaged or lost") && !explained.contains(" void "),
            "{explained}"
        );
        fedmill(&dir, &VOID).assert_fails(1, &["dp/outputs-1", "an output may have been published"]);
        let args = round_to(OUTPUT, &[]);
        for step in 1.. {
            let again = fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &args);
            if again.code == Some(0) || books(&dir).state.orphans().next().is_none() {
                break;
            }
            fedmill(&dir, &VOID).assert_fails(1, &["record 1"]);
        }
        fedmill(&dir, &args).assert_merged(OUTPUT);
        assert!(dir.read(OUTPUT) == made);
        assert_eq!(charges(&dir), 1);
        other_round(&dir, "other.safetensors", &[]).assert_merged("other.safetensors");
    }
}

/// Metadata can be copied. The digest of the record tells, or the model where it was published.
#[test]
fn an_edited_model_is_not_adopted() {
    let dir = stopped(&[], |dir| dir.exists(OUTPUT)).remove(0);
    let made = dir.read(OUTPUT);
    dir.write("edited.safetensors", flipped(made.clone()));
    let digest = |bytes: &[u8]| fedmill::record::sha256::Sha256::of(bytes).to_string();
    let (found, expected) = (digest(&flipped(made.clone())), digest(&made));
    let adopt = ["privacy", "recover", "dp", "--adopt", "1"];
    let edited = [&adopt[..], &["--output", "edited.safetensors"]].concat();
    let why = ["edited.safetensors", found.as_str(), expected.as_str()];
    fedmill(&dir, &edited).assert_fails(2, &why);
    let record = dir.read(RECORD);
    remove(&dir, RECORD);
    fedmill(&dir, &edited).assert_fails(2, &why);
    dir.write(RECORD, record);
    dir.write(OUTPUT, flipped(made.clone()));
    fedmill(&dir, &adopt).assert_fails(2, &[OUTPUT, &found, &expected]);
    remove(&dir, OUTPUT);
    dir.write("moved.safetensors", &made);
    assert_eq!(fedmill(&dir, &[&adopt[..], &["--output", "moved.safetensors"]].concat()).code, Some(0));
    fedmill(&dir, &round_to(OUTPUT, &[])).assert_merged(OUTPUT);
    assert!(dir.read(OUTPUT) == made);
}

/// A round that was stopped and went on to another output is found there.
#[test]
fn a_release_to_another_output_is_filed_where_it_is() {
    let dir = stopped(&[], |dir| waiting(dir).is_none() && !dir.exists(OUTPUT)).remove(0);
    fedmill(&dir, &round_to("other.safetensors", &[])).assert_merged("other.safetensors");
    assert!(!dir.exists(OUTPUT));
    let verify = || fedmill(&dir, &["privacy", "verify", "dp"]).stdout;
    assert!(verify().contains("other.safetensors: matches the release of charge 1"), "{}", verify());
    fedmill(&dir, &round_to(OUTPUT, &[])).assert_merged(OUTPUT);
    assert!(dir.read(OUTPUT) == dir.read("other.safetensors"));
    assert_eq!(charges(&dir), 1);
}

/// A file has a stamp of the longest charge until its run completes it.
#[test]
fn a_copy_of_an_incomplete_model_is_named_as_such() {
    let longest = u64::MAX.to_string();
    let early = |dir: &Dir| {
        let is_early = |name: &String| {
            name.starts_with(&format!(".{OUTPUT}"))
                && String::from_utf8_lossy(&dir.read(name)).contains(&longest)
        };
        dir.names().into_iter().find(is_early)
    };
    let dir = stopped(&[], |dir| early(dir).is_some()).remove(0);
    dir.write("early.safetensors", dir.read(&early(&dir).unwrap()));
    let args =
        ["aggregate", "updates", "--dp", "dp", "--base", "early.safetensors", "-o", "other.safetensors"];
    let run = fedmill(&dir, &args);
    run.assert_fails(2, &["early.safetensors: was copied before its run completed it"]);
    assert!(!run.stderr.contains(&longest), "{run:#?}");
}

/// A void wipes the key first. A round after it names both ways to go on.
#[test]
fn a_void_that_was_stopped_is_named_to_the_next_round() {
    let dir = stopped(&[], |dir| waiting(dir).is_some()).remove(0);
    let left = dir.contents();
    let mut named = 0;
    for step in 1.. {
        left.iter().filter(|(name, _)| !name.ends_with('/')).for_each(|(name, bytes)| dir.write(name, bytes));
        if fedmill_after(&dir, &format!("export FEDMILL_FAIL_AT={step}"), &VOID).code == Some(0) {
            break;
        }
        if books(&dir).state.orphans().next().is_none() {
            continue;
        }
        if !dir.exists("dp/key-1") && waiting(&dir).is_none() {
            let hint = "`fedmill privacy void dp --seq 1 --attest TEXT` takes the charge back";
            fedmill(&dir, &round_to(OUTPUT, &[])).assert_fails(1, &["charge 1 paid", "--adopt 1", hint]);
            named += 1;
        }
        let void = fedmill(&dir, &VOID);
        assert_eq!(void.code, Some(0), "step {step}: {void:#?}");
        assert!(!dir.names().iter().any(|name| name.contains("-kept")), "step {step}");
    }
    assert!(named > 1, "{named}");
}
