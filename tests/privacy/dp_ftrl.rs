//! Series with correlated noise, by the program: one charge, each round released once.

use crate::harness::{Dir, Model, Run, Update, fedmill, program};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The options that all plans of these tests share.
const PLAN: &str = "--population 100 --epsilon 8 --delta 1e-3 --noise-multiplier 1.5 --clip 1 --denominator 2 \
                    --base base.safetensors";

/// Number of float coordinates.
const VALUES: usize = 200;

fn privacy(dir: &Dir, args: &str) -> Run {
    let args: Vec<&str> = ["privacy"].into_iter().chain(args.split_whitespace()).collect();
    fedmill(dir, &args)
}

#[track_caller]
fn done(run: &Run) -> &str {
    assert_eq!(run.code, Some(0), "{run:#?}");
    &run.stdout
}

/// A base of zeros with a counter, four clients, and a ledger in `dp`.
fn started(plan: &str) -> Dir {
    let dir = Dir::new();
    let model = |name: &str, value: f32| {
        let values: Vec<f32> = (0..VALUES).map(|i| value * (i % 7) as f32).collect();
        Update::new(name).i64("counter", &[3], &[1, 2, 3]).f32("w", &[VALUES], &values).write(&dir);
    };
    model("base", 0.0);
    for (client, value) in [("ada", 0.01), ("bob", -0.02), ("cy", 0.005), ("dee", 9.0)] {
        model(client, value);
    }
    std::fs::create_dir(dir.path("empty")).unwrap();
    done(&privacy(&dir, &format!("init dp {PLAN} {plan}")));
    dir
}

/// The usual plan: 4 rounds, each client in at most two rounds, at least two apart.
const BANDED: &str = "--mechanism dp-ftrl:bands=3 --rounds 4 --participations 2 --min-separation 2";

fn arguments(round: u32, clients: &str, more: &str) -> Vec<String> {
    let paths = clients.split_whitespace().map(|client| match client {
        "empty" => "empty".to_owned(),
        client => format!("{client}.safetensors"),
    });
    let output = format!("r{round}.safetensors");
    let rest = format!("--base base.safetensors --dp dp --allow-empty --round {round} -o {output} {more}");
    let rest: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    ["aggregate".to_owned()].into_iter().chain(paths).chain(rest).collect()
}

fn round(dir: &Dir, round: u32, clients: &str, more: &str) -> Run {
    let arguments = arguments(round, clients, more);
    fedmill(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn values(dir: &Dir, round: u32) -> Vec<f32> {
    Model::read(dir, &format!("r{round}.safetensors")).f32("w")
}

fn status(dir: &Dir) -> Value {
    serde_json::from_str(done(&privacy(dir, "status dp --json"))).unwrap()
}

fn names(dir: &Dir, prefix: &str) -> Vec<String> {
    let names = dir.contents().into_keys().filter_map(|name| Some(name.strip_prefix("dp/")?.to_owned()));
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn the_first_round_pays_for_a_series() {
    for plan in [BANDED, "--mechanism dp-ftrl:tree --rounds 4", "--mechanism dp-ftrl --rounds 4"] {
        let dir = started(plan);
        let before = status(&dir);
        assert_eq!((&before["rounds_left"], &before["epsilon_spent"]), (&4.into(), &0.0.into()), "{plan}");
        done(&round(&dir, 1, "ada bob", ""));
        let first = status(&dir);
        assert!(first["epsilon_spent"].as_f64().unwrap() > 1.0);
        done(&round(&dir, 2, "cy dee", ""));
        // Round 3 does not run.
        done(&round(&dir, 4, "empty", ""));
        let last = status(&dir);
        for what in ["epsilon_spent", "epsilon_rdp", "epsilon_pld"] {
            assert_eq!(last[what], first[what], "{plan}: {what}");
        }
        assert_eq!((&last["rounds_left"], &last["releases"]), (&0.into(), &3.into()));
        assert_eq!(last["follows_plan"], true);
        let models: Vec<String> = [1, 2, 4].map(|round| format!("r{round}.safetensors")).to_vec();
        done(&privacy(&dir, &format!("verify dp --model {}", models.join(" "))));
        assert_eq!(names(&dir, "run-key").len() + names(&dir, "clients-key").len(), 0, "{plan}: wiped");
        assert_eq!(names(&dir, "noise").len(), 0, "{plan}");
    }
}

/// A series of any number of rounds costs as much as one Gaussian, and calibration agrees.
#[test]
fn a_series_costs_as_much_as_one_gaussian() {
    let dir = started(BANDED);
    done(&round(&dir, 1, "ada", ""));
    let spent = status(&dir)["epsilon_spent"].as_f64().unwrap();
    let composed = "compose --noise-multiplier 1.5 --rounds 1 --delta 1e-3 --json";
    let composed: Value = serde_json::from_str(done(&privacy(&dir, composed))).unwrap();
    let alone = composed["epsilon_pld"].as_f64().unwrap();
    assert!((spent - alone).abs() < 1e-3 * alone, "{spent}, {alone}");
    let calibrated = |args: &str| -> Value {
        let args = format!("calibrate --epsilon 2 --delta 1e-5 --json {args}");
        serde_json::from_str(done(&privacy(&dir, &args))).unwrap()
    };
    let (series, one) = (calibrated("--mechanism dp-ftrl --rounds 500"), calibrated("--rounds 1"));
    assert_eq!(series["noise_multiplier"], one["noise_multiplier"]);
    assert_eq!((&series["rounds"], &one["rounds"]), (&500.into(), &1.into()));
    // The cost of the grid is that of all rounds.
    let coarse =
        |rounds| calibrated(&format!("--mechanism dp-ftrl:bands=2 --rounds {rounds} --dimension 100000000"));
    let least = |found: Value| found["noise_multiplier"].as_f64().unwrap();
    assert!(least(coarse(500)) > 1.03 * least(coarse(1)));
    assert!(series["correlated"]["factor"]["banded"]["bands"].as_u64().unwrap() > 8, "{series}");
}

#[test]
fn a_series_that_the_budget_does_not_hold_changes_no_file() {
    let dir = started(BANDED);
    std::fs::remove_dir_all(dir.path("dp")).unwrap();
    done(&privacy(&dir, &format!("init dp {} {BANDED}", PLAN.replace("--epsilon 8", "--epsilon 2.5"))));
    done(&privacy(&dir, "spend dp --noise-multiplier 1.5"));
    assert_eq!(status(&dir)["rounds_left"], 0);
    let before = dir.contents();
    round(&dir, 1, "ada", "").assert_fails(1, &["over the privacy budget"]);
    dir.assert_unchanged_since(&before);
}

#[test]
fn a_round_is_released_once_and_made_again_only_with_the_same_bytes() {
    let dir = started(BANDED);
    done(&round(&dir, 2, "ada bob", ""));
    let made = dir.read("r2.safetensors");
    let before = dir.contents();
    round(&dir, 2, "ada cy", "").assert_fails(1, &["round 2 was already released from other updates"]);
    round(&dir, 1, "cy", "").assert_fails(1, &["round 1 is too late: round 2 was already charged"]);
    round(&dir, 5, "cy", "").assert_fails(1, &["round 5 is not in the plan, which has rounds 1 to 4"]);
    round(&dir, 0, "cy", "").assert_fails(1, &["round 0 is not in the plan"]);
    let no_round = "aggregate cy.safetensors --base base.safetensors --dp dp -o m.safetensors";
    let no_round = fedmill(&dir, &no_round.split(' ').collect::<Vec<_>>());
    no_round.assert_fails(2, &["--round is missing", "--round N"]);
    dir.assert_unchanged_since(&before);
    // The output exists; then it is removed and made again; then it is made at another path.
    done(&round(&dir, 2, "ada bob", ""));
    std::fs::remove_file(dir.path("r2.safetensors")).unwrap();
    done(&round(&dir, 2, "ada bob", ""));
    assert!(dir.read("r2.safetensors") == made);
    let mut elsewhere = arguments(2, "ada bob", "");
    let output = elsewhere.iter_mut().find(|argument| *argument == "r2.safetensors").unwrap();
    *output = "copy.safetensors".to_owned();
    std::fs::remove_file(dir.path("r2.safetensors")).unwrap();
    done(&fedmill(&dir, &elsewhere.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(dir.read("copy.safetensors") == made);
    assert_eq!(status(&dir)["charges"], 1);
    let void = privacy(&dir, "void dp --seq 1 --attest the-machine-was-off");
    void.assert_fails(1, &["its noise is part of later rounds"]);
    done(&privacy(&dir, "verify dp"));
}

/// With noise from one seed, a client that comes too soon does not change the release.
#[test]
fn a_client_that_comes_too_soon_or_too_often_counts_as_zero() {
    let plan = "--mechanism dp-ftrl:bands=2 --rounds 9 --participations 2 --min-separation 3";
    let run = |rounds: &[(u32, &str)]| -> (Vec<f32>, String) {
        let dir = started(plan);
        let mut said = String::new();
        for (number, clients) in rounds {
            let run = round(&dir, *number, clients, "--test-seed 5");
            done(&run);
            said = run.stderr;
        }
        (values(&dir, rounds.last().unwrap().0), said)
    };
    let leave_out = "ada: takes part more often or sooner than the plan allows";
    let without = run(&[(1, "ada"), (3, "bob")]).0;
    let (soon, said) = run(&[(1, "ada"), (3, "ada bob")]);
    assert!(soon == without && said.contains(leave_out), "{said}");
    let without = run(&[(1, "ada"), (4, "bob")]).0;
    let (late, said) = run(&[(1, "ada"), (4, "ada bob")]);
    assert!(late != without && !said.contains("counts as zero"), "{said}");
    let without = run(&[(1, "ada"), (4, "ada"), (7, "bob")]).0;
    let (often, said) = run(&[(1, "ada"), (4, "ada"), (7, "ada bob")]);
    assert!(often == without && said.contains(leave_out), "{said}");
    // A round in which the client did not count is not one of its rounds.
    let without = run(&[(1, "ada"), (3, "ada"), (4, "bob")]).0;
    let (again, _) = run(&[(1, "ada"), (3, "ada"), (4, "ada bob")]);
    assert!(again != without);
}

/// Rounds without clients are noise only. With one band the noise is z_t, with two bands n_t = z_t - n_(t-1) / 2. It is
/// wider by the norm of a column: 1 and sqrt(1 + 1/4).
#[test]
fn later_rounds_cancel_noise_of_earlier_rounds() {
    let noise = |bands: u32| -> Vec<Vec<f32>> {
        let dir = started(&format!("--mechanism dp-ftrl:bands={bands} --rounds 3"));
        let each = [1, 2, 3].map(|number| {
            done(&round(&dir, number, "empty", "--test-seed 5"));
            values(&dir, number)
        });
        each.to_vec()
    };
    let (alone, correlated) = (noise(1), noise(2));
    let wider = 1.25_f64.sqrt();
    for (t, drawn) in alone.iter().enumerate() {
        for (i, z) in drawn.iter().enumerate() {
            let before = if t == 0 { 0.0 } else { f64::from(correlated[t - 1][i]) };
            let (found, expected) = (f64::from(correlated[t][i]), wider * f64::from(*z) - 0.5 * before);
            assert!((found - expected).abs() < 3e-4, "round {t}, {i}: {found}, expected {expected}");
        }
    }
    let spread = alone.iter().flatten().map(|z| f64::from(*z).powi(2)).sum::<f64>() / (3 * VALUES) as f64;
    // The noise multiplier times the clip bound, divided by the denominator.
    assert!((spread.sqrt() / 0.75 - 1.0).abs() < 0.1, "{spread}");
}

/// Starts a round that dies before a durable step. Returns its exit status; `None` if it died.
fn dies_at(dir: &Dir, number: u32, clients: &str, step: u32) -> Option<i32> {
    let mut command = Command::new(program());
    command.current_dir(dir.path("")).args(arguments(number, clients, ""));
    command
        .env("FEDMILL_FAIL_AT", step.to_string())
        .env("NODEVICE_SELECT", "1")
        .output()
        .unwrap()
        .status
        .code()
}

/// Stops every round before every durable step, then starts it again. An output that existed does not change, and each
/// round is charged once.
#[test]
fn stopped_anywhere_a_series_goes_on_with_the_same_noise() {
    let mut charged_unseen = 0;
    for number in [1, 2, 4] {
        for step in 1.. {
            let dir = started(BANDED);
            for (earlier, clients) in [(1, "ada bob"), (2, "cy")] {
                if earlier < number {
                    done(&round(&dir, earlier, clients, ""));
                }
            }
            let name = format!("r{number}.safetensors");
            if dies_at(&dir, number, "ada dee", step).is_some() {
                assert!(step > 8, "{step} steps");
                break;
            }
            let charges = |dir: &Dir| status(dir)["charges"].as_u64().unwrap();
            let seen = dir.exists(&name).then(|| dir.read(&name));
            let charged = charges(&dir) == u64::from(number.min(3));
            assert!(charged || seen.is_none(), "round {number}, step {step}: output without a charge");
            if charged && seen.is_none() && step % 3 == 0 {
                charged_unseen += 1;
                let other = round(&dir, number, "cy", "");
                other.assert_fails(1, &["was already released from other updates"]);
            }
            done(&round(&dir, number, "ada dee", ""));
            if let Some(seen) = seen {
                assert!(dir.read(&name) == seen, "round {number}, step {step}: other bytes");
            }
            assert_eq!(charges(&dir), u64::from(number.min(3)), "round {number}, step {step}");
            done(&privacy(&dir, "verify dp"));
            let left = if number == 4 { 0 } else { 1 };
            assert_eq!(names(&dir, "run-key").len(), left, "round {number}, step {step}");
        }
    }
    assert!(charged_unseen > 3);
}

/// The key of the series makes the row again, so the round has the values that it would have had.
#[test]
fn a_damaged_row_of_noise_is_made_again() {
    let dir = started(BANDED);
    done(&round(&dir, 1, "ada", ""));
    done(&round(&dir, 2, "bob", ""));
    let before = dir.contents();
    done(&round(&dir, 3, "cy", ""));
    let expected = values(&dir, 3);
    let sound = &before["dp/noise-2"];
    for at in [40, 64, sound.len() - 1] {
        dir.restore(&before);
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        dir.write("dp/noise-2", damaged);
        let run = round(&dir, 3, "cy", "");
        done(&run);
        assert!(run.stderr.contains("noise-2: was damaged, and is made again"), "{at}: {run:#?}");
        assert!(values(&dir, 3) == expected, "{at}");
    }
}

#[test]
fn secrets_are_readable_by_their_owner_only_and_are_missed_when_gone() {
    let dir = started(BANDED);
    done(&round(&dir, 1, "ada", ""));
    done(&round(&dir, 2, "bob", ""));
    let secrets: Vec<String> =
        ["run-key", "clients-", "noise-"].iter().flat_map(|prefix| names(&dir, prefix)).collect();
    assert_eq!(secrets.len(), 1 + 3 + 2, "{secrets:?}");
    for name in &secrets {
        let mode = std::fs::metadata(dir.path(&format!("dp/{name}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let ledger = dir.read("dp/ledger.jsonl");
    let restore: Vec<_> =
        ["run-key", "clients-key", "clients-1"].map(|name| (name, dir.read(&format!("dp/{name}")))).to_vec();
    for (name, bytes) in restore {
        let path = format!("dp/{name}");
        let mut other = bytes.clone();
        if let Some(byte) = other.first_mut() {
            *byte ^= 1;
        }
        dir.write(&path, other);
        round(&dir, 3, "cy", "").assert_fails(2, &[name, "restore the latest copy"]);
        std::fs::remove_file(dir.path(&path)).unwrap();
        round(&dir, 3, "cy", "").assert_fails(2, &[name]);
        assert!(
            dir.read("dp/ledger.jsonl") == ledger && !dir.exists("dp/clients-3"),
            "{name}: the round is not charged"
        );
        dir.write(&path, bytes);
    }
    // Rows of noise of earlier rounds may be missing: the run makes them again.
    names(&dir, "noise")
        .iter()
        .for_each(|name| std::fs::remove_file(dir.path(&format!("dp/{name}"))).unwrap());
    done(&round(&dir, 3, "cy", ""));
}

/// A sum made without the lists of clients may hold a client that comes too soon, and is refused. A sum made with the
/// state directory leaves the client out.
#[test]
fn sums_with_clients_that_come_too_soon_are_not_released() {
    let dir = started(BANDED);
    for file in ["plan.lock", "ledger.jsonl", "head", "ledger.lock"] {
        dir.write(&format!("edge/{file}"), dir.read(&format!("dp/{file}")));
    }
    done(&round(&dir, 1, "ada", ""));
    let shared = "--base base.safetensors --round 2 -o";
    let clip = |place: &str| {
        let output = format!("{place}.sum.safetensors");
        let args = format!("clip {place} {shared} {output} ada.safetensors bob.safetensors");
        done(&privacy(&dir, &args));
        output
    };
    let (elsewhere, here) = (clip("edge"), clip("dp"));
    let noise = |sum: &str| privacy(&dir, &format!("noise dp {shared} r2.safetensors {sum}"));
    let before = dir.contents();
    noise(&elsewhere).assert_fails(1, &["client `ada` of a sum takes part more often or sooner"]);
    dir.assert_unchanged_since(&before);
    done(&noise(&here));
    round(&dir, 3, "bob", "").assert_merged("r3.safetensors");
    done(&privacy(&dir, "verify dp"));
}

#[test]
fn plans_that_are_not_valid_are_refused() {
    let dir = started(BANDED);
    for (plan, parts) in [
        ("--mechanism dp-ftrl", &["expected --rounds"][..]),
        ("--mechanism dp-ftrl:bands=0 --rounds 4", &["bands=N"]),
        ("--mechanism dp-ftrl:twigs --rounds 4", &["tree"]),
        ("--mechanism dp-ftrl --rounds 4 --sampling poisson --sampling-rate 0.1", &["sampling all"]),
        ("--mechanism dp-ftrl --rounds 4 --adaptive-clip --count-noise 5", &["follows the norms"]),
        ("--participations 2 --rounds 4", &["--mechanism dp-ftrl"]),
    ] {
        let run = privacy(&dir, &format!("init other {PLAN} {plan}"));
        run.assert_fails(2, parts);
    }
    let no_model = PLAN.replace("--base base.safetensors", "");
    privacy(&dir, &format!("init other {no_model} {BANDED}")).assert_fails(2, &["dimension"]);
    assert!(!dir.exists("other"));
    let tight = PLAN.replace("--epsilon 8", "--epsilon 0.5");
    privacy(&dir, &format!("init other {tight} {BANDED}")).assert_fails(1, &["epsilon"]);
}

#[test]
fn a_series_shows_in_status_and_exports() {
    let dir = started(BANDED);
    done(&round(&dir, 1, "ada", ""));
    let table = done(&privacy(&dir, "status dp")).to_owned();
    assert!(table.contains("3 bands; a client counts in 2 rounds at most, 2 apart or more"), "{table}");
    let card = done(&privacy(&dir, "export dp --format model-card")).to_owned();
    assert!(card.contains("correlated across rounds"), "{card}");
    let event = done(&privacy(&dir, "export dp --format dp-event")).to_owned();
    assert_eq!(event.matches("GaussianDpEvent").count(), 1, "{event}");
    let text = String::from_utf8_lossy(&dir.read("r1.safetensors")).into_owned();
    assert!(!text.contains("clients"), "the number of clients must not show");
}

/// The rounds of a series share one key.
#[test]
fn a_test_seed_in_some_rounds_of_a_series_is_named() {
    let other =
        ["--test-seed", "must be given in all rounds of a series or in none; round 1 differs", "one key"];
    let another = ["--test-seed", "found another seed than in the earlier rounds", "one key"];
    let seeded = started(BANDED);
    done(&round(&seeded, 1, "ada", "--test-seed 7"));
    let secret = started(BANDED);
    done(&round(&secret, 1, "ada", ""));
    for (dir, more, why) in
        [(&seeded, "", other), (&seeded, "--test-seed 8", another), (&secret, "--test-seed 7", other)]
    {
        let run = round(dir, 2, "bob", more);
        run.assert_fails(2, &why);
        assert!(!run.stderr.contains("restore the latest copy"), "{run:#?}");
    }
}
