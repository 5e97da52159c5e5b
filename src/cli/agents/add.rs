//! `fedmill agents add`: registers agents.

use super::registry::{Adding, read};
use crate::cli::clients::state::StateDirectory;
use crate::cli::{Common, Failure, INPUTS, Outcome, print_account};
use crate::io::text;
use anyhow::anyhow;
use clap::Args;
use std::path::PathBuf;

/// Register agents.
///
/// Makes the registry if there is none. The file is a JSON object of agents by name, as `agents` of a plan. Their scores
/// come from their attempts: a `score` in the file has no effect. Prints the names.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The agents as JSON. `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    adding: Adding,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let text = text::read_written(&self.file)
            .map_err(|why| anyhow!("{}: cannot be read: {why}", self.file.display()))?;
        let agents = read(&text, &self.file)?;
        self.adding.add(self.state.create()?, &agents)?;
        print_account(&agents.keys().map(|name| format!("{name}\n")).collect::<String>());
        Ok(Outcome::Done)
    }
}
