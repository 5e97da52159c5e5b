//! Files changed at random, through every command that reads them, in this process.
//!
//! No file may cause a panic or take long. A run that fails publishes nothing. Under `--on-bad-update skip` the others'
//! result does not change by a bit if the changed file is left out. `FEDMILL_MUTATIONS` sets the number of files.

use crate::harness::{Dir, Update, fedmill};
use crate::hostile_updates::{Random, edited, edited_json, everything, mutated};
use fedmill::budget::account::Account;
use fedmill::budget::verify::verify;
use fedmill::compress::decompress::Decompression;
use fedmill::engine::aggregate::error::Error;
use fedmill::engine::aggregate::request::{Inputs, Outputs, Request};
use fedmill::engine::decide::method::Method;
use fedmill::engine::intake::policy::{OnBadUpdate, Policy};
use fedmill::engine::passes::machine::Machine;
use fedmill::inspect::Inspection;
use fedmill::kernels::lanes::Isa;
use fedmill::modes::tree::root;
use fedmill::personalize::{Personalization, PersonalizeMethod};
use fedmill::rules::mean::Mean;
use fedmill::telemetry::progress::Progress;
use fedmill::telemetry::report::Report;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Changed files. `FEDMILL_MUTATIONS` sets another number.
const MUTATIONS: usize = 1500;

/// The time limit for one file through all commands, on the slowest machine.
const LONGEST: Duration = Duration::from_secs(20);

/// The name of the changed update.
const EVIL: &str = "updates/evil.safetensors";

/// A round of two sound updates of the tensors that `everything` encodes.
struct Round {
    dir: Dir,
    pool: ThreadPool,
    /// The merge without the changed update.
    alone: Vec<u8>,
}

fn sound(name: &str, value: f32) -> Update {
    let half = vec![half::f16::from_f32(value).to_bits(); 300];
    Update::new(name)
        .f32("w", &[15, 40], &[value; 600])
        .half("v", "F16", &[300], &half)
        .f32("c", &[256], &[0.5; 256])
        .f32("s", &[3], &[value; 3])
        .i64("n", &[2], &[1, -7])
}

impl Round {
    fn new() -> Self {
        let dir = Dir::new();
        for (name, value) in [("base", 0.0), ("updates/a", 0.25), ("updates/b", 0.5), ("other/c", 0.75)] {
            sound(name, value).meta("num_examples", "10").write(&dir);
        }
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut round = Self { dir, pool, alone: Vec::new() };
        round.merge(false).unwrap();
        round.alone = round.dir.read("merged.safetensors");
        round
    }

    fn request(&self) -> Request {
        let updates = vec![self.dir.path("updates")];
        let request = Request::new(updates, Method::new(Box::new(Mean)), self.dir.path("merged.safetensors"));
        Request {
            inputs: Inputs { base: Some(self.dir.path("base.safetensors")), ..request.inputs },
            policy: Policy { on_bad_update: OnBadUpdate::Skip, ..request.policy },
            outputs: Outputs { report: None, ..request.outputs },
            ..request
        }
    }

    /// Merges onto the base, or with the partial beside it.
    fn merge(&self, with_partial: bool) -> Result<Report, Error> {
        let mut request = self.request();
        if with_partial {
            request.inputs.partials = vec![self.dir.path("partial.safetensors")];
        }
        let _ = fs::remove_file(self.dir.path("merged.safetensors"));
        root::run(request, Machine::new(Isa::detect(), &self.pool, &Progress::hidden()))
    }

    /// Merges beside a changed file. Returns whether the run took it.
    fn check_merge(&self, with_partial: bool, evil: &str) -> bool {
        match self.merge(with_partial) {
            Ok(report) => {
                let is_left_out = report.rejected.iter().any(|row| row.file.ends_with(evil));
                let merged = self.dir.read("merged.safetensors");
                assert!(!is_left_out || merged == self.alone, "a bad file changed the others' result");
                !is_left_out
            }
            Err(_) => {
                assert!(!self.dir.exists("merged.safetensors"), "a failed run published");
                false
            }
        }
    }

    fn inspect(&self) {
        let inspection = Inspection {
            updates: vec![self.dir.path("updates")],
            base: Some(self.dir.path("base.safetensors")),
            policy: Policy::default(),
        };
        let rows = inspection.run(&Machine::new(Isa::detect(), &self.pool, &Progress::hidden())).unwrap();
        assert!(rows.len() >= 3, "a row for each update");
    }

    fn decompress(&self, base: Option<PathBuf>) {
        let output = self.dir.path("plain.safetensors");
        let (update, max_bytes) = (self.dir.path(EVIL), None);
        let request = Decompression { update, base, max_bytes, output, isa: Isa::detect(), device: None };
        let done = request.run(&self.pool);
        assert_eq!(done.is_ok(), self.dir.exists("plain.safetensors"), "{done:?}");
        let _ = fs::remove_file(self.dir.path("plain.safetensors"));
    }

    fn personalize(&self) {
        let output = self.dir.path("personal.safetensors");
        let request = Personalization {
            client_id_from: Default::default(),
            global: self.dir.path("base.safetensors"),
            client: self.dir.path(EVIL),
            method: PersonalizeMethod::Mix(0.5),
            output,
            max_shard_bytes: None,
            isa: Isa::detect(),
        };
        let done = request.run(&self.pool);
        assert_eq!(done.is_ok(), self.dir.exists("personal.safetensors"), "{done:?}");
        let _ = fs::remove_file(self.dir.path("personal.safetensors"));
    }
}

fn count() -> usize {
    std::env::var("FEDMILL_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS)
}

/// Calls `check` for each number. A panic or a slow file names its number, which makes the same file again.
fn each(count: usize, check: impl Fn(usize, &mut Random)) {
    for number in 0..count {
        let started = Instant::now();
        let checked = || check(number, &mut Random(number as u64));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(checked));
        assert!(done.is_ok(), "mutation {number}");
        assert!(started.elapsed() < LONGEST, "mutation {number} took {:?}", started.elapsed());
    }
}

#[test]
fn changed_updates_through_aggregate_inspect_decompress_and_personalize() {
    let round = Round::new();
    let seeds = Dir::new();
    let mut files: Vec<Vec<u8>> = everything(&seeds).into_iter().map(|(_, file)| file).collect();
    let plain = sound("x", 0.1).meta("client_id", "evil").meta("num_examples", "10").meta("round", "3");
    // Half of the changed files are plain.
    files.extend(vec![plain.bytes(); files.len()]);
    let taken = std::cell::Cell::new(0);
    each(count(), |number, random| {
        let file = &files[number % files.len()];
        round.dir.write(EVIL, mutated(file, random));
        taken.set(taken.get() + usize::from(round.check_merge(false, "evil.safetensors")));
        round.inspect();
        round.decompress(Some(round.dir.path("base.safetensors")));
        round.decompress(None);
        round.personalize();
    });
    assert!(taken.get() > 0 && taken.get() < count(), "{} taken: nothing is tested", taken.get());
}

#[test]
fn changed_indexes() {
    let round = Round::new();
    let index = r#"{"metadata":{"total_size":20,"num_examples":7,"client_id":"evil"},"weight_map":{"w":"evil-00001-of-00002.safetensors","v":"evil-00001-of-00002.safetensors","c":"evil-00002-of-00002.safetensors","s":"evil-00002-of-00002.safetensors","n":"evil-00002-of-00002.safetensors"}}"#;
    let half = vec![0; 600];
    let shards = [
        Update::new("updates/evil-00001-of-00002").f32("w", &[15, 40], &[0.1; 600]).raw(
            "v",
            "F16",
            &[300],
            &half,
        ),
        Update::new("updates/evil-00002-of-00002")
            .f32("c", &[256], &[0.5; 256])
            .f32("s", &[3], &[0.0; 3])
            .i64("n", &[2], &[1, -7]),
    ];
    each(count() / 5, |_, random| {
        shards.iter().for_each(|shard| shard.write(&round.dir));
        let changed = match random.below(2) {
            0 => edited(index.as_bytes().to_vec(), random),
            _ => edited_json(index.as_bytes(), random),
        };
        round.dir.write("updates/evil.safetensors.index.json", changed);
        round.check_merge(false, "evil.safetensors.index.json");
        round.inspect();
    });
}

#[test]
fn changed_partials() {
    let round = Round::new();
    let base = round.dir.path("base.safetensors");
    let args =
        ["aggregate", "other", "--base", base.to_str().unwrap(), "--partial", "-o", "partial.safetensors"];
    fedmill(&round.dir, &args).assert_merged("partial.safetensors");
    let file = round.dir.read("partial.safetensors");
    assert!(round.check_merge(true, "partial.safetensors"), "the whole partial is good");
    each(count() / 5, |_, random| {
        round.dir.write("partial.safetensors", mutated(&file, random));
        round.check_merge(true, "partial.safetensors");
    });
}

#[test]
fn changed_privacy_directories() {
    let round = Round::new();
    let init = "privacy init dp --epsilon 50 --delta 1e-3 --population 20 --clip 1.5 --denominator 20 --sampling all \
                --rounds 10 --base base.safetensors";
    let run = fedmill(&round.dir, &init.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let release = "aggregate --dp dp updates --base base.safetensors -o released.safetensors";
    fedmill(&round.dir, &release.split_whitespace().collect::<Vec<_>>())
        .assert_merged("released.safetensors");
    let files: Vec<(String, Vec<u8>)> = round
        .dir
        .contents()
        .into_iter()
        .filter(|(name, _)| name.starts_with("dp/") && !name.ends_with('/'))
        .collect();
    let dp = round.dir.path("dp");
    assert!(Account::open(&dp).is_ok() && verify(&dp, &[]).is_ok(), "the whole directory is good");
    each(count() / 5, |number, random| {
        let (name, whole) = &files[number % files.len()];
        round.dir.write(name, edited(whole.clone(), random));
        let _ = Account::open(&dp);
        let _ = verify(&dp, &[]);
        for (name, whole) in &files {
            round.dir.write(name, whole);
        }
    });
}
