//! Signals that end a run: it stops at the next tile, removes unfinished files, and exits.
//!
//! A run that does not end by itself within [`GRACE`] is ended by a thread, wherever it is: in a long computation, or
//! waiting for a file or a lock. That thread waits for the end of every [`Section`], so that a release is published as a
//! whole or not at all. Then it removes the temporaries of the run.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// A signal asked the run to stop.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("interrupted by signal {signal}")]
pub struct Interrupted {
    /// Number of the signal.
    pub signal: i32,
}

/// The signals that ask a program to end.
pub const REQUESTS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

static ASKED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Time that a run has to end by itself after a signal.
pub const GRACE: Duration = Duration::from_millis(500);

/// Time for the message of a run that is ended: standard error may be a pipe that nothing reads.
const MESSAGE: Duration = Duration::from_millis(100);

/// Makes SIGINT, SIGTERM and SIGHUP ask the run to stop instead of killing it. A SIGHUP that the process was started to
/// ignore, as by `nohup`, stays ignored.
///
/// # Errors
///
/// When the system refuses a handler or a thread.
pub fn listen() -> io::Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    let (signals, sender) = UnixStream::pair()?;
    for signal in REQUESTS.into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP)) {
        // The number first: the thread looks for it when it wakes.
        signal_hook::flag::register_usize(signal, Arc::clone(asked), signal as usize)?;
        low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    // Makes a file past the size limit (ulimit -f) an error like a full disk instead of the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || watch(signals))?;
    Ok(())
}

/// Whether the process ignores a signal. Only Linux says so.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// What the end of a run depends on.
struct Ending {
    /// The sections that threads are in.
    sections: usize,
    /// Files that the run must not leave.
    temporaries: BTreeSet<PathBuf>,
    /// Whether the run ends itself, however long that takes.
    is_own: bool,
    /// Whether the run is being ended: no section and no temporary begins any more.
    is_over: bool,
}

static ENDING: Mutex<Ending> =
    Mutex::new(Ending { sections: 0, temporaries: BTreeSet::new(), is_own: false, is_over: false });

/// Signals the end of the last section.
static LEFT: Condvar = Condvar::new();

fn ending() -> MutexGuard<'static, Ending> {
    ENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`ending`], for work that must not begin any more once the run is being ended: it waits for the end then.
fn not_over() -> MutexGuard<'static, Ending> {
    LEFT.wait_while(ending(), |ending| ending.is_over).unwrap_or_else(PoisonError::into_inner)
}

/// Waits for signals, and ends a run that does not end by itself.
fn watch(mut signals: UnixStream) {
    let mut one = [0];
    while signals.read_exact(&mut one).is_ok() {
        thread::sleep(GRACE);
        if let Err(Interrupted { signal }) = check() {
            end(signal);
        }
    }
}

/// Ends the process with 128 + the signal, unless it ends itself.
fn end(signal: i32) {
    let wait = |ending| {
        LEFT.wait_while(ending, |ending: &mut Ending| ending.sections > 0)
            .unwrap_or_else(PoisonError::into_inner)
    };
    let mut ending = ending();
    if ending.sections > 0 && !ending.is_own {
        // A run that published may report its success.
        drop(wait(ending));
        thread::sleep(GRACE / 2);
        ending = self::ending();
    }
    let mut ending = wait(ending);
    if ending.is_own {
        return;
    }
    ending.is_over = true;
    let temporaries = std::mem::take(&mut ending.temporaries);
    drop(ending);
    for path in temporaries {
        // The next run removes it.
        let _ = fs::remove_file(path);
    }
    let (sender, told) = mpsc::channel();
    thread::spawn(move || {
        tracing::error!("{}", Interrupted { signal });
        sender.send(())
    });
    // The status says the same.
    let _ = told.recv_timeout(MESSAGE);
    low_level::exit(128 + signal);
}

/// Leaves the end after a signal to the run, however long it takes: it ends what it started first.
pub fn ends_itself() {
    ending().is_own = true;
}

/// A part of a run that no signal ends in the middle. Sections may lie in each other.
#[derive(Debug)]
#[must_use = "the section ends when it is dropped"]
pub struct Section(());

impl Section {
    /// Begins a section. Keep it short: a signal waits for its end.
    pub fn enter() -> Self {
        not_over().sections += 1;
        Self(())
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        ending().sections -= 1;
        LEFT.notify_all();
    }
}

/// Makes a temporary file, which a signal that ends the run removes until [`keep`] is called.
///
/// # Errors
///
/// When it cannot be made.
pub fn with_temporary<T>(path: &Path, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut ending = not_over();
    let made = make()?;
    ending.temporaries.insert(path.to_owned());
    Ok(made)
}

/// Lets a file outlast a signal: it has another name now, or is gone.
pub fn keep(path: &Path) {
    ending().temporaries.remove(path);
}

/// The longest time from a signal to the end of a wait.
const POLL: Duration = Duration::from_millis(50);

/// Does work that may wait for ever, such as reading a pipe without a writer. A signal ends the wait.
///
/// # Errors
///
/// The error of the work, or that a signal came.
pub fn wait_for<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    // A thread that still waits when the process ends holds nothing.
    std::thread::Builder::new().spawn(move || sender.send(work()))?;
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) => check().map_err(io::Error::other)?,
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("its reader ended early")),
        }
    }
}

/// Forgets the signal that came, so that [`check`] finds the next one.
pub fn await_another() {
    if let Some(asked) = ASKED.get() {
        asked.store(0, Ordering::Relaxed);
    }
}

/// Fails if a signal asked the run to stop.
///
/// # Errors
///
/// When a signal did.
pub fn check() -> Result<(), Interrupted> {
    match ASKED.get().map_or(0, |asked| asked.load(Ordering::Relaxed)) {
        0 => Ok(()),
        signal => Err(Interrupted { signal: signal as i32 }),
    }
}
