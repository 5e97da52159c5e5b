//! `fedmill clients show`: shows one client and what it did.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::state::{StateDirectory, failure, or_dash, time_text};
use crate::cli::cells::{fit, number, row};
use crate::fleet::client::Client;
use crate::fleet::history::Past;
use crate::model::client_id::nfc;
use clap::Args;
use comfy_table::{Table, presets};
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
            false if rounds.is_empty() => facts(&client),
            false => format!("{}\n\n{}", facts(&client), past(&rounds)),
        };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

fn facts(client: &Client) -> String {
    let (profile, history) = (&client.profile, &client.history);
    let demands = profile.privacy_requirements;
    let yes = |is: bool| if is { "required" } else { "not required" }.to_owned();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in [
        ("client", profile.id.clone()),
        ("tier", or_dash(profile.tier.as_ref())),
        ("compute capability", profile.compute_capability.to_string()),
        ("memory", or_dash(profile.memory)),
        ("bandwidth", or_dash(profile.bandwidth)),
        ("data size", profile.data_size.to_string()),
        ("connection quality", profile.connection_quality.to_string()),
        ("epsilon cap", or_dash(demands.epsilon)),
        ("secure aggregation", yes(demands.secure_aggregation)),
        ("least threshold", or_dash(demands.min_secagg_threshold)),
        ("public key", or_dash(profile.public_key.as_ref())),
        ("registered", time_text(Some(client.registered_at))),
        ("last update", time_text(profile.last_update)),
        ("retired", time_text(profile.retired_at)),
        ("last round", history.last_round.to_string()),
        ("selected", history.selected.to_string()),
        ("merged", history.merged.to_string()),
        ("rejected", history.rejected.to_string()),
        ("late", history.late.to_string()),
        ("missing", history.missing.to_string()),
        ("refused", history.refused.to_string()),
        ("bytes up", history.bytes_up.to_string()),
        ("bytes down", history.bytes_down.to_string()),
        ("last loss", or_dash(history.last_loss.map(number))),
        ("last duration", or_dash(history.last_duration.map(|seconds| format!("{seconds:.1} s")))),
        ("holds", or_dash(history.holds.as_ref())),
    ] {
        table.add_row(row([name.to_owned(), value]));
    }
    table.trim_fmt()
}

fn past(rounds: &[Past]) -> String {
    let mut table = Table::new();
    let header = ["round", "outcome", "bytes up", "bytes down", "seconds", "reason"];
    table.load_style(presets::NOTHING).set_header(header);
    for past in rounds {
        table.add_row(row([
            past.round.to_string(),
            past.outcome.clone(),
            past.bytes_up.to_string(),
            past.bytes_down.to_string(),
            or_dash(past.duration_s.map(|seconds| format!("{seconds:.1}"))),
            or_dash(past.reason.as_ref()),
        ]));
    }
    fit(&mut table, &[5])
}
