//! Rounds that are paid for, each in a process of its own: cut off anywhere, more is never seen than was paid.

use crate::harness::Dir;
use fedmill::budget::Account;
use fedmill::budget::charge::{Answer, Grant, Request};
use fedmill::budget::directory::{Books, BudgetError};
use fedmill::budget::recover::{self, Reached};
use fedmill::budget::stamp::StampedModel;
use fedmill::budget::verify::verify;
use fedmill::io::model_writer::ModelWriter;
use fedmill::model::dtype::Dtype;
use fedmill::model::layout::{Layout, Piece, TensorSpec};
use fedmill::privacy::event::Adjacency;
use fedmill::privacy::ledger::plan::{Accountant, Adaptive, BudgetPlan, ClipBound, Sampling, Unit};
use fedmill::privacy::ledger::replay::Fate;
use fedmill::record::sha256::Sha256;
use std::path::Path;
use std::process::Command;

/// Tells a process of its own what to do: `FOLDER INPUTS HOW`.
const ROUND: &str = "FEDMILL_TEST_ROUND";

/// Values of a model.
const DIMENSION: u64 = 8;

fn plan() -> BudgetPlan {
    let plan = BudgetPlan {
        epsilon: 2.0,
        delta: 1e-5,
        population: 1000,
        sampling: Sampling::Poisson,
        sampling_rate: 0.1,
        noise_multiplier: 1.2,
        rounds: 3,
        clip: ClipBound::Fixed(1.0),
        denominator: 100,
        adjacency: Adjacency::AddOrRemoveOne,
        unit: Unit::Client,
        dimension: Some(DIMENSION),
        level: None,
        accountant: Accountant::Rdp,
        correlated: None,
    };
    BudgetPlan { level: Some(plan.level_for(DIMENSION)), ..plan }
}

/// A folder with a ledger in `dp`.
fn started() -> Dir {
    let dir = Dir::new();
    Account::init(&dir.path("dp"), &plan()).unwrap();
    dir
}

fn request(folder: &Path, inputs: &str, how: &str) -> Request {
    Request {
        round: None,
        dimension: DIMENSION,
        clients: Vec::new(),
        summed: Vec::new(),
        inputs_sha256: Sha256::of(inputs),
        output: folder.join("model.safetensors"),
        resumable: how == "resumable",
        test_seed: (how == "test").then_some(7),
    }
}

/// Publishes a model whose values come from the inputs and the key alone.
fn publish(granted: &Grant, output: &Path, inputs: &str, next_clip: Option<f64>) {
    let len = DIMENSION as usize;
    let spec = TensorSpec { name: "w".to_owned(), dtype: Dtype::F32, shape: vec![len], len };
    let writer =
        ModelWriter::create(output, &Layout::new(vec![spec]), &granted.marks(next_clip).metadata(), None)
            .unwrap();
    let values = Sha256::of([granted.key.bytes().as_slice(), inputs.as_bytes()].concat());
    writer.write([Piece { tensor: 0, start: 0, len }].into_iter(), values.bytes()).unwrap();
    writer.sync().unwrap();
    writer.publish().unwrap();
}

/// A whole round. Returns whether it made an output, or found it.
fn round(folder: &Path, inputs: &str, how: &str) -> Result<bool, BudgetError> {
    let mut account = Account::open(&folder.join("dp"))?;
    let request = request(folder, inputs, how);
    match account.charge(&request)? {
        Answer::Granted(granted) => {
            publish(&granted, &request.output, inputs, None);
            account.release(granted, &request.output, None)?;
            Ok(true)
        }
        Answer::Existing(_) => Ok(true),
        Answer::Refused(_) | Answer::WrongRound(_) => Ok(false),
    }
}

/// What a process of its own does; in the others, nothing.
#[test]
fn a_round_in_a_process_of_its_own() {
    let Ok(what) = std::env::var(ROUND) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    let made = round(Path::new(words[0]), words[1], words[2]).unwrap();
    std::process::exit(if made { 0 } else { 1 });
}

/// Runs a round in a process of its own, which dies before a durable step. Returns its exit status; none if it died.
fn process(dir: &Dir, inputs: &str, how: &str, dies_at: Option<u32>) -> Option<i32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "privacy::transaction::a_round_in_a_process_of_its_own", "--test-threads=1"]);
    command.env(ROUND, format!("{} {inputs} {how}", dir.path("").to_str().unwrap().trim_end_matches('/')));
    command.env("FEDMILL_FAIL_AT", dies_at.unwrap_or(0).to_string());
    command.output().unwrap().status.code()
}

fn books(dir: &Dir) -> Books {
    Books::read(&dir.path("dp")).unwrap()
}

fn charges(dir: &Dir) -> usize {
    books(dir).state.counted().count()
}

#[track_caller]
fn assert_sound(dir: &Dir) {
    let found = verify(&dir.path("dp"), &[]).unwrap();
    assert!(found.iter().all(|finding| !finding.is_fault()), "{found:#?}");
}

fn keys(dir: &Dir) -> usize {
    dir.contents().keys().filter(|name| name.starts_with("dp/key-")).count()
}

/// What became of a round that died before a step and was run again: charges after it died, whether there was an output
/// then, and charges after it was run again.
fn killed_everywhere(how: &str) -> Vec<(usize, bool, usize)> {
    let mut found = Vec::new();
    for step in 1.. {
        let dir = started();
        if process(&dir, "a", how, Some(step)).is_some() {
            break;
        }
        let (charged, seen) = (charges(&dir), dir.exists("model.safetensors"));
        assert!(charged >= usize::from(seen), "step {step}: seen and not paid for");
        assert_sound(&dir);
        let bytes = seen.then(|| dir.read("model.safetensors"));
        assert_eq!(process(&dir, "a", how, None), Some(0), "step {step}");
        assert_sound(&dir);
        if let Some(bytes) = bytes {
            assert!(dir.read("model.safetensors") == bytes, "step {step}: other noise on what was seen");
        }
        assert_eq!(keys(&dir), 0, "step {step}: a key is left");
        let state = books(&dir).state;
        let released = state.charges.iter().filter(|charged| matches!(charged.fate, Fate::Released { .. }));
        assert_eq!(released.count(), 1, "step {step}");
        found.push((charged, seen, charges(&dir)));
    }
    found
}

#[test]
fn killed_before_every_durable_step_more_is_never_seen_than_was_paid() {
    let found = killed_everywhere("os");
    // Before the charge is written nothing was spent; from then on it stands. Before the output has its name noise may have
    // been drawn, and a run pays anew; from then on the output stands, and costs nothing.
    assert!(found.len() >= 12, "{found:?}");
    for (charged, seen, after) in &found {
        let expected = if *seen { 1 } else { charged + 1 };
        assert_eq!(*after, expected, "{found:?}");
    }
    assert_eq!(found[0], (0, false, 1));
    assert!(found.contains(&(1, false, 2)) && found.contains(&(1, true, 1)), "{found:?}");
}

#[test]
fn a_resumable_round_pays_once_from_when_its_key_is_kept() {
    let found = killed_everywhere("resumable");
    let paid_twice = found.iter().filter(|(_, _, after)| *after == 2).count();
    let (once_more, free) = found.split_at(1 + paid_twice);
    assert_eq!(once_more[0], (0, false, 1));
    assert!(free.iter().all(|(charged, _, after)| (*charged, *after) == (1, 1)), "{found:?}");
    assert!(free.iter().any(|(_, seen, _)| !seen) && free.iter().any(|(_, seen, _)| *seen), "{found:?}");
}

#[test]
fn a_kept_key_gives_the_same_bytes_for_the_same_inputs_alone() {
    let dir = started();
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let first = request(&dir.path(""), "a", "resumable");
    let Answer::Granted(granted) = account.charge(&first).unwrap() else { panic!("not granted") };
    assert!(!granted.resumed);
    drop(account);
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let Answer::Granted(again) = account.charge(&first).unwrap() else { panic!("not granted") };
    assert!(again.resumed && again.charge == granted.charge);
    assert_eq!(again.key.bytes(), granted.key.bytes());
    let others = [
        Request { inputs_sha256: Sha256::of("b"), ..first.clone() },
        Request { round: Some(2), ..first.clone() },
    ];
    for other in others {
        let Answer::Granted(other) = account.charge(&other).unwrap() else { panic!("not granted") };
        assert!(!other.resumed && other.charge != granted.charge);
        assert_ne!(other.key.bytes(), granted.key.bytes());
    }
    assert_eq!(charges(&dir), 3);
    // When nothing is left the first is free all the same.
    let more = Request { inputs_sha256: Sha256::of("c"), resumable: false, ..first.clone() };
    while matches!(account.charge(&more).unwrap(), Answer::Granted(granted) if !granted.resumed) {
        assert!(charges(&dir) < 1000);
    }
    assert!(matches!(account.charge(&first).unwrap(), Answer::Granted(again) if again.resumed));
}

#[test]
fn what_stands_is_not_made_again_and_what_was_changed_is() {
    let dir = started();
    assert!(round(&dir.path(""), "a", "os").unwrap());
    let made = dir.read("model.safetensors");
    assert!(round(&dir.path(""), "a", "os").unwrap());
    assert!(dir.read("model.safetensors") == made);
    assert_eq!(charges(&dir), 1);
    let mut changed = made.clone();
    *changed.last_mut().unwrap() ^= 1;
    dir.write("model.safetensors", &changed);
    let faults = verify(&dir.path("dp"), &[]).unwrap();
    assert!(
        faults.iter().any(|finding| finding.to_string().contains("what was released with charge 1 is")),
        "{faults:#?}"
    );
    assert!(round(&dir.path(""), "a", "os").unwrap());
    assert_eq!(charges(&dir), 2);
    assert!(dir.read("model.safetensors") != made, "the same inputs have other noise");
}

#[test]
fn a_spent_budget_gives_no_key_and_no_output() {
    let dir = started();
    let mut made = 0;
    while round(&dir.path(""), &format!("{made}"), "os").unwrap() {
        made += 1;
        assert!(made < 1000);
    }
    assert!(made >= 3);
    let before = dir.contents();
    assert_eq!(process(&dir, "more", "os", None), Some(1));
    dir.assert_unchanged_since(&before);
    assert_sound(&dir);
}

#[test]
fn orphans_are_explained_adopted_and_taken_back() {
    let dir = started();
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let grant = |account: &mut Account, inputs: &str, how: &str| match account
        .charge(&request(&dir.path(""), inputs, how))
        .unwrap()
    {
        Answer::Granted(granted) => granted,
        other => panic!("{other:?}"),
    };
    let (_lost, _kept) = (grant(&mut account, "lost", "os"), grant(&mut account, "kept", "resumable"));
    let published = grant(&mut account, "published", "os");
    publish(&published, &dir.path("model.safetensors"), "published", None);
    let reached = || -> Vec<Reached> {
        recover::orphans(&books(&dir)).unwrap().into_iter().map(|orphan| orphan.reached).collect()
    };
    assert_eq!(reached(), [Reached::AtWork, Reached::AtWork, Reached::AtWork]);
    drop(account);
    let output = dir.path("model.safetensors");
    assert_eq!(reached(), [Reached::Nothing, Reached::KeyKept, Reached::Published(output)]);
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let void = account.void(3, "nobody looked").unwrap_err().to_string();
    assert!(void.contains("it was released"), "{void}");
    assert!(account.adopt(1, None).is_err());
    account.adopt(3, None).unwrap();
    account.void(1, "the machine was off").unwrap();
    assert_eq!(keys(&dir), 1);
    account.void(2, "the machine was off").unwrap();
    assert_eq!(keys(&dir), 0, "what is taken back cannot be made any more");
    assert_eq!(charges(&dir), 1);
    assert_sound(&dir);
}

#[test]
fn a_ledger_from_a_backup_is_noticed_by_the_model() {
    let dir = started();
    assert!(round(&dir.path(""), "a", "os").unwrap());
    let backup: Vec<_> =
        dir.contents().into_iter().filter(|(name, _)| name.starts_with("dp/") && name != "dp/").collect();
    let restore = || backup.iter().for_each(|(name, bytes)| dir.write(name, bytes));
    assert!(round(&dir.path(""), "b", "os").unwrap());
    let model = dir.path("model.safetensors");
    assert_sound(&dir);
    restore();
    // Nothing in the ledger tells; the model does.
    assert_eq!(charges(&dir), 1);
    let error = verify(&dir.path("dp"), std::slice::from_ref(&model)).unwrap_err();
    assert!(matches!(error, BudgetError::OlderThanModel { charge: 3, found: 2, .. }), "{error}");
    let account = Account::open(&dir.path("dp")).unwrap();
    let marks = StampedModel::open(&model).unwrap().marks.unwrap();
    assert!(account.check_base(&model, &marks).is_err());
    drop(account);
    // Charged on, it has another record in that place.
    assert!(round(&dir.path(""), "c", "os").is_ok());
    std::fs::copy(&model, dir.path("new.safetensors")).unwrap();
    restore();
    assert!(round(&dir.path(""), "d", "os").is_ok());
    let error = verify(&dir.path("dp"), &[dir.path("new.safetensors")]).unwrap_err();
    assert!(matches!(error, BudgetError::OtherCharge { charge: 3, .. }), "{error}");
}

#[test]
fn a_test_seed_is_told_everywhere() {
    let dir = started();
    assert!(round(&dir.path(""), "a", "test").unwrap());
    let made = dir.read("model.safetensors");
    let state = books(&dir).state;
    assert_eq!(state.tests(), 1);
    let found = verify(&dir.path("dp"), &[]).unwrap();
    assert!(found.iter().any(|finding| finding.to_string().contains("NOT private")), "{found:#?}");
    let status = crate::harness::fedmill(&dir, &["privacy", "status", "dp"]);
    assert!(status.stdout.contains("NOT PRIVATE") && status.stderr.contains("NOT private"), "{status:#?}");
    let card = crate::harness::fedmill(&dir, &["privacy", "export", "dp", "--format", "model-card"]);
    assert!(card.stdout.contains("NOT differentially private"), "{card:#?}");
    let other = started();
    assert!(round(&other.path(""), "a", "test").unwrap());
    let values = |bytes: &[u8]| bytes[bytes.len() - 32..].to_vec();
    assert_eq!(values(&other.read("model.safetensors")), values(&made), "the seed makes the noise");
}

#[test]
fn a_clip_bound_that_follows_the_norms_is_that_of_the_last_release() {
    let dir = Dir::new();
    let adaptive = Adaptive { initial: 0.1, quantile: 0.5, rate: 0.2, count_noise: 5.0 };
    let plan = BudgetPlan { clip: ClipBound::Adaptive(adaptive), ..plan() };
    let mut account = Account::init(&dir.path("dp"), &plan).unwrap();
    for (clip, next) in [(0.1, Some(0.125)), (0.125, Some(0.11)), (0.11, None)] {
        assert_eq!(account.terms(DIMENSION).unwrap().clip, clip);
        let request = request(&dir.path(""), &clip.to_string(), "os");
        let Answer::Granted(granted) = account.charge(&request).unwrap() else { panic!("not granted") };
        assert_eq!(granted.mechanism.clip, clip);
        publish(&granted, &request.output, "", next);
        account.release(granted, &request.output, next).unwrap();
    }
    assert!(books(&dir).state.follows_plan());
    assert!(matches!(account.terms(9), Err(BudgetError::Dimension { found: 9, expected: DIMENSION })));
}
