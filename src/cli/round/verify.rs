//! `fedmill round verify`: checks the state directory of a federation.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::{config, hardware};
use crate::round::fates::rounds_text;
use crate::round::server::Server;
use crate::round::{layout, verify};
use clap::Args;
use std::path::PathBuf;

/// Check the state directory of a federation: the chain of its journals, and the digests of its models.
///
/// The exit status is 1 if the registry of clients is older than the journals.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let config = config(&self.directory)?;
        let mut server = Server::open(&self.directory, &config, hardware(common)?).map_err(Failure::of)?;
        let checked = verify::run(&mut server, &self.directory).map_err(Failure::of)?;
        let verify::Checked { rounds, lines, models, head, unrecorded } = &checked;
        let head = head.map_or_else(String::new, |head| format!("\nhead {head}"));
        let text = match self.json {
            true => serde_json::to_string(&checked)?,
            false => format!("{rounds} rounds, {lines} lines and {models} models are sound{head}"),
        };
        print(&format!("{text}\n"))?;
        Ok(match unrecorded {
            None => Outcome::Done,
            Some(unknown) => Outcome::Refused(format!(
                "{} does not know {}, found in the journals: it is from a backup. Restore the whole directory from one \
                 backup, or let the next `fedmill round run` record what is missing",
                layout::REGISTRY,
                rounds_text(*unknown)
            )),
        })
    }
}
