//! What the subcommands of `fedmill clients` share: the state directory and times.

use crate::cli::{Failure, INPUTS};
use crate::fleet::error::FleetError;
use crate::fleet::registry::{self, Registry};
use clap::Args;
use jiff::Timestamp;
use std::path::PathBuf;

/// The state directory of a federation.
#[derive(Args, Debug)]
pub(in crate::cli) struct StateDirectory {
    /// The state directory, which has the registry `clients.db`.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
}

impl StateDirectory {
    pub(in crate::cli) fn path(&self) -> PathBuf {
        self.directory.join(registry::FILE)
    }

    pub(in crate::cli) fn open(&self) -> Result<Registry, Failure> {
        Registry::open(&self.path()).map_err(failure)
    }

    pub(in crate::cli) fn create(&self) -> Result<Registry, Failure> {
        Registry::create(&self.path()).map_err(failure)
    }
}

pub(in crate::cli) fn failure(why: FleetError) -> Failure {
    Failure::of(why)
}

/// A time as an operator writes it.
pub(in crate::cli) fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "expected a date and time with its offset, such as 2026-01-31T12:00:00Z".to_owned())
}
