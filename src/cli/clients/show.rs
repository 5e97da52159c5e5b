//! `fedmill clients show`: shows one client and what it did.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::state::{StateDirectory, failure};
use crate::fleet::client::Client;
use crate::fleet::history::Past;
use crate::fleet::tables;
use crate::model::client_id::nfc;
use clap::Args;
use serde::Serialize;

/// Show a client, and what it did in its last rounds.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The id of the client.
    #[arg(value_name = "ID", help_heading = INPUTS)]
    id: String,
    /// Show the last N rounds of the client.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'c> {
    #[serde(flatten)]
    client: &'c Client,
    rounds: &'c [Past],
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let registry = self.state.open()?;
        let client = registry.client(&nfc(&self.id)).map_err(failure)?;
        let rounds = registry.history(&client.profile.id, self.rounds).map_err(failure)?;
        let text = match self.json {
            true => serde_json::to_string(&Shown { client: &client, rounds: &rounds })?,
            false => tables::client(&client, &rounds),
        };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}
