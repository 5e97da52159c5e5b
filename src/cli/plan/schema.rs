//! `fedmill plan schema`: the JSON Schema of plan files.

use super::super::{Common, Failure, Outcome, print};
use crate::schema::publish::json_schema;
use clap::Args;

/// Print the JSON Schema of plan files.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {}

impl Arguments {
    #[expect(clippy::unused_self, reason = "every subcommand has this method")]
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        print(&json_schema())?;
        Ok(Outcome::Done)
    }
}
