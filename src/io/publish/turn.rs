//! Runs that publish beside each other take turns, so that the outputs of one run stay together.

use crate::io::publish::directory_of;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for another run: a run needs milliseconds, unless it was stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// The turn of this run, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _directory: Option<File>,
}

impl Turn {
    /// Waits until no other run publishes into the directory of a target. A file system without locks makes no run wait,
    /// and a run that was stopped delays others by a few seconds.
    pub fn take(target: &Path) -> Self {
        let start = Instant::now();
        let Ok(directory) = File::open(directory_of(target)) else { return Self { _directory: None } };
        while let Err(TryLockError::WouldBlock) = directory.try_lock() {
            if start.elapsed() > PATIENCE {
                tracing::warn!("{}: another run is publishing there, and takes long", target.display());
                return Self { _directory: None };
            }
            thread::sleep(TRY_EVERY);
        }
        Self { _directory: Some(directory) }
    }
}
