//! `fedmill privacy spend`: what was, or will be, released elsewhere.

use super::super::{Common, Failure, Outcome, print};
use super::{compose, failure};
use crate::budget::Account;
use crate::budget::account::{Elsewhere, Paid};
use crate::privacy::event::{Adjacency, Event, EventError};
use crate::privacy::ledger::budget::told;
use crate::telemetry::console;
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// Charge something that is released elsewhere.
///
/// Prints the number of its record, once that is on disk: release only then. Ends with 1 and charges nothing if the budget
/// does not hold it.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true))]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What it is, in the JSON of dp_accounting's events: one event, or a list; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "what")]
    event: Option<PathBuf>,
    /// A Gaussian mechanism: standard deviation of its noise over its clip bound.
    #[arg(long, value_name = "Z", group = "what")]
    noise_multiplier: Option<f64>,
    /// The probability by which each client was drawn for it.
    #[arg(long, value_name = "Q", default_value_t = 1.0, conflicts_with = "event")]
    sampling_rate: f64,
    /// How often it is run.
    #[arg(long, value_name = "T", default_value_t = 1, conflicts_with = "event")]
    rounds: u64,
    /// The round that it is of.
    #[arg(long, value_name = "N", conflicts_with = "reserve")]
    round: Option<u64>,
    /// Set it aside for a charge to come.
    #[arg(long, conflicts_with = "settle")]
    reserve: bool,
    /// Charge what was set aside by this record.
    #[arg(long, value_name = "SEQ")]
    settle: Option<u64>,
    /// What it is, for people.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let mut account = Account::open(&self.directory).map_err(failure)?;
        let followed = account.state().follows_plan();
        let event = self.event(account.plan().adjacency)?;
        let text = self.note.clone();
        let paid = match self.reserve {
            true => account.reserve(event, text.unwrap_or_default()),
            false => account.spend(&Elsewhere { event, reserve: self.settle, round: self.round, text }),
        };
        match paid.map_err(failure)? {
            Paid::Refused(verdict) => Ok(Outcome::Refused(verdict.to_string())),
            Paid::Recorded(head, verdict) => {
                if followed && !account.state().follows_plan() {
                    tracing::warn!("this is not the plan's: from here on only RDP counts");
                }
                if !common.quiet {
                    let spent = told(verdict.after.epsilon(verdict.accountant));
                    console::tell(&format!("{spent} of epsilon {} are spent", verdict.budget));
                }
                print(&format!("{}\n", head.seq))?;
                Ok(Outcome::Done)
            }
        }
    }

    fn event(&self, adjacency: Adjacency) -> Result<Event, Failure> {
        if let Some(path) = &self.event {
            let mut events = compose::read(path)?;
            return Ok(if events.len() == 1 { events.remove(0) } else { Event::composed(events) });
        }
        let multiplier = self.noise_multiplier.unwrap_or(0.0) / adjacency.sensitivity();
        let make = || -> Result<Event, EventError> {
            let event = Event::gaussian(multiplier)?;
            let sampled =
                if self.sampling_rate == 1.0 { event } else { event.poisson_sampled(self.sampling_rate)? };
            Ok(if self.rounds == 1 { sampled } else { sampled.times(self.rounds) })
        };
        Ok(make()?)
    }
}
