//! SIGTERM at many points of every phase of a run: it ends soon, with a whole output or none.
//!
//! `FEDMILL_SEEDS` below a hundred sets how many points each phase has.

use super::{TARGET, is_temporary, parts};
use crate::durability::trace::is_possible;
use crate::harness::{Contents, Dir, Update, program, skip};
use crate::rng::Rng;
use fedmill::io::interrupt::GRACE;
use rustix::fs::{FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Room beyond a second for a machine that does other work meanwhile.
const SLACK: Duration = Duration::from_secs(3);

/// Runs that are ended at the same time.
const AT_ONCE: usize = 3;

/// A run to end, in a folder with its inputs.
struct Phase {
    dir: Dir,
    arguments: &'static str,
    /// Options of `strace`, which slows the run; none without it.
    strace: &'static [&'static str],
    /// A library that the run loads before all others.
    preload: Option<PathBuf>,
    /// The time in which the signals come.
    takes: Duration,
}

impl Phase {
    fn new(dir: Dir, arguments: &'static str) -> Self {
        Self { dir, arguments, strace: &[], preload: None, takes: Duration::ZERO }
    }

    /// Spreads the signals over the time that the run takes.
    fn timed(mut self) -> Self {
        let before = self.dir.contents();
        let started = Instant::now();
        let status = self.start(&self.dir).wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.arguments);
        self.takes = started.elapsed();
        self.dir.restore(&before);
        self
    }

    fn start(&self, dir: &Dir) -> Child {
        let traced: &[&str] = if self.strace.is_empty() { &[] } else { &["strace", "-D", "-f", "-qq"] };
        let program = program();
        let mut words = traced.iter().chain(self.strace).copied().chain([program.as_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(self.arguments.split_whitespace()).current_dir(dir.path(""));
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// A copy of the folder, for one thread.
    fn copy(&self) -> Dir {
        let dir = Dir::new();
        for (name, bytes) in self.dir.contents() {
            let (from, to) = (self.dir.path(&name), dir.path(&name));
            match fs::symlink_metadata(&from).unwrap().file_type() {
                kind if kind.is_dir() => fs::create_dir_all(to).unwrap(),
                kind if kind.is_file() => dir.write(&name, bytes),
                _ => make_pipe(&to),
            }
        }
        dir
    }

    /// Sends a signal at every point. `check` sees how each run ended, and its folder.
    fn end_at_points(&self, check: impl Fn(&Dir, &Contents, ExitStatus, Duration) + Sync) {
        let count = std::env::var("FEDMILL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
        let points: Vec<f64> = parts(count.unwrap_or(100).min(100)).collect();
        let of_thread = |number: usize| {
            let dir = self.copy();
            let before = dir.contents();
            for part in points.iter().skip(number).step_by(AT_ONCE) {
                let mut child = self.start(&dir);
                thread::sleep(self.takes.mul_f64(*part));
                let asked = Instant::now();
                kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
                let status = child.wait().unwrap();
                check(&dir, &before, status, asked.elapsed());
                if dir.contents() != before {
                    dir.restore(&before);
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|number| scope.spawn(move || of_thread(number))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    /// Ends the run at every point. Fails unless it ends within a second, as a run that a signal ended or one that
    /// succeeded, and leaves nothing or its output `whole`.
    fn assert_ends(&self, whole: Option<&Contents>) {
        self.end_at_points(|dir, before, status, took| {
            let left = dir.contents();
            let is_early = status.code().is_none() && status.signal() == Some(Signal::TERM.as_raw());
            assert!(took < Duration::from_secs(1) + SLACK, "{}: ended after {took:?}", self.arguments);
            match status.code() {
                Some(0) => assert!(whole.is_some(), "{}: was not to succeed", self.arguments),
                code => assert!(is_early || code == Some(143), "{}: {status}", self.arguments),
            }
            let is_whole = whole.is_some_and(|whole| *whole == left);
            let names: Vec<&String> = left.keys().collect();
            assert!(
                left == *before && status.code() != Some(0) || is_whole,
                "{}: {status}, {names:?}",
                self.arguments
            );
            assert!(!names.iter().any(|name| is_temporary(name)), "{names:?}");
        });
    }

    /// As [`assert_ends`](Self::assert_ends), for a run that succeeds without a signal.
    fn assert_ends_or_succeeds(self) {
        let phase = self.timed();
        let dir = phase.copy();
        assert_eq!(phase.start(&dir).wait().unwrap().code(), Some(0));
        phase.assert_ends(Some(&dir.contents()));
    }
}

fn make_pipe(path: &std::path::Path) {
    mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Clients that are all nearly as far from one another.
fn far_apart(clients: usize, values: usize) -> Dir {
    let dir = Dir::new();
    let mut rng = Rng::new(1);
    for client in 0..clients {
        let drawn: Vec<f32> = (0..values).map(|_| rng.below(1 << 24) as f32).collect();
        Update::new(&format!("in/client-{client:03}")).f32("a", &[values], &drawn).write(&dir);
    }
    dir
}

#[test]
fn reading_and_combining() {
    Phase::new(far_apart(8, 1 << 18), "aggregate in --rule median -o merged.safetensors")
        .assert_ends_or_succeeds();
}

#[test]
fn deciding() {
    Phase::new(far_apart(60, 500), "aggregate in --rule bulyan --byzantine 10 -o merged.safetensors")
        .assert_ends_or_succeeds();
}

#[test]
fn searching() {
    let phase =
        Phase::new(far_apart(100, 400), "aggregate in --rule mda --byzantine 45 -o merged.safetensors");
    Phase { takes: Duration::from_secs(1), ..phase }.assert_ends(None);
}

/// Every rename takes a while, so that most signals come between the first and the last.
#[test]
fn publishing() {
    if !is_possible() {
        return;
    }
    let dir = far_apart(2, 400);
    dir.write("merged.safetensors", "the model before");
    let strace = &["-o", "/dev/null", "-e", "trace=/rename", "-e", "inject=/^rename:delay_exit=100000"];
    let sharded = "aggregate in --max-shard-size 1kB --report r.json -o merged.safetensors";
    let phase = Phase { strace, ..Phase::new(many_tensors(&dir), sharded) };
    phase.assert_publishes_whole();
}

/// Twelve tensors, so that a small limit makes as many files.
fn many_tensors(dir: &Dir) -> Dir {
    let round = Dir::new();
    round.write(TARGET, dir.read(TARGET));
    for client in 0..2 {
        let update = (0..12).fold(Update::new(&format!("in/c{client}")), |update, tensor| {
            update.f32(&format!("t{tensor:02}"), &[256], &[client as f32; 256])
        });
        update.write(&round);
    }
    round
}

impl Phase {
    /// Fails unless the model is the one before or whole, whatever the status, and nothing else is left.
    fn assert_publishes_whole(self) {
        let phase = self.timed();
        let dir = phase.copy();
        assert_eq!(phase.start(&dir).wait().unwrap().code(), Some(0));
        let mut whole = dir.contents();
        whole.remove("r.json");
        let cut = std::sync::atomic::AtomicUsize::new(0);
        phase.end_at_points(|dir, before, status, _| {
            let mut left = dir.contents();
            let report = left.remove("r.json");
            assert!(left == *before || left == whole, "{status}: {:?}", left.keys().collect::<Vec<_>>());
            let report: Value = serde_json::from_slice(&report.unwrap_or_default()).unwrap_or_default();
            assert_eq!(left == whole, report["published"] == true, "{status}: half a release");
            assert!(left == whole || status.code() != Some(0), "{status}: nothing was published");
            cut.fetch_add(usize::from(status.code() != Some(0)), std::sync::atomic::Ordering::Relaxed);
        });
        assert!(cut.into_inner() > 0, "no signal ended a run");
    }
}

#[test]
fn waiting_for_a_lock() {
    let dir = Dir::new();
    Update::new("base").f32("a", &[4], &[0.0; 4]).write(&dir);
    Update::new("in/c1").f32("a", &[4], &[1.0; 4]).write(&dir);
    let init = "privacy init dp --population 100 --epsilon 50 --delta 1e-3 --noise-multiplier 2 --rounds 9 --clip 1 \
                --denominator 3 --base base.safetensors";
    let made =
        Command::new(program()).args(init.split_whitespace()).current_dir(dir.path("")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let lock = File::create(dir.path("dp/ledger.lock")).unwrap();
    lock.lock().unwrap();
    let run = "aggregate in --base base.safetensors --dp dp -o merged.safetensors";
    let phase = Phase { takes: Duration::from_millis(300), ..Phase::new(dir, run) };
    let before = phase.dir.contents();
    let count = std::env::var("FEDMILL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    for part in parts(usize::min(count, 100)) {
        let mut child = phase.start(&phase.dir);
        thread::sleep(phase.takes.mul_f64(part));
        assert!(child.try_wait().unwrap().is_none(), "the lock did not hold the run");
        let asked = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        assert!(status.code() == Some(143) || status.signal() == Some(15), "{status}");
        assert!(asked.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", asked.elapsed());
        assert!(phase.dir.contents() == before);
    }
}

#[test]
fn reading_a_pipe() {
    let dir = Dir::new();
    make_pipe(&dir.path("list"));
    let phase = Phase::new(dir, "aggregate --files-from list -o merged.safetensors");
    Phase { takes: Duration::from_millis(300), ..phase }.assert_ends(None);
}

/// A library that makes every read at a place of a file take ten seconds, as on a server that does not answer: no check
/// in a loop hears a signal meanwhile.
const HANGS: &str = "
    #define _GNU_SOURCE
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    ssize_t pread64(int file, void *to, size_t bytes, off_t from) {
        struct timespec left = {10, 0};
        while (nanosleep(&left, &left)) {}
        return syscall(SYS_pread64, file, to, bytes, from);
    }
";

#[test]
fn reading_a_disk_that_hangs() {
    let library = Dir::new();
    library.write("hangs.c", HANGS);
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "hangs.so", "hangs.c"])
        .current_dir(library.path(""))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skip("cc does not work here");
        return;
    }
    let preload = Some(library.path("hangs.so"));
    let phase = Phase::new(far_apart(3, 400), "aggregate in --threads 1 -o merged.safetensors");
    Phase { preload, takes: Duration::from_millis(500), ..phase }.assert_ends(None);
}

/// `nohup` starts a run that ignores SIGHUP: it goes on.
#[test]
fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
    let dir = Dir::new();
    make_pipe(&dir.path("list"));
    let start = |shell: &str| {
        let script = format!("{shell} exec \"$0\" aggregate --files-from list -o merged.safetensors");
        let mut child = Command::new("sh")
            .args(["-c", &script, &program()])
            .current_dir(dir.path(""))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(700));
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        thread::sleep(2 * GRACE + SLACK / 3);
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        ended
    };
    assert_eq!(start("").and_then(|status| status.code()), Some(129));
    assert_eq!(start("trap '' HUP;"), None);
}
