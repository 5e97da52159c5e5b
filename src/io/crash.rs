//! Aborts the process at a chosen step, so that tests see what a crash there leaves behind.
//!
//! Counts every step that makes a file durable or gives it its name. With `FEDMILL_FAIL_AT=N` in its environment the
//! process aborts just before the N-th step, as in a power cut. Only builds with debug assertions read
//! the variable.

#[cfg(debug_assertions)]
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// The variable that names the step.
pub const VARIABLE: &str = "FEDMILL_FAIL_AT";

/// Counts a durable step before it happens, and aborts if it is the chosen one. Does nothing in a program for users.
pub fn before_step() {
    #[cfg(debug_assertions)]
    count();
}

#[cfg(debug_assertions)]
fn count() {
    static STEPS: AtomicU64 = AtomicU64::new(0);
    static FAIL_AT: OnceLock<Option<u64>> = OnceLock::new();
    let fail_at = FAIL_AT.get_or_init(|| std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()));
    let step = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    if *fail_at == Some(step) {
        std::process::abort();
    }
}
