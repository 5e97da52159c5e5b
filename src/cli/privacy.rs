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
mod verify;

use super::{Common, Failure, Outcome};
use clap::{Args, Subcommand};

/// Keep a budget of differential privacy.
///
/// A state directory holds the plan and a ledger of all releases under it.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Init(init::Arguments),
    Compose(Box<compose::Arguments>),
    Calibrate(calibrate::Arguments),
    Status(status::Arguments),
    Spend(spend::Arguments),
    Verify(verify::Arguments),
    Recover(recover::Arguments),
    Void(recover::VoidArguments),
    Export(export::Arguments),
    Clip(sums::ClipArguments),
    Sum(sums::SumArguments),
    Noise(sums::NoiseArguments),
    Selftest(selftest::Arguments),
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        match &self.command {
            Command::Init(arguments) => arguments.run(common),
            Command::Compose(arguments) => arguments.run(common),
            Command::Calibrate(arguments) => arguments.run(),
            Command::Status(arguments) => arguments.run(),
            Command::Spend(arguments) => arguments.run(common),
            Command::Verify(arguments) => arguments.run(),
            Command::Recover(arguments) => arguments.run(),
            Command::Void(arguments) => arguments.run(),
            Command::Export(arguments) => arguments.run(),
            Command::Clip(arguments) => arguments.run(common),
            Command::Sum(arguments) => arguments.run(common),
            Command::Noise(arguments) => arguments.run(common),
            Command::Selftest(arguments) => arguments.run(common),
        }
    }
}
