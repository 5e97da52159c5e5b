//! `fedmill privacy compose`: what releases cost together, without any state.

use super::plan::{self, Plan};
use crate::bench::curves::{self, Curve};
use crate::cli::{Common, Failure, Outcome, print, rates};
use crate::io::text;
use crate::privacy::accountants::rdp::orders::OrderList;
use crate::privacy::accountants::{self, Deltas, Spent, Terms, spend};
use crate::privacy::event::Event;
use clap::{ArgGroup, Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Account for releases: what they cost together.
///
/// Prints epsilon at a delta, or delta at an epsilon, by Renyi divergences and by the privacy loss distribution. Nothing is
/// charged.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["noise_multiplier", "events"]))]
#[command(group = ArgGroup::new("at").required(true).args(["delta", "epsilon"]))]
pub(super) struct Arguments {
    /// Standard deviation of the noise on the sum, in clip bounds.
    #[arg(long, value_name = "Z", value_parser = plan::not_negative)]
    noise_multiplier: Option<f64>,
    /// How many rounds.
    #[arg(long, value_name = "T", default_value_t = 1)]
    rounds: u64,
    /// Events as dp_accounting names them: a JSON tree, or an array of trees; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounds", "sampling", "sampling_rate", "population"])]
    events: Option<PathBuf>,
    /// What the guarantee may fail with; less than one by the number of clients.
    #[arg(long, value_name = "D", value_parser = plan::fraction)]
    delta: Option<f64>,
    /// Tell delta at this epsilon.
    #[arg(long, value_name = "E", value_parser = plan::not_negative, conflicts_with_all = ["dimension", "plot"])]
    epsilon: Option<f64>,
    #[command(flatten)]
    plan: Plan,
    /// Orders of Renyi divergences.
    #[arg(long, value_name = "LIST", default_value = "all")]
    orders: Orders,
    /// Draw epsilon against rounds, into a .svg or .png file.
    #[arg(long, value_name = "FILE", conflicts_with = "events")]
    plot: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which orders epsilon is the best of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Orders {
    /// 1.05 to 10.9 by tenths, integers to 256, and five up to 1024.
    All,
    /// Integers alone.
    Integers,
    /// Those of dp_accounting.
    DpAccounting,
    /// Those of Opacus.
    Opacus,
}

impl From<Orders> for OrderList {
    fn from(orders: Orders) -> Self {
        match orders {
            Orders::All => Self::All,
            Orders::Integers => Self::Integers,
            Orders::DpAccounting => Self::DpAccounting,
            Orders::Opacus => Self::Opacus,
        }
    }
}

/// What is printed, with what it holds under.
#[derive(Serialize)]
struct Told<'a, T> {
    #[serde(flatten)]
    found: &'a T,
    assumptions: Vec<String>,
}

/// Numbers of rounds that are drawn.
const POINTS: u32 = 24;

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let format = self.plot.as_deref().map(rates::format_of).transpose()?;
        let events = self.events()?;
        match (self.delta, self.epsilon) {
            (Some(delta), _) => {
                let spent = spend(&events, &self.terms(delta)?)?;
                if let (Some(path), Some(format)) = (&self.plot, format) {
                    rates::write(path, &curves::draw(&self.title(delta), &self.curves(delta)?, format)?)?;
                }
                self.tell(&spent, || table(&spent), &spent.warnings, common)?;
            }
            (None, epsilon) => {
                let deltas = accountants::delta(&events, epsilon.unwrap_or(0.0), self.plan.adjacency()?)?;
                self.tell(&deltas, || table_of_deltas(&deltas), &[], common)?;
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
        Ok(self.plan.sampling()?.event(multiplier, rounds)?)
    }

    fn terms(&self, delta: f64) -> Result<Terms, Failure> {
        let (adjacency, noise) = (self.plan.adjacency()?, self.plan.noise());
        Ok(Terms { adjacency, noise, orders: self.orders.into(), ..Terms::at(delta) })
    }

    fn tell<T: Serialize>(
        &self,
        found: &T,
        table: impl Fn() -> String,
        warnings: &[String],
        common: &Common,
    ) -> Result<(), Failure> {
        let assumptions = match self.events {
            Some(_) => self.plan.assumptions_of_events()?,
            None => self.plan.assumptions()?,
        };
        if self.json {
            return print(&format!("{}\n", serde_json::to_string(&Told { found, assumptions })?));
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let said = if common.quiet { String::new() } else { format!("\n{}\n", assumptions.join("\n")) };
        print(&format!("{}\n{said}", table()))
    }

    fn title(&self, delta: f64) -> String {
        format!("epsilon by rounds, delta {delta:e}")
    }

    /// Epsilon by each accountant, at rounds up to those asked for.
    fn curves(&self, delta: f64) -> Result<Vec<Curve>, Failure> {
        let last = self.rounds.max(1) as f64;
        let mut rounds: Vec<u64> =
            (0..POINTS).map(|k| last.powf(f64::from(k) / f64::from(POINTS - 1)).round() as u64).collect();
        rounds.dedup();
        let terms = self.terms(delta)?;
        let mut spent: Vec<(f64, Spent)> = Vec::new();
        for rounds in rounds {
            let event = self.rounds_of(self.noise_multiplier.unwrap_or(0.0), rounds)?;
            spent.push((rounds as f64, spend(&[event], &terms)?));
        }
        let curve = |label: &str, epsilon: &dyn Fn(&Spent) -> Option<f64>| Curve {
            label: label.to_owned(),
            points: spent.iter().filter_map(|(rounds, spent)| Some((*rounds, epsilon(spent)?))).collect(),
        };
        Ok(vec![
            curve("Renyi divergences", &|spent| Some(spent.epsilon_rdp)),
            curve("Renyi, integer orders", &|spent| Some(spent.epsilon_rdp_integer)),
            curve("loss distribution", &|spent| spent.epsilon_pld),
        ])
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<Event>, Failure> {
    let failed = |why: anyhow::Error| why.context(path.display().to_string());
    let text = text::read(path).map_err(|why| failed(why.into()))?;
    let events = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text),
        false => serde_json::from_str(&text).map(|event| vec![event]),
    };
    Ok(events.map_err(|why| failed(why.into()))?)
}

fn table(spent: &Spent) -> String {
    let known = |epsilon: Option<f64>| epsilon.map_or("-".to_owned(), rounded_up);
    let order = |order: f64| if order.is_finite() { format!("order {order}") } else { String::new() };
    let mut rows = vec![
        ("epsilon, Renyi divergences", known(Some(spent.epsilon_rdp)), order(spent.order)),
        ("epsilon, integer orders", known(Some(spent.epsilon_rdp_integer)), order(spent.integer_order)),
        ("epsilon, loss distribution", known(spent.epsilon_pld), "for a plan fixed in advance".to_owned()),
    ];
    if spent.epsilon_zcdp.is_some() {
        rows.push(("epsilon, concentrated", known(spent.epsilon_zcdp), "best real order".to_owned()));
    }
    if let Some(slack) = spent.slack {
        rows.push(("slack of discrete noise", format!("{slack:.3e}"), String::new()));
    }
    rows.push(("delta", format!("{:e}", spent.delta), String::new()));
    rows.push(("releases", spent.releases.to_string(), String::new()));
    lines(rows)
}

/// An epsilon to six decimals, none of them too small.
pub(super) fn rounded_up(epsilon: f64) -> String {
    match epsilon.is_finite() {
        true => format!("{:.6}", (epsilon * 1e6).ceil() / 1e6),
        false => "infinite".to_owned(),
    }
}

fn table_of_deltas(deltas: &Deltas) -> String {
    let known = |delta: Option<f64>| delta.map_or("-".to_owned(), |delta| format!("{delta:.6e}"));
    lines(vec![
        ("delta, Renyi divergences", known(Some(deltas.delta_rdp)), format!("order {}", deltas.order)),
        ("delta, loss distribution", known(deltas.delta_pld), "for a plan fixed in advance".to_owned()),
        ("epsilon", deltas.epsilon.to_string(), String::new()),
    ])
}

/// Rows of a name, a number and a remark.
pub(super) fn lines(rows: Vec<(&str, String, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, number, remark) in rows {
        table.add_row([name.to_owned(), number, remark]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
