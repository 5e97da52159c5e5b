//! `fedmill privacy spend`: charges a release that fedmill does not make.

use super::super::{Common, Failure, INPUTS, Outcome, PRIVACY, print_account};
use super::compose;
use super::failure::failure;
use crate::budget::account::{Account, ExternalSpend, SpendAnswer};
use crate::privacy::event::{Adjacency, Event, EventError};
use crate::privacy::ledger::budget::epsilon_text;
use crate::telemetry::console;
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// Charge a release that fedmill does not make.
///
/// Prints the number of its record after the record is on disk. Release only then. If the budget is too small, the
/// command charges nothing and exits with status 1.
#[derive(Args, Debug)]
#[command(next_help_heading = PRIVACY)]
#[command(group = ArgGroup::new("what").required(true))]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The events of the release, as JSON of dp_accounting: one event or a list. `-` is standard input.
    #[arg(long, value_name = "FILE", help_heading = INPUTS, group = "what")]
    event: Option<PathBuf>,
    /// For a Gaussian mechanism, the standard deviation of its noise, divided by its clip bound.
    #[arg(long, value_name = "Z", group = "what")]
    noise_multiplier: Option<f64>,
    /// The probability that a client is drawn for the release.
    #[arg(long, value_name = "Q", default_value_t = 1.0, conflicts_with = "event")]
    sampling_rate: f64,
    /// The number of repetitions.
    #[arg(long, value_name = "T", default_value_t = 1, conflicts_with = "event")]
    rounds: u64,
    /// The number of the round of the release.
    #[arg(long, value_name = "N", conflicts_with = "reserve")]
    round: Option<u64>,
    /// Reserve the cost for a later charge.
    #[arg(long, conflicts_with = "settle")]
    reserve: bool,
    /// Charge the cost that record SEQ reserved.
    #[arg(long, value_name = "SEQ")]
    settle: Option<u64>,
    /// A note for the ledger.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let mut account = Account::open(&self.directory).map_err(failure)?;
        let followed_plan = account.state().follows_plan();
        let event = self.event(account.plan().adjacency)?;
        let text = self.note.clone();
        let answer = match self.reserve {
            true => account.reserve(event, text.unwrap_or_default()),
            false => account.spend(&ExternalSpend {
                event,
                reserve: self.settle,
                round: self.round,
                text,
                secure: None,
            }),
        };
        match answer.map_err(failure)? {
            SpendAnswer::Refused(verdict) => Ok(Outcome::Refused(verdict.to_string())),
            SpendAnswer::Recorded(head, verdict) => {
                if followed_plan && !account.state().follows_plan() {
                    tracing::warn!("this charge does not follow the plan: from now on only RDP counts");
                }
                if !common.quiet {
                    let spent = epsilon_text(verdict.after.epsilon(verdict.accountant));
                    console::tell(&format!("{spent} of epsilon {} are spent", verdict.budget));
                }
                print_account(&format!("{}\n", head.seq));
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
