//! The plots of the page: which figures each shows, and why one is absent.

use super::draw::{self, Look, Series};
use super::numbers::Unit;
use super::tables::shown;
use crate::telemetry::derived::convergence_rate;
use crate::telemetry::metrics::{Outcome, RoundRecord};
use minijinja::Value;
use serde::Serialize;
use std::collections::BTreeSet;

/// The most metrics of the evaluation that have a plot, beside loss and accuracy.
const MOST_METRICS: usize = 6;

/// The most rounds for which the convergence rate is computed.
const MOST_RATES: usize = 500;

/// The phases in their order.
const PHASES: [&str; 8] =
    ["open", "collect", "validate", "aggregate", "evaluate", "publish", "adapt", "report"];

/// A plot as the template takes it.
#[derive(Serialize)]
pub(super) struct Plot {
    title: String,
    /// What its lines are, with their last values.
    legend: Vec<Key>,
    /// The `svg` element. `None` if there is no data.
    svg: Option<Value>,
    /// Why there is no data.
    absent: &'static str,
}

/// A line of a legend.
#[derive(Serialize)]
struct Key {
    color: usize,
    label: String,
    last: Option<String>,
}

/// A plot before it is drawn.
struct Sketch<'a> {
    title: String,
    unit: Unit,
    absent: &'static str,
    series: Vec<Series>,
    records: &'a [RoundRecord],
}

impl<'a> Sketch<'a> {
    fn new(records: &'a [RoundRecord], title: &str, unit: Unit, absent: &'static str) -> Self {
        Self { title: title.to_owned(), unit, absent, series: Vec::new(), records }
    }

    fn with(mut self, look: Look, label: &str, value: impl Fn(&RoundRecord) -> Option<f64>) -> Self {
        let point =
            |record: &RoundRecord| Some((record.round as f64, value(record).filter(|x| x.is_finite())?));
        let points: Vec<(f64, f64)> = self.records.iter().filter_map(point).collect();
        self.series.push(Series { label: label.to_owned(), points, look });
        self
    }

    fn line(self, label: &str, value: impl Fn(&RoundRecord) -> Option<f64>) -> Self {
        let color = self.series.len();
        self.with(Look::Line(color), label, value)
    }

    /// Adds a line if a value differs from 0: a line at 0 says what the legend says too.
    fn line_if_any(self, label: &str, value: impl Fn(&RoundRecord) -> Option<f64>) -> Self {
        let is_any = self.records.iter().any(|record| value(record).is_some_and(|value| value != 0.0));
        if is_any { self.line(label, value) } else { self }
    }

    /// Marks the rounds that published nothing.
    fn refusals(self) -> Self {
        let is_refused = |record: &RoundRecord| (record.outcome != Outcome::Published).then_some(0.0);
        if self.records.iter().any(|record| is_refused(record).is_some()) {
            self.with(Look::Ticks(1), "refused rounds", is_refused)
        } else {
            self
        }
    }

    fn finish(self) -> Result<Plot, String> {
        let is_ticks = |series: &Series| matches!(series.look, Look::Ticks(_));
        let series: Vec<Series> =
            self.series.into_iter().filter(|series| !series.points.is_empty()).collect();
        let is_absent = !series.iter().any(|series| matches!(series.look, Look::Line(_)));
        let key = |series: &Series| Key {
            color: series.look.color(),
            label: shown(&series.label),
            last: series.points.last().filter(|_| !is_ticks(series)).map(|point| self.unit.shown(point.1)),
        };
        let legend = if is_absent { Vec::new() } else { series.iter().map(key).collect() };
        let svg = match is_absent {
            true => None,
            false => Some(Value::from_safe_string(draw::svg(&self.title, &series, self.unit)?)),
        };
        Ok(Plot { title: self.title, legend, svg, absent: self.absent })
    }
}

/// All plots of a history, in the order of the page: absent ones come last. `window` is that of the convergence rate, in rounds.
///
/// # Errors
///
/// When plotters fails, with its message.
pub(super) fn all(records: &[RoundRecord], window: u64) -> Result<Vec<Plot>, String> {
    let mut sketches = model(records, window);
    sketches.extend(clients(records));
    sketches.extend(updates(records));
    sketches.extend(costs(records));
    let mut plots: Vec<Plot> = sketches.into_iter().map(Sketch::finish).collect::<Result<_, _>>()?;
    plots.sort_by_key(|plot| plot.svg.is_none());
    Ok(plots)
}

const NO_EVALUATION: &str = "No round has this figure: the evaluation command does not print it. Set \
                             evaluation.command in fedmill.toml to a program that prints it as JSON.";

fn model(records: &[RoundRecord], window: u64) -> Vec<Sketch<'_>> {
    let of_evaluation = |name: &str, title: &str| {
        let sketch = Sketch::new(records, title, Unit::Plain, NO_EVALUATION);
        sketch.line(name, |record| record.metric(name)).refusals()
    };
    let names: BTreeSet<&str> =
        records.iter().flat_map(|record| record.metrics.keys().map(String::as_str)).collect();
    let others = names.into_iter().filter(|name| !["accuracy", "loss"].contains(name)).take(MOST_METRICS);
    let mut sketches =
        vec![of_evaluation("accuracy", "Accuracy"), of_evaluation("loss", "Loss"), rate(records, window)];
    sketches.extend(others.map(|name| of_evaluation(name, &shown(name))));
    sketches
}

/// The convergence rate of evenly spread rounds. The last round is among them.
fn rate(records: &[RoundRecord], window: u64) -> Sketch<'_> {
    let absent =
        "The convergence rate needs two rounds with a positive loss; the evaluation command prints the loss.";
    let mut sketch = Sketch::new(records, "Convergence rate", Unit::Plain, absent);
    let stride = records.len().div_ceil(MOST_RATES).max(1);
    let ends = (1..=records.len()).filter(|end| (records.len() - end).is_multiple_of(stride));
    let rate = |end: usize| Some((records[end - 1].round as f64, convergence_rate(&records[..end], window)?));
    let label = format!("fall of ln(loss) per round, over {window} rounds");
    sketch.series.push(Series { label, points: ends.filter_map(rate).collect(), look: Look::Line(0) });
    sketch
}

fn clients(records: &[RoundRecord]) -> Vec<Sketch<'_>> {
    let none = "No round has finished yet.";
    vec![
        Sketch::new(records, "Participation and fairness", Unit::Share, none)
            .line("merged of selected", |record| {
                let clients = record.clients;
                (clients.selected > 0).then(|| clients.merged as f64 / clients.selected as f64)
            })
            .line("Jain's index", |record| record.fairness),
        Sketch::new(records, "Clients", Unit::Plain, none)
            .line("selected", |record| Some(record.clients.selected as f64))
            .line("delivered", |record| Some(record.clients.delivered as f64))
            .line("merged", |record| Some(record.clients.merged as f64)),
        Sketch::new(records, "Clients turned away or absent", Unit::Plain, none)
            .line("rejected", |record| Some(record.clients.rejected as f64))
            .line_if_any("late", |record| Some(record.clients.late as f64))
            .line_if_any("missing", |record| Some(record.clients.missing as f64)),
    ]
}

fn updates(records: &[RoundRecord]) -> Vec<Sketch<'_>> {
    let norms =
        "No round has norms: privacy forbids to look at single updates, or the rule does not measure them.";
    let geometry = "No round has this figure: privacy forbids to look at single updates, or the rule needs no distances. \
                    A shadow rule that needs them measures it.";
    vec![
        Sketch::new(records, "Norms of updates", Unit::Plain, norms)
            .line("median", |record| record.geometry.norm_median)
            .with(Look::Thin(1), "largest", |record| record.geometry.norm_max)
            .with(Look::Thin(2), "least", |record| record.geometry.norm_min)
            .with(Look::Thin(3), "clip", |record| record.settings.clip),
        Sketch::new(records, "Coherence", Unit::Plain, geometry)
            .line("coherence", |record| record.geometry.coherence)
            .line("signal fraction", |record| record.geometry.signal_fraction)
            .line("alignment", |record| record.geometry.alignment),
        Sketch::new(records, "Noise scale", Unit::Plain, geometry)
            .line("clients at which noise equals signal", |record| record.geometry.noise_scale),
    ]
}

fn costs(records: &[RoundRecord]) -> Vec<Sketch<'_>> {
    let no_privacy = "The rounds have no differential privacy: privacy.enabled is false in fedmill.toml.";
    let names: BTreeSet<&str> =
        records.iter().flat_map(|record| record.phase_s.keys().map(String::as_str)).collect();
    let place = |name: &&str| PHASES.iter().position(|phase| phase == name).unwrap_or(PHASES.len());
    let mut phases: Vec<&str> = names.into_iter().collect();
    phases.sort_by_key(place);
    let times = Sketch::new(records, "Times of phases", Unit::Seconds, "No round has times.");
    // On a logarithmic axis a phase of no time has no place.
    let seconds =
        |record: &RoundRecord, phase: &str| record.phase_s.get(phase).map(|seconds| seconds.max(1e-4));
    let times =
        phases.into_iter().fold(times, |sketch, phase| sketch.line(phase, |record| seconds(record, phase)));
    vec![
        Sketch::new(records, "Privacy spent", Unit::Plain, no_privacy)
            .line("epsilon spent", |record| Some(record.privacy?.epsilon_spent))
            .with(Look::Thin(1), "budget", |record| Some(record.privacy?.epsilon_budget)),
        Sketch::new(records, "Rounds left under the budget", Unit::Plain, no_privacy)
            .line("rounds left", |record| Some(record.privacy?.rounds_left? as f64)),
        Sketch::new(records, "Bytes per round", Unit::Bytes, "No round has finished yet.")
            .line("up: updates", |record| Some(record.bytes.up as f64))
            .line("down: models", |record| Some(record.bytes.down as f64)),
        times,
    ]
}
