//! Runs that a signal ends at random moments never leave half a model.

mod points;

use crate::harness::{Dir, Update, fedmill, program};
use crate::rng::Rng;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Values of each of the two tensors of each of the eight clients.
const LEN: usize = 1 << 20;

const TARGET: &str = "merged.safetensors";
const INDEX: &str = "merged.safetensors.index.json";

/// A round large enough to be interrupted. Tests that run at the same time share one, and the last removes it.
fn updates() -> Arc<Dir> {
    static SHARED: Mutex<Weak<Dir>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let updates = Arc::new(make_updates());
        *shared = Arc::downgrade(&updates);
        updates
    })
}

fn make_updates() -> Dir {
    let dir = Dir::new();
    for client in 0..8 {
        let values =
            |scale: f32| (0..LEN).map(move |i| scale * ((i * 7919 + client * 104_729) % 1000) as f32);
        let [a, b] = [0.5, 0.25].map(|scale| values(scale).collect::<Vec<_>>());
        let update = Update::new(&format!("client-{client}")).f32("a", &[LEN], &a).f32("b", &[LEN], &b);
        update.write(&dir);
    }
    dir
}

/// A merge in its own folder, and its output without interruption.
struct Merge {
    _updates: Arc<Dir>,
    dir: Dir,
    arguments: Vec<String>,
    whole: BTreeMap<String, Vec<u8>>,
    takes: Duration,
}

impl Merge {
    fn new(rule: &str, more: &[&str]) -> Self {
        let updates = updates();
        let folder = updates.path("").to_str().unwrap().to_owned();
        let arguments = ["aggregate", &folder, "--rule", rule, "-o", TARGET];
        let arguments = arguments.iter().chain(more).map(ToString::to_string).collect();
        let (whole, takes) = (BTreeMap::new(), Duration::MAX);
        let mut merge = Self { _updates: updates, dir: Dir::new(), arguments, whole, takes };
        // The shortest of a few: beside other tests, a run may take several times as long.
        for _ in 0..4 {
            merge.empty_the_folder();
            let started = Instant::now();
            merge.run_to_the_end();
            merge.takes = merge.takes.min(started.elapsed());
        }
        merge.whole = merge.dir.contents();
        merge
    }

    #[track_caller]
    fn run_to_the_end(&self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let run = fedmill(&self.dir, &arguments);
        assert_eq!(run.code, Some(0), "{run:#?}");
    }

    /// Starts a run, and ends it by a signal after a part of the time that a run takes.
    fn run_and_signal(&self, signal: Signal, part: f64) -> ExitStatus {
        let mut command = Command::new(program());
        command
            .args(&self.arguments)
            .current_dir(self.dir.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(self.takes.mul_f64(part));
        // A child keeps its process number until the parent waits for it, even after its end.
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap()
    }

    fn empty_the_folder(&self) {
        for name in self.dir.names() {
            fs::remove_file(self.dir.path(&name)).unwrap();
        }
    }
}

/// Numbers between 0 and 1.2, the same in every run.
fn parts(count: usize) -> impl Iterator<Item = f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 * 1.2
    })
    .take(count)
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(&format!(".{TARGET}.")) && name.ends_with(".fedmill-tmp")
}

#[test]
fn killed_a_hundred_times_leaves_no_half_model() {
    let merge = Merge::new("median", &[]);
    let (mut whole, mut left) = (0, 0);
    for part in parts(100) {
        merge.empty_the_folder();
        merge.run_and_signal(Signal::KILL, part);
        let (temporaries, seen): (Vec<_>, Vec<_>) =
            merge.dir.names().into_iter().partition(|name| is_temporary(name));
        match &seen[..] {
            [] => {}
            [name] if name == TARGET => {
                assert!(merge.dir.read(TARGET) == merge.whole[TARGET], "a half model after {part}");
                whole += 1;
            }
            others => panic!("{others:?} after {part}"),
        }
        left += temporaries.len();
    }
    eprintln!("{whole} runs had finished, {left} left a temporary");
    assert!(left > 0, "no run was hit in the middle");
    merge.empty_the_folder();
    while merge.dir.names().is_empty() {
        merge.run_and_signal(Signal::KILL, 0.5);
    }
    merge.run_to_the_end();
    assert!(merge.dir.contents() == merge.whole, "the next run did not clean up: {:?}", merge.dir.names());
}

#[test]
fn killed_while_it_replaces_a_model_leaves_the_old_or_the_new() {
    let merge = Merge::new("median", &[]);
    for part in parts(30) {
        merge.empty_the_folder();
        merge.dir.write(TARGET, "the old model");
        merge.run_and_signal(Signal::KILL, part);
        let seen = merge.dir.read(TARGET);
        assert!(seen == b"the old model" || seen == merge.whole[TARGET], "a half model after {part}");
    }
}

#[test]
fn killed_leaves_no_index_beside_other_shards() {
    let sharded = ["--max-shard-size", "4MiB"];
    let old = Merge::new("mean", &sharded).whole;
    let merge = Merge::new("median", &sharded);
    assert_eq!(merge.whole.len(), 3);
    for part in parts(50) {
        merge.empty_the_folder();
        old.iter().for_each(|(name, bytes)| merge.dir.write(name, bytes));
        merge.run_and_signal(Signal::KILL, part);
        if merge.dir.exists(INDEX) {
            let mut seen = merge.dir.contents();
            seen.retain(|name, _| !is_temporary(name));
            assert!(seen == old || seen == merge.whole, "{:?} after {part}", merge.dir.names());
        }
    }
    merge.run_to_the_end();
    assert!(merge.dir.contents() == merge.whole, "the next run did not clean up: {:?}", merge.dir.names());
}

/// Signals that ask a run to end: the run cleans up, and ends as shells expect.
#[track_caller]
fn assert_cleans_up(signal: Signal, more: &[&str]) {
    let merge = Merge::new("median", more);
    let mut stopped = 0;
    for part in parts(20) {
        merge.empty_the_folder();
        let status = merge.run_and_signal(signal, part);
        match status.code() {
            Some(0) => assert!(merge.dir.contents() == merge.whole, "a half model after {part}"),
            code => {
                let early = code.is_none() && status.signal() == Some(signal.as_raw());
                assert!(early || code == Some(128 + signal.as_raw()), "{status} after {part}");
                assert!(merge.dir.names().is_empty(), "{:?} after {part}", merge.dir.names());
                stopped += u32::from(!early);
            }
        }
    }
    assert!(stopped > 0, "no run was hit in the middle");
}

#[test]
fn terminated_leaves_nothing() {
    assert_cleans_up(Signal::TERM, &[]);
}

#[test]
fn interrupted_leaves_nothing() {
    assert_cleans_up(Signal::INT, &[]);
}

#[test]
fn terminated_leaves_no_shards() {
    assert_cleans_up(Signal::TERM, &["--max-shard-size", "4MiB"]);
}

/// The search of `mda` takes many seconds for clients that are all nearly as far from one another.
#[test]
fn terminated_while_a_rule_decides() {
    let dir = Dir::new();
    let mut rng = Rng::new(1);
    for client in 0..100 {
        let values: Vec<f32> = (0..4000).map(|_| rng.below(1 << 24) as f32).collect();
        Update::new(&format!("in/client-{client:02}")).f32("a", &[4000], &values).write(&dir);
    }
    let mut command = Command::new(program());
    command.args(["aggregate", "in", "--rule", "mda", "--byzantine", "45", "-o", TARGET]);
    let mut child = command.current_dir(dir.path("")).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "the search took less than 1 s");
    let asked = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(143), "{status}");
    // A second, on a machine that does nothing else.
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert_eq!(dir.names(), ["in"]);
}
