//! Rounds under a budget that is spent, used by two processes at once, or older than the model.

use super::*;

fn folder(more: &[&str]) -> Dir {
    let dir = Dir::new();
    model_f32("base", &values(9, 40)).write(&dir);
    for client in 0..3 {
        model_f32(&format!("updates/client-{client}"), &values(client, 40)).meta("kind", "delta").write(&dir);
    }
    start_budget(&dir, more);
    dir
}

/// A budget that holds two rounds with noise multiplier 1, but not three.
const TWO_ROUNDS: [&str; 4] = ["--epsilon", "8", "--rounds", "2"];

fn charges(dir: &Dir) -> usize {
    books(dir).state.counted().count()
}

#[track_caller]
fn assert_verified(dir: &Dir, models: &[&str]) -> String {
    let named: &[&str] = if models.is_empty() { &[] } else { &["--model"] };
    let run = fedmill(dir, &[&["privacy", "verify", "dp"], named, models].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.stdout
}

#[test]
fn a_spent_budget_ends_with_status_1_and_changes_no_file() {
    let dir = folder(&TWO_ROUNDS);
    for output in ["one.safetensors", "two.safetensors"] {
        release_to(&dir, output, &["--release-again"]).assert_merged(output);
    }
    let before = dir.contents();
    let why = [
        "refused: over the privacy budget: the budget is epsilon 8; 6.572971 is spent, and 9.009882 would be spent",
    ];
    for output in ["three.safetensors", "one.safetensors"] {
        for more in
            [&["--strategy", "fedavg:lr=0.5"][..], &["--resumable", "--round", "9"], &["--test-seed", "1"]]
        {
            release_to(&dir, output, more).assert_fails(1, &why);
        }
    }
    let report = ["--release-again", "--report", "report.json"];
    release_to(&dir, "three.safetensors", &report).assert_fails(1, &why);
    let strategy = ["--strategy", "fedadam", "--state", "state.safetensors"];
    release_to(&dir, "three.safetensors", &strategy).assert_fails(1, &why);
    dir.assert_unchanged_since(&before);
    // Released outputs exist, and cost nothing to ask for again.
    let again = release_to(&dir, "two.safetensors", &[]);
    again.assert_merged("two.safetensors");
    assert!(
        again.stderr.contains("is already the release") && again.stderr.contains("nothing is charged"),
        "{again:#?}"
    );
    dir.assert_unchanged_since(&before);
    let found = assert_verified(&dir, &["one.safetensors", "two.safetensors"]);
    assert!(found.contains("6.572971 of epsilon 8 are spent"), "{found}");
    assert_eq!(found.matches("matches the release of charge").count(), 2, "{found}");
    let status = fedmill(&dir, &["privacy", "status", "dp"]).stdout;
    assert!(status.contains("2 charged, 0 left; 2 were planned"), "{status}");
}

#[test]
fn every_model_of_a_chain_names_its_charge() {
    let dir = folder(&[]);
    let mut base = "base.safetensors".to_owned();
    let outputs = ["1.safetensors", "2.safetensors", "3.safetensors"];
    for output in outputs {
        let args = ["aggregate", "updates", "--dp", "dp", "--base", &base, "-o", output];
        fedmill(&dir, &args).assert_merged(output);
        output.clone_into(&mut base);
    }
    assert_verified(&dir, &outputs);
    let mut whole = dir.read("2.safetensors");
    *whole.last_mut().unwrap() ^= 1;
    dir.write("2.safetensors", whole);
    let run = fedmill(&dir, &["privacy", "verify", "dp", "--model", "2.safetensors"]);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains("charge 3 released"), "{run:#?}");
}

/// An operator who restores an older ledger cannot continue from a newer model.
#[test]
fn a_ledger_from_a_backup_does_not_release() {
    let dir = folder(&[]);
    let backup = || -> Vec<(String, Vec<u8>)> {
        dir.contents().into_iter().filter(|(name, _)| name.starts_with("dp/") && name != "dp/").collect()
    };
    release_to(&dir, "1.safetensors", &[]).assert_merged("1.safetensors");
    let old = backup();
    let args = ["aggregate", "updates", "--dp", "dp", "--base", "1.safetensors", "-o", "2.safetensors"];
    fedmill(&dir, &args).assert_merged("2.safetensors");
    old.iter().for_each(|(name, bytes)| dir.write(name, bytes));
    let before = dir.contents();
    let args = ["aggregate", "updates", "--dp", "dp", "--base", "2.safetensors", "-o", "3.safetensors"];
    fedmill(&dir, &args)
        .assert_fails(2, &["2.safetensors: was made with charge 3, but the ledger ends with record 2"]);
    dir.assert_unchanged_since(&before);
    // With one changed line in the ledger, nothing is released.
    let ledger = String::from_utf8(dir.read("dp/ledger.jsonl")).unwrap();
    dir.write("dp/ledger.jsonl", ledger.replacen("\"z\":1.0", "\"z\":9.0", 1));
    let run = release_to(&dir, "3.safetensors", &[]);
    run.assert_fails(2, &["dp/ledger.jsonl"]);
    assert!(!dir.exists("3.safetensors"));
}

/// Of four processes at once, only as many release as the budget holds.
#[test]
fn rounds_at_the_same_time_are_charged_one_after_the_other() {
    let dir = folder(&TWO_ROUNDS);
    let outputs = ["1.safetensors", "2.safetensors", "3.safetensors", "4.safetensors"];
    let runs: Vec<Run> = std::thread::scope(|scope| {
        let threads: Vec<_> = outputs
            .map(|output| scope.spawn(|| release_to(&dir, output, &["--release-again", "--threads", "1"])))
            .into();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let ended = |code| runs.iter().filter(|run| run.code == Some(code)).count();
    assert_eq!((ended(0), ended(1)), (2, 2), "{runs:#?}");
    assert_eq!(outputs.iter().filter(|output| dir.exists(output)).count(), 2);
    assert_eq!(charges(&dir), 2);
    assert_verified(&dir, &[]);
}

/// A reader who knows the seed can subtract the noise: the command, the model and the ledger say so.
#[test]
fn a_test_seed_shows() {
    let dir = folder(&[]);
    let run = release_to(&dir, "seeded.safetensors", &SEEDED);
    run.assert_merged("seeded.safetensors");
    assert!(run.stderr.contains("NOT private"), "{run:#?}");
    let metadata = Model::read(&dir, "seeded.safetensors").metadata;
    assert!(metadata["fedmill.privacy.test_seed"].contains("NOT private"), "{metadata:#?}");
    assert!(assert_verified(&dir, &[]).contains("1 charges were made with a test seed"));
    release_to(&dir, "private.safetensors", &[]).assert_merged("private.safetensors");
    assert!(!Model::read(&dir, "private.safetensors").metadata.contains_key("fedmill.privacy.test_seed"));
}
