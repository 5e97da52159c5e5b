//! `fedmill clients retire` and `expire`: clients that no round selects any more.

use super::super::{Common, Failure, INPUTS, Outcome, print_account};
use super::state::{StateDirectory, failure, parse_time};
use crate::fleet::age::Age;
use crate::model::client_id::nfc;
use crate::telemetry::escape::escaped;
use clap::Args;
use jiff::{SignedDuration, Timestamp};

/// Retire clients: no round selects them any more. Their history stays.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The ids of the clients.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let ids: Vec<String> = self.ids.iter().map(|id| nfc(id)).collect();
        let retired = self.state.open()?.retire(&ids, Timestamp::now()).map_err(failure)?;
        print_account(&format!("{}\n", retired_text(retired)));
        Ok(Outcome::Done)
    }
}

/// Retire clients that were not seen for a time. Prints their ids.
///
/// A client was last seen when its last update came. Without an update, its registration counts.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct ExpireArguments {
    #[command(flatten)]
    state: StateDirectory,
    /// Retire clients that were last seen longer ago, such as 30d or 12h.
    #[arg(long, value_name = "TIME")]
    older_than: Age,
    /// The time to count from [default: now].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
}

impl ExpireArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let now = self.at.unwrap_or_else(Timestamp::now);
        let before = now.checked_sub(SignedDuration::from_secs(self.older_than.seconds()))?;
        let ids = self.state.open()?.expire(before, now).map_err(failure)?;
        if !common.quiet {
            crate::telemetry::console::tell(&retired_text(ids.len() as u64));
        }
        print_account(&ids.iter().map(|id| format!("{}\n", escaped(id))).collect::<String>());
        Ok(Outcome::Done)
    }
}

fn retired_text(count: u64) -> String {
    format!("{count} {} retired", if count == 1 { "client" } else { "clients" })
}
