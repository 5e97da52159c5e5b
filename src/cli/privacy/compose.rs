//! `fedmill privacy compose`: the cost of releases, without a state directory.

use super::plan::PlanOptions;
use super::while_listening;
use crate::bench::curves::{self, Curve};
use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, PRIVACY, print, rates};
use crate::io::text;
use crate::privacy::accountants::lines::Line;
use crate::privacy::accountants::rdp::orders::OrderList;
use crate::privacy::accountants::{self, CostTerms, cost};
use crate::privacy::event::Event;
use crate::settings::numbers;
use crate::telemetry::cells::Listing;
use clap::{ArgGroup, Args};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Compute the total cost of releases.
///
/// Prints epsilon at a delta, or delta at an epsilon, by Renyi divergences and by the privacy loss distribution. The
/// command charges nothing.
#[derive(Args, Debug)]
#[command(next_help_heading = PRIVACY)]
#[command(group = ArgGroup::new("what").required(true).args(["noise_multiplier", "events"]))]
#[command(group = ArgGroup::new("at").required(true).args(["delta", "epsilon"]))]
pub(in crate::cli) struct Arguments {
    /// The events, as JSON of dp_accounting: one event or a list. `-` is standard input.
    #[arg(long, value_name = "FILE", help_heading = INPUTS, conflicts_with_all = ["rounds", "sampling", "sampling_rate", "population"])]
    events: Option<PathBuf>,
    /// The standard deviation of the noise on the sum, divided by the clip bound.
    #[arg(long, value_name = "Z", value_parser = numbers::not_negative)]
    noise_multiplier: Option<f64>,
    /// The number of rounds.
    #[arg(long, value_name = "T", default_value_t = 1)]
    rounds: u64,
    /// The probability with which the guarantee may fail, below 1 / number of clients.
    #[arg(long, value_name = "D", value_parser = numbers::fraction)]
    delta: Option<f64>,
    /// Compute delta at this epsilon.
    #[arg(long, value_name = "E", value_parser = numbers::not_negative, conflicts_with_all = ["dimension", "plot"])]
    epsilon: Option<f64>,
    #[command(flatten)]
    plan: PlanOptions,
    /// The list of orders of Renyi divergences.
    #[arg(long, value_name = "LIST", default_value = "all")]
    orders: OrderList,
    /// Draw epsilon by rounds into FILE (.svg or .png). `-` is SVG on standard
    /// output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with = "events")]
    plot: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

/// A result and the assumptions it holds under.
#[derive(Serialize)]
struct WithAssumptions<'a, T> {
    #[serde(flatten)]
    result: &'a T,
    assumptions: Vec<String>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let format = self.plot.as_deref().map(rates::format_of).transpose()?;
        let events = self.events()?;
        match (self.delta, self.epsilon) {
            (Some(delta), _) => {
                let terms = self.terms(delta)?;
                let cost = while_listening(move || cost(&events, &terms))??;
                if let (Some(path), Some(format)) = (&self.plot, format) {
                    rates::write(path, &curves::draw(&self.title(delta), &self.curves(delta)?, format)?)?;
                }
                self.print(&cost, || lines(cost.lines()), &cost.warnings, common)?;
            }
            (None, epsilon) => {
                let deltas = {
                    let (epsilon, adjacency) = (epsilon.unwrap_or(0.0), self.plan.adjacency()?);
                    while_listening(move || accountants::delta(&events, epsilon, adjacency))??
                };
                self.print(&deltas, || lines(deltas.lines()), &[], common)?;
            }
        }
        Ok(Outcome::Done)
    }

    fn events(&self) -> Result<Vec<Event>, Failure> {
        match (&self.events, self.noise_multiplier) {
            (Some(path), _) => read(path),
            (None, multiplier) => Ok(vec![self.rounds_of(multiplier.unwrap_or(0.0), self.rounds)?]),
        }
    }

    fn rounds_of(&self, multiplier: f64, rounds: u64) -> Result<Event, Failure> {
        Ok(self.plan.sampling()?.event(multiplier)?.times(rounds))
    }

    fn terms(&self, delta: f64) -> Result<CostTerms, Failure> {
        let (adjacency, noise) = (self.plan.adjacency()?, self.plan.noise());
        Ok(CostTerms { adjacency, noise, orders: self.orders, ..CostTerms::at(delta) })
    }

    fn print<T: Serialize>(
        &self,
        result: &T,
        table: impl Fn() -> String,
        warnings: &[String],
        common: &Common,
    ) -> Result<(), Failure> {
        let assumptions = match self.events {
            Some(_) => self.plan.assumptions_of_events()?,
            None => self.plan.assumptions()?,
        };
        if self.json {
            let json = serde_json::to_string(&WithAssumptions { result, assumptions })?;
            return print(&format!("{json}\n"));
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let notes = if common.quiet { String::new() } else { format!("\n{}\n", assumptions.join("\n")) };
        rates::print_beside(self.plot.as_deref(), false, &format!("{}\n{notes}", table()))
    }

    fn title(&self, delta: f64) -> String {
        format!("epsilon by rounds, delta {delta:e}")
    }

    /// Epsilon by each accountant, at numbers of rounds up to --rounds.
    fn curves(&self, delta: f64) -> Result<Vec<Curve>, Failure> {
        let terms = self.terms(delta)?;
        let mut costs = Vec::new();
        for rounds in curves::rounds(self.rounds) {
            let event = self.rounds_of(self.noise_multiplier.unwrap_or(0.0), rounds)?;
            costs.push((rounds, while_listening(move || cost(&[event], &terms))??));
        }
        Ok(curves::of_costs(&costs))
    }
}

/// Reads events from a file, or from standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<Event>, Failure> {
    let failed = |why: anyhow::Error| why.context(path.display().to_string());
    let text = text::read_written(path).map_err(|why| failed(why.into()))?;
    let events = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text),
        false => serde_json::from_str(&text).map(|event| vec![event]),
    };
    Ok(events.map_err(|why| failed(why.into()))?)
}

/// A table with the columns name, number and remark.
pub(super) fn lines(rows: impl IntoIterator<Item = Line>) -> String {
    let mut table = Listing::bare().right([1]);
    for (name, number, remark) in rows {
        table.add([name.to_owned(), number, remark]);
    }
    table.text(&[])
}
