//! Signals that end a run: it stops at the next tile, removes unfinished files, and exits.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
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

/// Makes SIGINT, SIGTERM and SIGHUP ask the run to stop instead of killing it.
///
/// # Errors
///
/// When the system refuses a handler.
pub fn listen() -> io::Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in REQUESTS {
        signal_hook::flag::register_usize(signal, Arc::clone(asked), signal as usize)?;
    }
    // Makes a file past the size limit (ulimit -f) an error like a full disk instead of the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
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
