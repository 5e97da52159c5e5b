//! What a round checks before its charge: a budget is neither dodged nor wasted.

use crate::harness::{Dir, Model, Run, Update, fedmill};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// A base of zeros and `clients` updates in `in`.
fn folder(clients: usize) -> Dir {
    let dir = Dir::new();
    Update::new("base").f32("w", &[8], &[0.0; 8]).write(&dir);
    for client in 0..clients {
        Update::new(&format!("in/c{client:02}")).meta("kind", "delta").f32("w", &[8], &[0.01; 8]).write(&dir);
    }
    dir
}

const PLAN: &str = "--epsilon 8 --delta 1e-6 --clip 1 --base base.safetensors";

#[track_caller]
fn init(dir: &Dir, name: &str, plan: &str) {
    let run = fedmill(dir, &words(&format!("privacy init {name} {PLAN} {plan}")));
    assert_eq!(run.code, Some(0), "{run:#?}");
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn release(dir: &Dir, args: &str) -> Run {
    fedmill(dir, &words(&format!("aggregate --base base.safetensors {args}")))
}

fn charges(dir: &Dir, name: &str) -> u64 {
    let status = fedmill(dir, &words(&format!("privacy status {name} --json")));
    serde_json::from_str::<Value>(&status.stdout).unwrap()["charges"].as_u64().unwrap()
}

const ALL: &str = "--sampling all --population 1000 --denominator 10 --rounds 5";

#[test]
fn an_output_that_cannot_be_written_costs_nothing() {
    let dir = folder(2);
    init(&dir, "p", ALL);
    let long = format!("{}.safetensors", "a".repeat(250));
    for output in [long.as_str(), "missing/m.safetensors"] {
        let run = release(&dir, &format!("--dp p in -o {output}"));
        assert_eq!((run.code, charges(&dir, "p")), (Some(2), 0), "{run:#?}");
    }
    let long = "a".repeat(250);
    for more in [format!("--report {long}"), format!("--strategy fedavgm --state {long}")] {
        let run = release(&dir, &format!("--dp p in -o m.safetensors {more}"));
        assert_eq!((run.code, charges(&dir, "p")), (Some(2), 0), "{run:#?}");
        assert!(!dir.exists("m.safetensors"));
    }
}

fn has_complete_outputs(dir: &Dir) -> bool {
    let is_complete = |bytes: &[u8]| !String::from_utf8_lossy(bytes).contains("\"outputs\":null");
    dir.contents().iter().any(|(name, bytes)| name.starts_with("p/outputs-") && is_complete(bytes))
}

/// A folder whose first round was stopped when its outputs were complete and had no names.
fn stopped_with_complete_outputs(args: &str) -> Dir {
    let stopped = |step: u32| {
        let dir = folder(2);
        init(&dir, "p", ALL);
        let mut command = std::process::Command::new(crate::harness::program());
        command.current_dir(dir.path("")).args(words(args)).env("FEDMILL_FAIL_AT", step.to_string());
        command.output().unwrap();
        has_complete_outputs(&dir).then_some(dir)
    };
    (1..60).find_map(stopped).unwrap()
}

/// A release whose outputs cannot get their names waits for the next run, which charges nothing.
#[test]
fn what_fails_after_the_charge_is_tried_again_without_a_second_charge() {
    let args = "aggregate --base base.safetensors --dp p in -o m.safetensors --report r.json \
                --strategy fedavgm --state s.safetensors";
    let dir = stopped_with_complete_outputs(args);
    let complete = || has_complete_outputs(&dir);
    let paid = charges(&dir, "p");
    let waiting =
        |dir: &Dir| dir.names().into_iter().filter(|name| name.ends_with("-kept.fedmill-tmp")).count();
    assert_eq!(waiting(&dir), 3, "{:?}", dir.names());
    // Another release to the same path does not remove what waits.
    release(&dir, "--dp p --round 9 in -o m.safetensors").assert_merged("m.safetensors");
    assert_eq!(waiting(&dir), 3);
    let recover = fedmill(&dir, &["privacy", "recover", "p"]);
    assert!(recover.stdout.contains("outputs are complete, but could not get their names"), "{recover:#?}");
    let run = fedmill(&dir, &words(args));
    run.assert_merged("m.safetensors");
    assert!(run.stderr.contains("nothing is charged"), "{run:#?}");
    assert_eq!(charges(&dir, "p"), paid + 1);
    assert!(dir.exists("r.json") && dir.exists("s.safetensors"));
    assert_eq!((waiting(&dir), complete()), (0, false));
    assert_eq!(fedmill(&dir, &["privacy", "verify", "p"]).code, Some(0));
}

/// A charge that is voided leaves no output behind.
#[test]
fn outputs_of_a_voided_charge_are_removed() {
    let args = "aggregate --base base.safetensors --dp p in -o m.safetensors";
    let dir = stopped_with_complete_outputs(args);
    let complete = || has_complete_outputs(&dir);
    let status = fedmill(&dir, &["privacy", "status", "p", "--json"]).stdout;
    let open = serde_json::from_str::<Value>(&status).unwrap()["open"].as_array().unwrap().clone();
    let last = open.last().unwrap().to_string();
    let void = fedmill(&dir, &["privacy", "void", "p", "--seq", &last, "--attest", "the machine was off"]);
    assert_eq!(void.code, Some(0), "{void:#?}");
    assert!(!complete() && !dir.names().iter().any(|name| name.contains("-kept")), "{:?}", dir.names());
}

/// An F16 base at the end of its range: found before the charge, as often as it is tried.
#[test]
fn noise_that_leaves_the_dtype_of_the_base_costs_nothing() {
    let dir = folder(0);
    let half = |name: &str, value: f32| {
        let bits = half::f16::from_f32(value).to_bits();
        Update::new(name).half("w", "F16", &[64], &[bits; 64]).write(&dir);
    };
    half("base", 65504.0);
    half("in/a", 65504.0);
    let plan = "--sampling all --population 10 --denominator 10 --rounds 5";
    let large = plan.replace("--denominator", "--clip 1000 --denominator");
    let args = format!("privacy init p {} {large}", PLAN.replace("--clip 1 ", ""));
    assert_eq!(fedmill(&dir, &words(&args)).code, Some(0));
    for _ in 0..3 {
        let run = release(&dir, "--dp p in -o o.safetensors");
        run.assert_fails(2, &["`w`", "65504", "F16", "nothing was charged"]);
        assert_eq!(charges(&dir, "p"), 0);
    }
    // A base with room for the noise is released.
    half("base", 100.0);
    half("in/a", 100.0);
    init(&dir, "q", plan);
    release(&dir, "--dp q in -o o.safetensors").assert_merged("o.safetensors");
}

/// An output in the state directory could replace the ledger, or be wiped with a key.
#[test]
fn no_output_is_in_the_state_directory() {
    let dir = folder(2);
    init(&dir, "p", ALL);
    let ledger = dir.read("p/ledger.jsonl");
    for output in ["p/ledger.jsonl", "p/plan.lock", "p/key-1", "p/new.safetensors", "./p/../p/head"] {
        for command in [
            format!("aggregate --dp p --base base.safetensors in -o {output}"),
            format!("aggregate --dp p --base base.safetensors in -o m.safetensors --report {output}"),
            format!(
                "aggregate --dp p --base base.safetensors in -o m.safetensors --strategy fedadam --state {output}"
            ),
            format!("privacy clip p --base base.safetensors in -o {output}"),
            format!("privacy export p --format csv -o {output}"),
        ] {
            fedmill(&dir, &words(&command)).assert_fails(2, &["is in the state directory ", "outside it"]);
        }
        // Commands that do not open the budget, and runs that end before they would.
        for command in [
            format!("aggregate --base base.safetensors in -o {output}"),
            format!("aggregate --base base.safetensors in -o m.safetensors --report {output}"),
            format!("aggregate --dp p --base base.safetensors in -o m.safetensors --report {output} --bogus"),
            format!("aggregate --dp p --base base.safetensors in --report {output} --strategy fedadam -o m"),
            format!("compress in/c00.safetensors --codec u4 -o {output}"),
            format!(
                "personalize --global base.safetensors --personal base.safetensors --mix 0.5 -o {output}"
            ),
        ] {
            fedmill(&dir, &words(&command)).assert_fails(2, &["is in the state directory", "outside it"]);
        }
    }
    assert_eq!(dir.read("p/ledger.jsonl"), ledger);
    assert!(!dir.exists("p/key-1") && !dir.exists("p/new.safetensors") && !dir.exists("m.safetensors"));
}

#[test]
fn a_base_of_a_voided_charge_is_refused() {
    let dir = stopped_with_complete_outputs("aggregate --base base.safetensors --dp p in -o x.safetensors");
    // A copy of the complete model, made before it had its name.
    let kept = dir.names().into_iter().find(|name| name.contains("-kept")).unwrap();
    std::fs::copy(dir.path(&kept), dir.path("base2.safetensors")).unwrap();
    let void = fedmill(&dir, &["privacy", "void", "p", "--seq", "1", "--attest", "it was never seen"]);
    assert_eq!(void.code, Some(0), "{void:#?}");
    let run = fedmill(&dir, &words("aggregate --dp p --base base2.safetensors in -o z.safetensors"));
    run.assert_fails(2, &["base2.safetensors", "charge 1, which was voided: `it was never seen`"]);
    // A merge without privacy carries the charge onward, however many follow.
    let mut base = "base2.safetensors".to_owned();
    for next in ["n1.safetensors", "n2.safetensors"] {
        fedmill(&dir, &words(&format!("aggregate --base {base} in -o {next}"))).assert_merged(next);
        base = next.to_owned();
        let run = fedmill(&dir, &words(&format!("aggregate --dp p --base {base} in -o z.safetensors")));
        run.assert_fails(2, &[&*base, "charge 1, which was voided"]);
    }
    // At the output they show that the statement is wrong, so they are not replaced.
    let before = dir.contents();
    for output in ["base2.safetensors", "n1.safetensors", "n2.safetensors"] {
        let run = release(&dir, &format!("--dp p in -o {output}"));
        run.assert_fails(
            2,
            &[output, "voided: `it was never seen`", "would replace it", "the statement is wrong"],
        );
    }
    dir.assert_unchanged_since(&before);
    assert_eq!(charges(&dir, "p"), 0);
}

#[test]
fn a_base_with_noise_from_a_test_seed_marks_what_follows() {
    let dir = folder(2);
    for ledger in ["p", "q"] {
        init(&dir, ledger, ALL);
    }
    release(&dir, "--dp p in -o seeded.safetensors --test-seed 3").assert_merged("seeded.safetensors");
    fedmill(&dir, &words("aggregate --base seeded.safetensors in -o plain.safetensors"))
        .assert_merged("plain.safetensors");
    let marks = Model::read(&dir, "plain.safetensors").metadata;
    assert!(marks["fedmill.privacy.base.test_seed"].contains("NOT private"));
    assert!(!marks.contains_key("fedmill.privacy.release"), "{marks:?}");
    // The mark also comes from an update, from a partial of one, and from the model of a client.
    for (made, command) in [
        ("update", "aggregate seeded.safetensors --base base.safetensors --kind weights"),
        ("alone", "aggregate seeded.safetensors"),
        ("partial", "aggregate seeded.safetensors --base base.safetensors --partial"),
        ("tree", "aggregate --partials partial.safetensors --base base.safetensors"),
        ("mixture", "personalize --global base.safetensors --personal seeded.safetensors --mix 0.5"),
        ("twice", "personalize --global base.safetensors --personal mixture.safetensors --mix 0.5"),
    ] {
        let run = fedmill(&dir, &words(&format!("{command} -o {made}.safetensors")));
        run.assert_merged(&format!("{made}.safetensors"));
        assert!(run.stderr.contains("safetensors: its noise came from a test seed"), "{run:#?}");
        let marks = Model::read(&dir, &format!("{made}.safetensors")).metadata;
        assert!(marks["fedmill.privacy.base.test_seed"].contains("NOT private"), "{made}: {marks:?}");
    }
    for base in ["update", "alone", "tree", "mixture", "twice"] {
        let next = format!("aggregate --dp p --base {base}.safetensors in -o next.safetensors");
        fedmill(&dir, &words(&next)).assert_fails(2, &[&format!("{base}.safetensors"), "test seed"]);
    }
    for (ledger, base) in [("p", "seeded"), ("q", "seeded"), ("p", "plain"), ("q", "plain")] {
        let next = format!("aggregate --dp {ledger} --base {base}.safetensors in -o next.safetensors");
        fedmill(&dir, &words(&next)).assert_fails(2, &[&format!("{base}.safetensors"), "test seed"]);
        fedmill(&dir, &words(&format!("{next} --test-seed 4"))).assert_merged("next.safetensors");
        let metadata = Model::read(&dir, "next.safetensors").metadata;
        assert!(metadata["fedmill.privacy.test_seed"].contains("NOT private"));
    }
}

#[test]
fn a_round_without_any_update_is_refused_unless_it_is_meant() {
    let dir = folder(0);
    std::fs::create_dir(dir.path("empty")).unwrap();
    Update::new("bad/x").f32("w", &[8], &[f32::NAN; 8]).write(&dir);
    Update::new("bad/y").f32("other", &[8], &[0.0; 8]).write(&dir);
    init(&dir, "p", ALL);
    for inbox in ["empty", "bad", "", "empty --resumable"] {
        let run = release(&dir, &format!("--dp p {inbox} -o m.safetensors"));
        run.assert_fails(1, &["no update counts", "--allow-empty"]);
    }
    assert_ne!(release(&dir, "--dp p misspelt -o m.safetensors").code, Some(0));
    assert_eq!(charges(&dir, "p"), 0);
    let sum = fedmill(&dir, &words("privacy clip p --base base.safetensors -o sum.safetensors bad"));
    assert_eq!(sum.code, Some(0), "{sum:#?}");
    let noise = "privacy noise p --base base.safetensors -o m.safetensors sum.safetensors";
    fedmill(&dir, &words(noise)).assert_fails(1, &["no update counts"]);
    assert_eq!(charges(&dir, "p"), 0);
    fedmill(&dir, &words(&format!("{noise} --allow-empty"))).assert_merged("m.safetensors");
    release(&dir, "--dp p empty -o n.safetensors --allow-empty").assert_merged("n.safetensors");
    assert_eq!(charges(&dir, "p"), 2);
}

/// Runs `change` again and again until the returned value is dropped.
struct Meanwhile(std::sync::Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

fn meanwhile(mut change: impl FnMut() + Send + 'static) -> Meanwhile {
    let goes_on = std::sync::Arc::new(AtomicBool::new(true));
    let flag = goes_on.clone();
    let thread = std::thread::spawn(move || {
        while flag.load(Ordering::Relaxed) {
            change();
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    });
    Meanwhile(goes_on, Some(thread))
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// Values that differ from round to round count as zero or as one of them. A time alone changes nothing.
#[test]
fn digests_decide_whether_a_client_changed() {
    const LEN: usize = 300_000;
    let dir = Dir::new();
    let model = |name: &str, value: f32| Update::new(name).f32("w", &[LEN], &vec![value; LEN]).write(&dir);
    model("base", 0.0);
    model("in/one", 1e-3);
    model("in/two", 1e-3);
    let path = dir.path("in/two.safetensors");
    init(&dir, "p", ALL);
    let first = |output: &str| {
        release(&dir, &format!("--dp p in -o {output} --test-seed 1")).assert_merged(output);
        f64::from(Model::read(&dir, output).f32("w")[LEN - 1])
    };
    let (both, one) = {
        let both = first("both.safetensors");
        std::fs::rename(&path, dir.path("two.safetensors")).unwrap();
        let one = first("one.safetensors");
        std::fs::rename(dir.path("two.safetensors"), &path).unwrap();
        (both, one)
    };
    assert!(both > one);
    let touched = path.clone();
    let touching = meanwhile(move || {
        std::fs::File::options()
            .write(true)
            .open(&touched)
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
    });
    assert_eq!(first("touched.safetensors"), both);
    drop(touching);
    // The last value, so that a half-changed file has another digest too.
    let mut value = 0.0_f32;
    let changing = meanwhile(move || {
        use std::os::unix::fs::FileExt;
        value += 1e-6;
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&value.to_le_bytes(), end - 4).unwrap();
    });
    let run = release(&dir, "--dp p in -o changed.safetensors --test-seed 1");
    run.assert_merged("changed.safetensors");
    drop(changing);
    let changed = f64::from(Model::read(&dir, "changed.safetensors").f32("w")[LEN - 1]);
    if run.stderr.contains("two.safetensors: changed while the run read it: the client counts as zero") {
        assert_eq!(changed, one, "{run:#?}");
    }
    assert_eq!(charges(&dir, "p"), 4, "each release is charged once");
}

#[test]
fn numbers_of_clients_that_contradict_the_plan_are_refused_or_shown() {
    let dir = folder(40);
    let sampled = "--population 1000 --sampling-rate 0.01 --rounds 3";
    init(&dir, "poisson", &format!("{sampled} --sampling poisson"));
    init(&dir, "fixed", &format!("{sampled} --sampling fixed --adjacency replace-one"));
    for ledger in ["poisson", "fixed"] {
        let said = "40 clients contradict the plan's sampling, which gives 10";
        let run = release(&dir, &format!("--dp {ledger} --round 1 in -o {ledger}.safetensors"));
        run.assert_merged(&format!("{ledger}.safetensors"));
        assert!(run.stderr.contains(said), "{run:#?}");
        let status = fedmill(&dir, &["privacy", "status", ledger]).stdout;
        assert!(status.contains("charges 1: their numbers of clients contradict it"), "{status}");
        let json = fedmill(&dir, &["privacy", "status", ledger, "--json"]).stdout;
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["contradicting"], serde_json::json!([1]));
        let verify = fedmill(&dir, &["privacy", "verify", ledger]);
        assert_eq!(verify.code, Some(0));
        assert!(verify.stdout.contains(&format!("charge 1: {said}")), "{verify:#?}");
        let card = fedmill(&dir, &["privacy", "export", ledger, "--format", "csv"]).stdout;
        assert!(!card.contains("contradict"), "exports do not show numbers of clients: {card}");
    }
    init(&dir, "few", "--sampling all --population 20 --rounds 3");
    release(&dir, "--dp few in -o few.safetensors").assert_fails(1, &["40 clients", "population is 20"]);
    assert_eq!(charges(&dir, "few"), 0);
    // The number that the plan gives is no news.
    for client in 10..40 {
        std::fs::remove_file(dir.path(&format!("in/c{client}.safetensors"))).unwrap();
    }
    let run = release(&dir, "--dp fixed --round 2 in -o fixed.safetensors");
    assert!(run.code == Some(0) && !run.stderr.contains("contradict"), "{run:#?}");
}

#[test]
fn a_clip_rate_that_can_overflow_is_refused_at_init() {
    let dir = folder(1);
    let adaptive = format!("{ALL} --noise-multiplier 2 --adaptive-clip --count-noise 5 --clip-rate");
    for rate in ["2000", "100", "14", "inf"] {
        let args = format!("privacy init p {PLAN} {adaptive} {rate}");
        fedmill(&dir, &words(&args)).assert_fails(2, &["rate of the clip bound", "factor of 1000"]);
        assert!(!dir.exists("p"));
    }
    init(&dir, "p", &format!("{adaptive} 5"));
}

/// A round that is paid again, and a charge that a rerun would finish, are named before the next charge.
#[test]
fn a_charge_that_repeats_another_is_a_warning() {
    let dir = folder(3);
    init(&dir, "p", ALL);
    let first = release(&dir, "--dp p --round 1 in -o one.safetensors");
    assert!(!first.stderr.contains("charge"), "{first:#?}");
    std::fs::remove_file(dir.path("in/c02.safetensors")).unwrap();
    let again = release(&dir, "--dp p --round 1 in -o two.safetensors");
    again.assert_merged("two.safetensors");
    assert_eq!(again.stderr.matches("round 1 has charge 1 of other inputs").count(), 1, "{again:#?}");
    assert!(!again.stderr.contains("is not recorded"), "{again:#?}");

    let dir = stopped_with_complete_outputs("aggregate --base base.safetensors --dp p in -o m.safetensors");
    std::fs::remove_file(dir.path("in/c01.safetensors")).unwrap();
    let other = release(&dir, "--dp p in -o n.safetensors");
    other.assert_merged("n.safetensors");
    assert!(other.stderr.contains("charge 1 is paid and its release is not recorded"), "{other:#?}");
    let void = fedmill(&dir, &words("privacy void p --seq 7 --attest x"));
    assert_eq!(void.code, Some(1), "{void:#?}");
    assert!(void.stderr.contains("no charge of the ledger has this number"), "{void:#?}");
    assert_eq!(fedmill(&dir, &words("privacy verify p")).code, Some(0));
}

#[test]
fn another_output_of_a_released_round_gets_the_same_bytes() {
    let dir = folder(1);
    init(&dir, "p", "--population 1000 --denominator 10 --mechanism dp-ftrl:bands=2 --rounds 4");
    release(&dir, "--dp p --round 1 in -o one.safetensors").assert_merged("one.safetensors");
    let again = release(&dir, "--dp p --round 1 in -o two.safetensors");
    again.assert_merged("two.safetensors");
    assert!(again.stderr.contains("one.safetensors is already the release"), "{again:#?}");
    assert!(dir.read("two.safetensors") == dir.read("one.safetensors"));
    release(&dir, "--dp p --round 1 in -o one.safetensors").assert_merged("one.safetensors");
    assert_eq!(charges(&dir, "p"), 1);
}

fn mode(dir: &Dir, file: &str) -> u32 {
    std::fs::metadata(dir.path(file)).unwrap().permissions().mode() & 0o777
}

fn set_mode(dir: &Dir, file: &str, mode: u32) {
    std::fs::set_permissions(dir.path(file), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_report_of_a_private_round_goes_to_a_file_alone() {
    let dir = folder(1);
    init(&dir, "p", ALL);
    for stream in ["-", "/dev/stderr"] {
        let run = release(&dir, &format!("--dp p in -o m.safetensors --report {stream}"));
        assert_eq!(run.code, Some(2), "{run:#?}");
        let why = "as a file that only its owner may read, and keeps it with the model";
        assert!(run.stderr.contains(why) && run.stderr.contains("name a file"), "{run:#?}");
    }
    let drawn = release(&dir, "--dp p in -o m.safetensors --plot p.svg");
    assert!(drawn.code == Some(2) && drawn.stderr.contains("--plot"), "{drawn:#?}");
    assert_eq!((charges(&dir, "p"), dir.exists("m.safetensors")), (0, false));
}

#[test]
fn sums_and_reports_are_for_their_owner_alone() {
    let dir = folder(2);
    init(&dir, "p", ALL);
    let clip = "privacy clip p --base base.safetensors -o sum.safetensors in";
    assert_eq!(fedmill(&dir, &words(clip)).code, Some(0));
    let sum = "privacy sum p --base base.safetensors -o all.safetensors sum.safetensors";
    assert_eq!(fedmill(&dir, &words(sum)).code, Some(0));
    release(&dir, "--dp p in -o m.safetensors --report r.json").assert_merged("m.safetensors");
    for file in ["sum.safetensors", "all.safetensors", "r.json"] {
        assert_eq!(mode(&dir, file), 0o600, "{file}");
    }
    assert_ne!(mode(&dir, "m.safetensors"), 0o600, "a release may be public");
    let report = dir.json("r.json");
    assert_eq!(report["clients"], serde_json::json!([]));
    assert_eq!(report["settings"]["on_bad_update"], "skip", "as every round does under --dp");
    assert!(report["warnings"].to_string().contains("keep it private"), "{report}");
    assert!(!report.to_string().contains("in/"), "no file of a client: {report}");
    let run = release(&dir, "--dp p in -o n.safetensors --report c.json --report-clients --release-again");
    run.assert_merged("n.safetensors");
    assert_eq!(dir.json("c.json")["clients"].as_array().unwrap().len(), 2);
    // An output that exists keeps its mode.
    set_mode(&dir, "sum.safetensors", 0o640);
    set_mode(&dir, "r.json", 0o644);
    set_mode(&dir, "m.safetensors", 0o600);
    assert_eq!(fedmill(&dir, &words(clip)).code, Some(0));
    release(&dir, "--dp p in --round 2 -o m.safetensors --report r.json").assert_merged("m.safetensors");
    let modes = ["sum.safetensors", "r.json", "m.safetensors"].map(|file| mode(&dir, file));
    assert_eq!(modes, [0o640, 0o644, 0o600]);
}
