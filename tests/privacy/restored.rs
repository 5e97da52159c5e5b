//! A series with a restored state directory: an extra charge at most, never the same draws.

use crate::harness::{Dir, Model, Run, Update, fedmill};
use fedmill::budget::books::Books;
use fedmill::privacy::ledger::record::{DrawsFrom, LedgerEntry, SeriesKey};
use fedmill::record::{Head, seal};

/// Number of coordinates.
const VALUES: usize = 64;
/// The divisor of sums.
const DENOMINATOR: f64 = 20.0;
/// Standard deviation of the noise on a sum: the noise multiplier times the clip bound.
const NOISE: f64 = 1.5 * 0.2;

fn done(run: &Run) {
    assert_eq!(run.code, Some(0), "{run:#?}");
}

/// A base, ten clients and a series of five rounds.
fn started(mechanism: &str) -> Dir {
    let dir = Dir::new();
    let model = |name: &str, client: usize| {
        let values: Vec<f32> = (0..VALUES).map(|i| ((i * 7 + client * 13) % 17) as f32 / 600.0).collect();
        Update::new(name).f32("w", &[VALUES], &values).write(&dir);
    };
    model("base", 0);
    (1..=10).for_each(|client| model(&format!("in/user-{client}"), client));
    let init = "privacy init dp --epsilon 50 --delta 1e-3 --population 20 --clip 0.2 --denominator 20 \
                --base base.safetensors --rounds 5 --participations 5 --min-separation 1 --noise-multiplier 1.5";
    let init: Vec<&str> = init.split_whitespace().chain(["--mechanism", mechanism]).collect();
    done(&fedmill(&dir, &init));
    dir
}

fn round(dir: &Dir, number: u32, base: &str) -> Run {
    let (number, output) = (number.to_string(), format!("r{number}.safetensors"));
    let args = ["aggregate", "in", "--dp", "dp", "--base", base, "--round", &number, "-o", &output];
    fedmill(dir, &[&args[..], &["--kind", "weights"]].concat())
}

fn backup(dir: &Dir) -> Vec<(String, Vec<u8>)> {
    dir.contents().into_iter().filter(|(name, _)| name.starts_with("dp/") && name != "dp/").collect()
}

/// Writes an older copy of the state directory over the newer one, which keeps the files that only the newer one has.
fn restore(dir: &Dir, backup: &[(String, Vec<u8>)]) {
    backup.iter().for_each(|(name, bytes)| dir.write(name, bytes));
}

/// The differences of the values of two models, in units of the sum.
fn differences(dir: &Dir, one: &str, other: &str) -> Vec<f64> {
    let [one, other] = [one, other].map(|file| Model::read(dir, file).f32("w"));
    one.iter().zip(other).map(|(one, other)| DENOMINATOR * (f64::from(*one) - f64::from(other))).collect()
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
}

/// The attack: release a round, restore the copy from before it, and release it again without one client. With the
/// same draws, the difference of the two releases is that client's clipped update.
#[test]
fn two_releases_of_a_round_differ_by_noise_of_their_own() {
    for mechanism in ["dp-ftrl:bands=3", "dp-ftrl:tree"] {
        let dir = started(mechanism);
        done(&round(&dir, 1, "base.safetensors"));
        let old = backup(&dir);
        done(&round(&dir, 2, "r1.safetensors"));
        dir.write("published.safetensors", dir.read("r2.safetensors"));
        restore(&dir, &old);
        std::fs::remove_file(dir.path("in/user-7.safetensors")).unwrap();
        // The model at the output, or as the base, shows that the ledger is too old.
        let why = ["was made with charge", "the ledger is older than the model", "restore the latest copy"];
        let before = dir.contents();
        round(&dir, 2, "r1.safetensors").assert_fails(2, &[&["r2.safetensors"][..], &why].concat());
        round(&dir, 3, "published.safetensors")
            .assert_fails(2, &[&["published.safetensors"][..], &why].concat());
        dir.assert_unchanged_since(&before);
        // So does a merged model that was made from it.
        let carried = [
            "aggregate",
            "in",
            "--kind",
            "weights",
            "--base",
            "published.safetensors",
            "-o",
            "r3.safetensors",
        ];
        done(&fedmill(&dir, &carried));
        round(&dir, 3, "r1.safetensors").assert_fails(2, &[&["r3.safetensors"][..], &why].concat());
        // The attacker removes the model. The round is released again, with other draws.
        std::fs::remove_file(dir.path("r2.safetensors")).unwrap();
        done(&round(&dir, 2, "r1.safetensors"));
        let found = differences(&dir, "published.safetensors", "r2.safetensors");
        let hidden = differences(&dir, "published.safetensors", "published.safetensors");
        assert_eq!(root_mean_square(&hidden), 0.0);
        // Two independent draws differ by the root of two times their spread. A client moves a coordinate by 0.03.
        let noise = root_mean_square(&found);
        assert!(noise > 1.1 * NOISE, "{mechanism}: the difference has the norm {noise}, expected noise");
    }
}

/// The same inputs behind another history have other draws too: their noise differs by the noise of that history.
#[test]
fn draws_depend_on_the_rounds_before() {
    for mechanism in ["dp-ftrl:bands=3", "dp-ftrl:tree"] {
        let dir = started(mechanism);
        done(&round(&dir, 1, "base.safetensors"));
        let old = backup(&dir);
        let last = |dir: &Dir| {
            done(&round(dir, 3, "base.safetensors"));
            dir.write("copy.safetensors", dir.read("r3.safetensors"));
        };
        done(&round(&dir, 2, "base.safetensors"));
        last(&dir);
        dir.write("first.safetensors", dir.read("copy.safetensors"));
        for name in ["r2.safetensors", "r3.safetensors"] {
            std::fs::remove_file(dir.path(name)).unwrap();
        }
        restore(&dir, &old);
        last(&dir);
        let noise = root_mean_square(&differences(&dir, "first.safetensors", "copy.safetensors"));
        assert!(noise > 1.1 * NOISE, "{mechanism}: {noise}");
    }
}

/// A restored copy with the same inputs makes the same bytes: nothing new is seen.
#[test]
fn the_same_inputs_and_history_have_the_same_draws() {
    let dir = started("dp-ftrl:bands=3");
    done(&round(&dir, 1, "base.safetensors"));
    let old = backup(&dir);
    done(&round(&dir, 2, "base.safetensors"));
    dir.write("first.safetensors", dir.read("r2.safetensors"));
    restore(&dir, &old);
    std::fs::remove_file(dir.path("r2.safetensors")).unwrap();
    done(&round(&dir, 2, "base.safetensors"));
    assert_eq!(root_mean_square(&differences(&dir, "first.safetensors", "r2.safetensors")), 0.0);
}

/// A series of an older version can be read, and is not continued.
#[test]
fn a_series_of_an_older_version_does_not_go_on() {
    let dir = started("dp-ftrl:bands=3");
    done(&round(&dir, 1, "base.safetensors"));
    // The records as an older version wrote them.
    let mut head: Option<Head> = None;
    let mut ledger = String::new();
    for (record, _) in Books::read(&dir.path("dp")).unwrap().records {
        let entry = match record.entry {
            LedgerEntry::Key(key) => LedgerEntry::Key(SeriesKey { draws: DrawsFrom::Round, ..key }),
            entry => entry,
        };
        let (line, next) = seal(head.as_ref(), record.ts, &entry).unwrap();
        ledger += &format!("{line}\n");
        head = Some(next);
    }
    let Head { seq, sha256 } = head.unwrap();
    assert!(!ledger.contains("\"draws\""), "{ledger}");
    dir.write("dp/ledger.jsonl", ledger);
    dir.write("dp/head", format!("{{\"seq\":{seq},\"sha256\":\"{sha256}\"}}\n"));
    std::fs::remove_file(dir.path("r1.safetensors")).unwrap();
    done(&fedmill(&dir, &["privacy", "status", "dp"]));
    let why = ["an older fedmill started this series", "start a new ledger"];
    round(&dir, 2, "base.safetensors").assert_fails(2, &why);
}
