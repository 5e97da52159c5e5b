//! `fedmill privacy`: keeps a privacy budget, and computes the cost of releases.

mod calibrate;
mod compose;
mod export;
mod failure;
mod init;
mod mechanism;
mod plan;
mod recover;
mod selftest;
mod spend;
mod status;
mod sums;
pub(super) mod vector;
mod verify;

use super::{BACKEND, CPU, Common, Failure, GPU, Outcome};
use crate::io::interrupt::{self, Interrupted};
use clap::Args;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

/// Keep a budget of differential privacy.
///
/// A state directory holds the plan and a ledger of all releases under it.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

subcommands! {
    Init: init::Arguments, reads [];
    Compose: compose::Arguments, reads [];
    Calibrate: calibrate::Arguments, reads [];
    Status: status::Arguments, reads [];
    Spend: spend::Arguments, reads [];
    Verify: verify::Arguments, reads [];
    Recover: recover::Arguments, reads [];
    Void: recover::VoidArguments, reads [];
    Export: export::Arguments, reads [];
    Clip: sums::ClipArguments, reads [BACKEND, GPU, CPU];
    Sum: sums::SumArguments, reads [BACKEND, GPU, CPU];
    Noise: sums::NoiseArguments, reads [BACKEND, GPU, CPU];
    Selftest: selftest::Arguments, reads [GPU, &["isa"]];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }
}

/// Pause between two checks for a signal.
const LISTEN_EVERY: Duration = Duration::from_millis(20);

/// Computes on another thread, and stops waiting when a signal asks the run to end. Accountants are pure: they hear no
/// signal themselves.
fn while_listening<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let worker = thread::spawn(work);
    while !worker.is_finished() {
        if let Err(Interrupted { signal }) = interrupt::check() {
            return Err(Failure { signal: Some(signal), ..Interrupted { signal }.into() });
        }
        thread::sleep(LISTEN_EVERY);
    }
    Ok(worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
}
