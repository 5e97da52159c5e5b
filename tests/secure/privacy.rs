//! Sessions under a privacy budget: the norm of clients, the noise of sums, and its charge.

use super::{Session, UNMASK, done, identity, mask_command};
use crate::harness::{Dir, Model, Run, Update, fedmill};
use fedmill::kernels::discrete_gaussian::Level;
use fedmill::modes::secure::privacy::PrivacyTerms;
use serde_json::Value;
use std::fs;

/// Values of the model: the variance of their noise is known to 1 %.
const MANY: usize = 20_000;

/// The divisor of sums.
const DENOMINATOR: u64 = 8;

/// The largest norm of an update.
const CLIP: f64 = 2.0;

/// Starts a budget; `more` replaces options of the same name.
fn budget(dir: &Dir, name: &str, more: &str) {
    let usual = [
        "--population 100",
        "--delta 1e-5",
        "--epsilon 1000",
        "--noise-multiplier 1",
        "--rounds 10",
        "--clip 2",
        "--denominator 8",
        "--sampling all",
    ];
    let is_left = |option: &&&str| !more.contains(option.split(' ').next().unwrap());
    let usual = usual.iter().filter(is_left).flat_map(|option| option.split(' '));
    let line = ["privacy", "init", name, "--base", "base.safetensors"].into_iter().chain(usual);
    done(&fedmill(dir, &line.chain(more.split_whitespace()).collect::<Vec<_>>()));
}

/// Six clients and three helpers with a model of many values, and a budget in `dp`. The first client has a long update, and
/// the others have zeros.
fn parties() -> Session {
    let session = Session::new(6, 3);
    let model = |name: &str, value: f32| Update::new(name).f32("w", &[MANY], &vec![value; MANY]);
    model("base", 0.5).write(&session.dir);
    for client in 1..=6 {
        let value = if client == 1 { 10.0 } else { 0.0 };
        model(&format!("in/client-{client}"), value).meta("kind", "delta").write(&session.dir);
    }
    budget(&session.dir, "dp", "");
    session
}

fn open(session: &Session, folder: &str, more: &str) -> Run {
    let keys = "--key keys/server --clients clients --helpers helpers --base base.safetensors";
    let min = if more.contains("--min-survivors") { "" } else { "--min-survivors 4" };
    session.run(&format!("open {folder} {keys} {min} {more}"))
}

/// A session under the budget, with the answers for a sum of the clients from `first` on.
fn answered(first: usize, more: &str) -> Session {
    let session = parties();
    done(&open(&session, "session", &format!("--dp dp {more}")));
    for client in first..=5 {
        let update = format!("in/client-{client}.safetensors");
        let line = mask_command("session", client, &update, &format!("--integers own-{client}.safetensors"));
        done(&session.run(&line));
    }
    done(&session.sum());
    [1, 3].iter().for_each(|helper| done(&session.help(*helper)));
    session
}

fn terms(session: &Session) -> PrivacyTerms {
    session.manifest().terms.privacy.unwrap()
}

fn integers(dir: &Dir, path: &str) -> Vec<i64> {
    let bytes = Model::read(dir, path).bytes("w").to_vec();
    bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The variance of numbers around zero.
fn variance(numbers: impl Iterator<Item = f64>) -> f64 {
    let squares: Vec<f64> = numbers.map(|number| number * number).collect();
    squares.iter().sum::<f64>() / squares.len() as f64
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    // The variance of 20,000 draws has a relative deviation of 1 %.
    assert!((found / expected - 1.0).abs() < 0.05, "found {found}, expected {expected}");
}

/// The charges of secure sums in a ledger.
fn charges(dir: &Dir) -> Vec<Value> {
    let ledger = fs::read_to_string(dir.path("dp/ledger.jsonl")).unwrap();
    let lines = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = lines.filter_map(|line| find(&line, "secure").cloned());
    found.collect()
}

/// The first value of a key, at any depth.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => {
            fields.get(key).or_else(|| fields.values().find_map(|field| find(field, key)))
        }
        _ => None,
    }
}

#[test]
fn a_sum_has_the_noise_of_its_clients() {
    let session = answered(2, "--colluders 1");
    done(&session.run(&format!("{UNMASK} --dp dp")));
    let (terms, sums) = (terms(&session), integers(&session.dir, "sums.safetensors"));
    let draw = Level::L2.variance() as f64;
    // Four clients with zeros: their sum is their noise.
    assert_close(variance(sums.iter().map(|sum| *sum as f64)), 4.0 * draw);
    assert_eq!(terms.norm_bound, (3.0 * draw).sqrt() as u64, "three honest clients");
    let own: Vec<Vec<i64>> =
        (2..=5).map(|client| integers(&session.dir, &format!("own-{client}.safetensors"))).collect();
    let plain: Vec<i64> = (0..MANY).map(|value| own.iter().map(|client| client[value]).sum()).collect();
    assert_eq!(sums, plain);
    own.iter().for_each(|own| assert_close(variance(own.iter().map(|own| *own as f64)), draw));
    assert_ne!(own[0], own[1]);
    let mean = Model::read(&session.dir, "mean.safetensors");
    let step = CLIP / terms.norm_bound as f64 / DENOMINATOR as f64;
    let expected: Vec<f32> = sums.iter().map(|sum| (*sum as f64 * step) as f32).collect();
    for (found, expected) in mean.f32("w").iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-6, "found {found}, expected {expected}");
    }
    assert_eq!(mean.metadata["num_examples"], DENOMINATOR.to_string());
    assert_eq!(
        charges(&session.dir),
        [serde_json::json!({
            "noise": "distributed", "session": session.manifest().session, "clients": 4, "draws": 3, "colluders": 1, "S": 2.0,
            "norm_bound": terms.norm_bound, "level": "L2", "d": MANY,
        })]
    );
    done(&session.run("verify session"));
    let status = fedmill(&session.dir, &["privacy", "status", "dp"]);
    assert!(status.stdout.contains("1 with distributed noise"), "{status:#?}");
}

#[test]
fn a_session_is_charged_once() {
    let session = answered(2, "");
    let unmask = format!("{UNMASK} --dp dp");
    done(&session.run(&unmask));
    let before = session.dir.contents();
    done(&session.run(&unmask));
    assert!(session.dir.contents() == before, "a second run changed a file");
    assert_eq!(charges(&session.dir).len(), 1);
    let spent = |line: &str| {
        let run = fedmill(&session.dir, &line.split_whitespace().collect::<Vec<_>>());
        serde_json::from_str::<Value>(&run.stdout).unwrap()["epsilon_rdp"].as_f64().unwrap()
    };
    let composed = spent("privacy compose --noise-multiplier 1 --rounds 1 --delta 1e-5 --json");
    let status = spent("privacy status dp --json");
    assert!((status / composed - 1.0).abs() < 1e-3, "{status}, expected {composed}");
}

#[test]
fn a_kill_at_any_step_costs_no_second_charge() {
    let session = answered(2, "--dp-noise central");
    let unmask = "unmask session --key keys/server -o mean.safetensors --dp dp";
    let before = session.dir.contents();
    done(&session.run(unmask));
    let whole = session.dir.read("mean.safetensors");
    for step in 1.. {
        for name in ["mean.safetensors", "session/transcript.json"] {
            let _ = fs::remove_file(session.dir.path(name));
        }
        fs::remove_dir_all(session.dir.path("dp")).unwrap();
        session.dir.restore(&before);
        let run = session.run_until(step, unmask);
        let is_published = session.dir.exists("mean.safetensors");
        assert!(
            !is_published || charges(&session.dir).len() == 1,
            "step {step}: published before it was charged"
        );
        done(&session.run(unmask));
        assert_eq!(charges(&session.dir).len(), 1, "step {step}");
        assert!(session.dir.read("mean.safetensors") == whole, "step {step}: other noise");
        if run.code == Some(0) {
            assert!(step > 5, "{step} steps");
            return;
        }
    }
}

#[test]
fn long_updates_have_the_norm_of_the_plan() {
    let session = answered(1, "--dp-noise central");
    let (bound, own) = (terms(&session).norm_bound, integers(&session.dir, "own-1.safetensors"));
    let squares: u128 = own.iter().map(|own| u128::from(own.unsigned_abs()).pow(2)).sum();
    assert!(squares <= u128::from(bound).pow(2));
    assert!(squares as f64 > 0.999 * (bound as f64).powi(2), "{squares}");
    let line = mask_command("session", 1, "in/client-1.safetensors", "");
    assert!(session.run(&line).stderr.contains("has the norm 1414.2135"));
}

/// The noise of wide draws would leave no room for the values: a small multiplier stands for many clients here.
#[test]
fn draws_are_narrower_where_wide_ones_leave_no_room() {
    let session = parties();
    budget(&session.dir, "narrow", "--noise-multiplier 0.001 --epsilon 1e9");
    done(&open(&session, "session", "--dp narrow"));
    for client in 2..=5 {
        done(&session.run(&mask_command("session", client, &format!("in/client-{client}.safetensors"), "")));
    }
    done(&session.sum());
    [1, 3].iter().for_each(|helper| done(&session.help(*helper)));
    done(&session.run(&format!("{UNMASK} --dp narrow")));
    let (terms, draw) = (terms(&session), Level::L1.variance() as f64);
    assert_eq!((terms.level, terms.norm_bound), (Level::L1, ((4.0 * draw).sqrt() / 0.001) as u64));
    let sums = integers(&session.dir, "sums.safetensors");
    assert_close(variance(sums.iter().map(|sum| *sum as f64)), 4.0 * draw);
    let ledger = fs::read_to_string(session.dir.path("narrow/ledger.jsonl")).unwrap();
    assert!(ledger.contains("\"level\":\"L1\""), "{ledger}");
    done(&session.run("verify session"));
}

#[test]
fn the_server_adds_central_noise() {
    let session = answered(2, "--dp-noise central");
    let unmask = "unmask session --key keys/server -o mean.safetensors --dp dp";
    session.run(&format!("{unmask} --sums sums.safetensors")).assert_fails(1, &["--sums", "central noise"]);
    session.assert_nothing_published();
    done(&session.run(unmask));
    let (terms, mean) = (terms(&session), Model::read(&session.dir, "mean.safetensors"));
    assert!(integers(&session.dir, "own-2.safetensors").iter().all(|own| *own == 0), "clients add no noise");
    let unit = terms.norm_bound as f64 / CLIP * DENOMINATOR as f64;
    let noise = mean.f32("w").iter().map(|mean| f64::from(*mean) * unit).collect::<Vec<_>>();
    assert_close(variance(noise.iter().copied()), Level::L2.variance() as f64);
    let origin: Value = serde_json::from_str(&mean.metadata["fedmill.secagg"]).unwrap();
    assert_eq!((&origin["noise"], &origin["clients"]), (&"central".into(), &Value::Null));
    assert_eq!(charges(&session.dir)[0]["noise"], "central");
    // The same set has the same noise, and another session has another.
    let whole = session.dir.read("mean.safetensors");
    done(&session.run(unmask));
    assert!(session.dir.read("mean.safetensors") == whole);
    done(&session.run("verify session"));
}

#[test]
fn what_no_budget_covers_is_refused() {
    let session = answered(2, "");
    session.run(UNMASK).assert_fails(1, &["opened under a privacy budget", "--dp"]);
    budget(&session.dir, "other", "--rounds 9");
    session.run(&format!("{UNMASK} --dp other")).assert_fails(1, &["other", "its plan has the digest"]);
    session.run(&format!("{UNMASK} --dp none")).assert_fails(2, &["none", "privacy init"]);
    session.assert_nothing_published();
    budget(&session.dir, "sampled", "--sampling poisson --sampling-rate 0.1");
    open(&session, "second", "--dp sampled").assert_fails(1, &["sampling", "who took part"]);
    open(&session, "second", "--dp dp --colluders 4").assert_fails(2, &["--colluders", "4 colluders"]);
    open(&session, "second", "--dp dp --dp-noise central --colluders 1").assert_fails(2, &["--colluders"]);
    let others = ["--clip 1", "--weights examples:cap=4", "--steps-cap 3", "--levels 9", "--control-clip 1"];
    for other in
        others.into_iter().chain(["--groups 2", "--values-per-lane 2", "--statistics-clip 1", "--keep 9"])
    {
        open(&session, "second", &format!("--dp dp {other}")).assert_fails(2, &["cannot be used with"]);
    }
    assert!(!session.dir.exists("second"));
    let plain = Session::summed(4, 3, &[1, 2, 3], "");
    [1, 2].iter().for_each(|helper| done(&plain.help(*helper)));
    budget(&plain.dir, "dp", "");
    plain.run(&format!("{UNMASK} --dp dp")).assert_fails(1, &["opened without a privacy budget"]);
    plain.assert_nothing_published();
}

#[test]
fn a_sum_over_the_budget_is_not_published() {
    let session = parties();
    // One round of this multiplier, and not two.
    budget(&session.dir, "small", "--epsilon 6 --rounds 1");
    ["session", "second"].iter().for_each(|folder| done(&open(&session, folder, "--dp small")));
    for (folder, code) in [("session", 0), ("second", 1)] {
        for client in 2..=5 {
            let update = format!("in/client-{client}.safetensors");
            done(&session.run(&mask_command(folder, client, &update, "--allow-again")));
        }
        done(&session.run(&format!("sum {folder} --key keys/server")));
        for helper in [1, 2] {
            done(&session.run(&format!("help {folder} --key helpers/helper-{helper}")));
        }
        let run = session
            .run(&format!("unmask {folder} --key keys/server -o {folder}-mean.safetensors --dp small"));
        assert_eq!(run.code, Some(code), "{run:#?}");
        assert_eq!(session.dir.exists(&format!("{folder}-mean.safetensors")), code == 0);
        assert!(code == 0 || run.stderr.contains("over the privacy budget"), "{run:#?}");
    }
    assert!(!session.dir.exists("second/transcript.json"));
    open(&session, "third", "--dp small").assert_fails(1, &["over the privacy budget"]);
    assert!(!session.dir.exists("third"));
}

#[test]
fn a_manifest_with_less_noise_is_refused() {
    let session = answered(2, "");
    let mut terms = session.manifest().terms;
    let privacy = terms.privacy.as_mut().unwrap();
    privacy.norm_bound *= 2;
    let why = terms.check().unwrap_err();
    assert!(why.contains("norm_bound"), "{why}");
    let mut terms = session.manifest().terms;
    terms.clip *= 2.0;
    assert!(terms.check().unwrap_err().contains("clip is"));
    assert_eq!(identity("server").verifying(), terms.server.ed25519);
}

#[test]
fn a_session_is_charged_to_its_own_budget_as_it_is_now() {
    let session = answered(2, "");
    let copy = |from: &str, to: &str| {
        let script = format!("rm -rf {to} && cp -a {from} {to}");
        let folder = session.dir.path("");
        let copied = std::process::Command::new("sh").args(["-c", &script]).current_dir(folder).status();
        assert!(copied.unwrap().success());
    };
    // The same plan, and another ledger.
    budget(&session.dir, "twin", "");
    session
        .run(&format!("{UNMASK} --dp twin"))
        .assert_fails(1, &["twin: is not the budget by which the session was opened", "lacks record"]);
    copy("dp", "older");
    done(&session.run(&format!("{UNMASK} --dp dp")));
    // A session that was opened after the charge does not take the ledger from before it.
    done(&open(&session, "second", "--dp dp"));
    for client in 2..=5 {
        let update = format!("in/client-{client}.safetensors");
        done(&session.run(&mask_command("second", client, &update, "--allow-again")));
    }
    done(&session.run("sum second --key keys/server"));
    for helper in [1, 3] {
        done(&session.run(&format!("help second --key helpers/helper-{helper}")));
    }
    let second = "unmask second --key keys/server -o second.safetensors";
    session.run(&format!("{second} --dp older")).assert_fails(1, &["an older copy of it", "record 1"]);
    assert!(!session.dir.exists("second.safetensors"));
    done(&session.run(&format!("{second} --dp dp")));
    assert_eq!(charges(&session.dir).len(), 2);
}

#[test]
fn options_of_a_budget_need_one_and_its_tensors() {
    let session = parties();
    for option in ["--dp-noise central", "--colluders 1"] {
        open(&session, "session", &format!("--clip 1 {option}")).assert_fails(2, &["found no --dp"]);
    }
    for keep in ["1.0", "0", "0.0", "1.5"] {
        open(&session, "session", &format!("--clip 1 --keep {keep}")).assert_fails(2, &["--keep", keep]);
    }
    Update::new("base").f32("v", &[MANY], &vec![0.5; MANY]).write(&session.dir);
    open(&session, "session", "--dp dp").assert_fails(2, &["the round clips other tensors"]);
    assert!(!session.dir.exists("session"));
}
