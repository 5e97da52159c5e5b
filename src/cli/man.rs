//! `fedmill man`: the pages of `man`.

use super::{Common, Failure, OUTPUT, Outcome, command, print_path};
use crate::io::collision;
use crate::telemetry::manual;
use clap::Args;
use std::path::PathBuf;

/// Write a page of `man` for each command.
///
/// Prints the path of their folder. `man -l DIR/fedmill.1` shows a page.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The folder.
    #[arg(value_name = "DIR", help_heading = OUTPUT)]
    directory: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        for (name, page) in manual::pages(command())? {
            collision::write_output(&self.directory.join(name), &page)?;
        }
        print_path(&self.directory);
        Ok(Outcome::Done)
    }
}
