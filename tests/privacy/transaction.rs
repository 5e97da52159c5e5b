//! Charged rounds, each stopped anywhere in its own process: no output without a charge.

use crate::harness::Dir;
use fedmill::budget::account::Account;
use fedmill::budget::books::Books;
use fedmill::budget::charge::{charge, release};
use fedmill::budget::error::BudgetError;
use fedmill::budget::recover::{self, OrphanStage};
use fedmill::budget::request::{Answer, Grant, Request};
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

/// The variable that tells a process which round to make: `FOLDER INPUTS HOW`.
const ROUND: &str = "FEDMILL_TEST_ROUND";

/// Number of values of a model.
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
        tensors_sha256: None,
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
        counting: 100,
        inputs_sha256: Sha256::of(inputs),
        output: folder.join("model.safetensors"),
        state: None,
        staged: Vec::new(),
        release_again: false,
        test_seed: (how == "test").then_some(7),
    }
}

/// Publishes a model whose values depend on the inputs and the key only.
fn publish(grant: &Grant, output: &Path, inputs: &str, next_clip: Option<f64>) {
    let len = DIMENSION as usize;
    let spec = TensorSpec { name: "w".to_owned(), dtype: Dtype::F32, shape: vec![len], len };
    let writer =
        ModelWriter::create(output, &Layout::new(vec![spec]), &grant.stamp(next_clip).metadata(), None)
            .unwrap();
    let values = Sha256::of([grant.key.bytes().as_slice(), inputs.as_bytes()].concat());
    writer.write([Piece { tensor: 0, start: 0, len }].into_iter(), values.bytes()).unwrap();
    writer.sync().unwrap();
    writer.publish().unwrap();
}

/// Makes a whole round. Returns whether its output exists.
fn round(folder: &Path, inputs: &str, how: &str) -> Result<bool, BudgetError> {
    let mut account = Account::open(&folder.join("dp"))?;
    let request = request(folder, inputs, how);
    match charge(&mut account, &request)? {
        Answer::Granted(grant) => {
            publish(&grant, &request.output, inputs, None);
            release(&mut account, grant, &request.output, None)?;
            Ok(true)
        }
        Answer::Existing(_) => Ok(true),
        Answer::Refused(_) | Answer::PaidBefore(_) | Answer::WrongRound(_) => Ok(false),
    }
}

/// Makes a round if the variable is set, in a process that [`process`] starts.
#[test]
fn a_round_in_its_own_process() {
    let Ok(what) = std::env::var(ROUND) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    let made = round(Path::new(words[0]), words[1], words[2]).unwrap();
    std::process::exit(if made { 0 } else { 1 });
}

/// Makes a round in its own process, which dies before a durable step. Returns its exit status; `None` if it died.
fn process(dir: &Dir, inputs: &str, how: &str, dies_at: Option<u32>) -> Option<i32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "privacy::transaction::a_round_in_its_own_process", "--test-threads=1"]);
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

/// Rounds that died before each step and were started again. For each step: the number of charges after the death,
/// whether the output existed then, and the number of charges after the second start.
fn killed_everywhere(how: &str) -> Vec<(usize, bool, usize)> {
    let mut deaths = Vec::new();
    for step in 1.. {
        let dir = started();
        if process(&dir, "a", how, Some(step)).is_some() {
            break;
        }
        let (charged, seen) = (charges(&dir), dir.exists("model.safetensors"));
        assert!(charged >= usize::from(seen), "step {step}: output without a charge");
        assert_sound(&dir);
        let bytes = seen.then(|| dir.read("model.safetensors"));
        assert_eq!(process(&dir, "a", how, None), Some(0), "step {step}");
        assert_sound(&dir);
        if let Some(bytes) = bytes {
            assert!(
                dir.read("model.safetensors") == bytes,
                "step {step}: other noise on an output that existed"
            );
        }
        assert_eq!(keys(&dir), 0, "step {step}: a key is left");
        let state = books(&dir).state;
        let released = state.charges.iter().filter(|charge| matches!(charge.fate, Fate::Released { .. }));
        assert_eq!(released.count(), 1, "step {step}");
        deaths.push((charged, seen, charges(&dir)));
    }
    deaths
}

#[test]
fn killed_before_every_durable_step_a_round_pays_once() {
    let deaths = killed_everywhere("os");
    assert!(deaths.len() >= 12, "{deaths:?}");
    assert!(deaths.iter().all(|(_, _, after)| *after == 1), "{deaths:?}");
    for stage in [(0, false), (1, false), (1, true)] {
        assert!(deaths.iter().any(|(charged, seen, _)| (*charged, *seen) == stage), "{stage:?}: {deaths:?}");
    }
}

/// A restored backup may hold a key that another charge with the same number used.
#[test]
fn a_key_of_another_charge_makes_no_noise() {
    let dir = started();
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let (mine, other) = (request(&dir.path(""), "a", "os"), request(&dir.path(""), "b", "os"));
    let Answer::Granted(first) = charge(&mut account, &mine).unwrap() else { panic!("not granted") };
    let Answer::Granted(second) = charge(&mut account, &other).unwrap() else { panic!("not granted") };
    let key = dir.read("dp/key-1");
    dir.write("dp/key-2", &key);
    let Answer::Granted(again) = charge(&mut account, &other).unwrap() else { panic!("not granted") };
    assert!(again.key.bytes() != first.key.bytes() && again.key.bytes() != second.key.bytes());
    assert_eq!(charges(&dir), 3, "its own key is lost, so it pays again");
    dir.write("dp/key-3", &key);
    dir.write("dp/key-9", &key);
    drop(account);
    Account::open(&dir.path("dp")).unwrap();
    assert!(!dir.exists("dp/key-9") && dir.exists("dp/key-3"), "no charge, no key");
}

/// A directory that was renamed after a crash: the same bytes go to the new path, at no cost.
#[test]
fn a_charge_goes_on_under_another_path() {
    let dir = started();
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let first = request(&dir.path(""), "a", "os");
    let Answer::Granted(grant) = charge(&mut account, &first).unwrap() else { panic!("not granted") };
    let moved = Request { output: dir.path("new.safetensors"), ..first.clone() };
    let Answer::Granted(again) = charge(&mut account, &moved).unwrap() else { panic!("not granted") };
    assert_eq!((again.charge, again.key.bytes()), (grant.charge, grant.key.bytes()));
    publish(&again, &moved.output, "a", None);
    release(&mut account, again, &moved.output, None).unwrap();
    assert!(matches!(charge(&mut account, &moved).unwrap(), Answer::Existing(_)), "found where it is");
    assert_eq!(charges(&dir), 1);
}

#[test]
fn a_kept_key_gives_the_same_bytes_for_the_same_inputs_alone() {
    let dir = started();
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let first = request(&dir.path(""), "a", "os");
    let Answer::Granted(grant) = charge(&mut account, &first).unwrap() else { panic!("not granted") };
    drop(account);
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let Answer::Granted(again) = charge(&mut account, &first).unwrap() else { panic!("not granted") };
    assert_eq!(again.charge, grant.charge);
    assert_eq!(again.key.bytes(), grant.key.bytes());
    let others = [
        Request { inputs_sha256: Sha256::of("b"), ..first.clone() },
        Request { round: Some(2), ..first.clone() },
    ];
    for other in others {
        let Answer::Granted(other) = charge(&mut account, &other).unwrap() else { panic!("not granted") };
        assert_ne!(other.charge, grant.charge);
        assert_ne!(other.key.bytes(), grant.key.bytes());
    }
    assert_eq!(charges(&dir), 3);
    // When the budget is spent, the first round is still free.
    let more = Request { inputs_sha256: Sha256::of("c"), ..first.clone() };
    let mut expected = charges(&dir);
    let next = |round: usize| Request { round: Some(round as u64), ..more.clone() };
    while matches!(charge(&mut account, &next(expected)).unwrap(), Answer::Granted(_)) {
        expected += 1;
        assert_eq!(charges(&dir), expected, "each pays");
        assert!(expected < 1000);
    }
    let Answer::Granted(again) = charge(&mut account, &first).unwrap() else { panic!("not granted") };
    assert_eq!(again.charge, grant.charge);
}

#[test]
fn an_existing_output_is_not_made_again_and_a_changed_one_is() {
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
    assert!(faults.iter().any(|finding| finding.to_string().contains("charge 1 released")), "{faults:#?}");
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
fn orphans_are_explained_adopted_and_voided() {
    let dir = started();
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let grant = |account: &mut Account, inputs: &str, how: &str| match charge(
        account,
        &request(&dir.path(""), inputs, how),
    )
    .unwrap()
    {
        Answer::Granted(grant) => grant,
        other => panic!("{other:?}"),
    };
    let (_lost, _kept) = (grant(&mut account, "lost", "os"), grant(&mut account, "kept", "os"));
    std::fs::remove_file(dir.path("dp/key-1")).unwrap();
    let published = grant(&mut account, "published", "os");
    publish(&published, &dir.path("model.safetensors"), "published", None);
    let stages = || -> Vec<OrphanStage> {
        recover::orphans(&books(&dir)).unwrap().into_iter().map(|orphan| orphan.stage).collect()
    };
    assert_eq!(stages(), [OrphanStage::AtWork, OrphanStage::AtWork, OrphanStage::AtWork]);
    drop(account);
    // Another test may start a process at this moment, which holds the lock until its program starts.
    (0..100).find(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        !stages().contains(&OrphanStage::AtWork)
    });
    let output = dir.path("model.safetensors");
    assert_eq!(stages(), [OrphanStage::Nothing, OrphanStage::KeyKept, OrphanStage::Published(output)]);
    let mut account = Account::open(&dir.path("dp")).unwrap();
    let void = account.void(3, "the machine was off").unwrap_err().to_string();
    assert!(void.contains("it was released"), "{void}");
    assert!(account.adopt(1, None).is_err());
    account.adopt(3, None).unwrap();
    assert_eq!(keys(&dir), 1);
    account.void(1, "the machine was off").unwrap();
    account.void(2, "the machine was off").unwrap();
    assert_eq!(keys(&dir), 0, "a voided charge cannot be made any more");
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
    // The ledger alone does not show it; the model does.
    assert_eq!(charges(&dir), 1);
    let error = verify(&dir.path("dp"), std::slice::from_ref(&model)).unwrap_err();
    assert!(matches!(error, BudgetError::OlderThanModel { charge: 3, found: 2, .. }), "{error}");
    let account = Account::open(&dir.path("dp")).unwrap();
    let stamp = StampedModel::open(&model).unwrap().stamp.unwrap();
    assert!(account.check_base(&model, &stamp).is_err());
    drop(account);
    // After another charge, the ledger has another record with that number.
    assert!(round(&dir.path(""), "c", "os").is_ok());
    std::fs::copy(&model, dir.path("new.safetensors")).unwrap();
    restore();
    assert!(round(&dir.path(""), "d", "os").is_ok());
    let error = verify(&dir.path("dp"), &[dir.path("new.safetensors")]).unwrap_err();
    assert!(matches!(error, BudgetError::OtherCharge { charge: 3, .. }), "{error}");
}

#[test]
fn a_test_seed_shows_everywhere() {
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
fn an_adaptive_clip_bound_comes_from_the_last_release() {
    let dir = Dir::new();
    let adaptive = Adaptive { initial: 0.1, quantile: 0.5, rate: 0.2, count_noise: 5.0 };
    let plan = BudgetPlan { clip: ClipBound::Adaptive(adaptive), ..plan() };
    let mut account = Account::init(&dir.path("dp"), &plan).unwrap();
    for (clip, next) in [(0.1, Some(0.125)), (0.125, Some(0.11)), (0.11, None)] {
        assert_eq!(account.books().terms(DIMENSION).unwrap().clip, clip);
        let request = request(&dir.path(""), &clip.to_string(), "os");
        let Answer::Granted(grant) = charge(&mut account, &request).unwrap() else { panic!("not granted") };
        assert_eq!(grant.mechanism.clip, clip);
        publish(&grant, &request.output, "", next);
        release(&mut account, grant, &request.output, next).unwrap();
    }
    assert!(books(&dir).state.follows_plan());
    assert!(matches!(
        account.books().terms(9),
        Err(BudgetError::Dimension { found: 9, expected: DIMENSION })
    ));
}
