//! `fedmill clients list`: shows the clients of the registry.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::state::{StateDirectory, failure};
use crate::fleet::registry::Filter;
use crate::fleet::tables;
use clap::Args;

/// Show the clients of the registry.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// Show clients of this tier only.
    #[arg(long, value_name = "NAME", help_heading = INPUTS)]
    tier: Option<String>,
    /// Show retired clients too.
    #[arg(long, help_heading = INPUTS)]
    retired: bool,
    /// Show at most N clients.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print a JSON object a client, one a line.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let registry = self.state.open()?;
        let filter = Filter { tier: self.tier.clone(), with_retired: self.retired, limit: self.limit };
        if self.json {
            return list_json(&registry, &filter);
        }
        let mut table = tables::clients();
        registry
            .list(&filter, |client| {
                tables::add_client(&mut table, &client);
                Ok(())
            })
            .map_err(failure)?;
        print(&format!("{}\n", table.text(&[0, 1])))?;
        Ok(Outcome::Done)
    }
}

fn list_json(registry: &crate::fleet::registry::Registry, filter: &Filter) -> Result<Outcome, Failure> {
    let mut text = String::new();
    let mut failed = None;
    registry
        .list(filter, |client| {
            let added = serde_json::to_string(&client).map(|line| text.push_str(&(line + "\n")));
            failed = added.err().map(Failure::from);
            if failed.is_none() && text.len() > LINES {
                failed = print(&std::mem::take(&mut text)).err();
            }
            Ok(())
        })
        .map_err(failure)?;
    match failed {
        Some(why) => Err(why),
        None => print(&text).map(|()| Outcome::Done),
    }
}

/// Bytes of JSON lines that are printed together.
const LINES: usize = 1 << 16;
