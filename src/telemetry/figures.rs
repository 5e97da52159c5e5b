//! The table of exported figures: the source for Prometheus, TensorBoard and docs/monitoring.md.

use super::derived::Derived;
use super::metrics::{Geometry, Outcome, Quantiles, RoundRecord};

/// The most clients whose figures are exported one by one. A database of series must not grow with the registry.
pub const MOST_CLIENTS: usize = 1000;

/// A figure of the last round.
pub struct Figure {
    /// Its name without the prefix `fedmill_`, with its unit.
    pub name: &'static str,
    /// How it changes.
    pub kind: Kind,
    /// The section of a dashboard that it belongs to.
    pub group: &'static str,
    /// What it is, with its range.
    pub help: &'static str,
    values: Values,
}

/// How a figure changes from round to round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It rises and falls.
    Gauge,
    /// It only rises.
    Counter,
}

/// Where the values of a figure come from.
enum Values {
    One(fn(&RoundRecord, &Derived) -> Option<f64>),
    /// The name of the label, and a value for each of its values.
    Each(&'static str, EachValue),
}

/// Reads the values of a label from a record, each with its value of the figure.
type EachValue = fn(&RoundRecord) -> Vec<(&str, Option<f64>)>;

impl Figure {
    /// The name of its label. `None` if it has a single value.
    pub fn label(&self) -> Option<&'static str> {
        match self.values {
            Values::One(_) => None,
            Values::Each(label, _) => Some(label),
        }
    }

    /// Its values in a round, each with the value of the label.
    ///
    /// Values that are missing or not finite are left out, and so is the second value of a label.
    pub fn values<'a>(&self, record: &'a RoundRecord, derived: &Derived) -> Vec<(Option<&'a str>, f64)> {
        let all: Vec<(Option<&str>, Option<f64>)> = match self.values {
            Values::One(value) => vec![(None, value(record, derived))],
            Values::Each(_, values) => values(record).into_iter().map(|(of, x)| (Some(of), x)).collect(),
        };
        let mut seen = std::collections::BTreeSet::new();
        let finite = all.into_iter().filter_map(|(of, x)| Some((of, x.filter(|x| x.is_finite())?)));
        finite.filter(|(of, _)| seen.insert(*of)).collect()
    }
}

impl Kind {
    /// Its name in Prometheus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// A gauge with one value.
const fn one(
    group: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&RoundRecord, &Derived) -> Option<f64>,
) -> Figure {
    Figure { name, kind: Kind::Gauge, group, help, values: Values::One(value) }
}

/// A gauge with a value for each value of a label.
const fn each(
    group: &'static str,
    name: &'static str,
    label: &'static str,
    help: &'static str,
    values: EachValue,
) -> Figure {
    Figure { name, kind: Kind::Gauge, group, help, values: Values::Each(label, values) }
}

/// A figure as a counter.
const fn counter(figure: Figure) -> Figure {
    Figure { kind: Kind::Counter, ..figure }
}

/// Every exported figure, in the order of its group.
pub const FIGURES: &[Figure] = &[
    one("round", "round", "Number of the last finished round", |round, _| Some(round.round as f64)),
    one(
        "round",
        "round_published",
        "1 if the last round published a model, 0 if it was refused",
        |round, _| Some(if round.outcome == Outcome::Published { 1.0 } else { 0.0 }),
    ),
    one(
        "round",
        "last_success_timestamp_seconds",
        "Time at which a round last published a model, in seconds since 1970",
        |_, derived| derived.last_published_at,
    ),
    one(
        "round",
        "last_round_timestamp_seconds",
        "Time at which a round last ended, in seconds since 1970",
        |round, _| Some(round.closed_at),
    ),
    one("round", "round_seconds", "Seconds from the opening of the last round to its end", |round, _| {
        Some(round.closed_at - round.opened_at)
    }),
    each("round", "phase_seconds", "phase", "Seconds of each phase of the last round", |round| {
        round.phase_s.iter().map(|(phase, seconds)| (phase.as_str(), Some(*seconds))).collect()
    }),
    one(
        "model",
        "convergence_rate",
        "Minus the slope of ln(loss) over the last rounds, per round; above 0 the loss falls",
        |_, derived| derived.convergence_rate,
    ),
    one("model", "model_accuracy", "accuracy as the evaluation command measures it", |_, derived| {
        derived.model_accuracy
    }),
    each("model", "evaluation", "metric", "Every number of the evaluation command", |round| {
        round.metrics.iter().map(|(metric, value)| (metric.as_str(), Some(*value))).collect()
    }),
    each(
        "clients",
        "clients",
        "state",
        "Clients or updates of the last round by what they did; registered: clients in the registry",
        client_counts,
    ),
    one(
        "clients",
        "node_participation",
        "Merged clients over selected ones; above 1 if late updates were merged too",
        |_, derived| derived.node_participation,
    ),
    one(
        "clients",
        "participation_fairness",
        "Jain's index of how often each client was merged, 1/n to 1",
        |round, _| round.fairness,
    ),
    each(
        "clients",
        "arrival_seconds",
        "point",
        "Seconds from the opening of the last round to the updates that came in time",
        |round| points(round.clients.arrival_s),
    ),
    each(
        "clients",
        "client_update_norm",
        "client",
        "L2 norm of each client's update; not under privacy",
        |round| {
            let rows = round.rows.as_deref().unwrap_or_default();
            rows.iter().take(MOST_CLIENTS).map(|row| (row.id.as_str(), row.norm)).collect()
        },
    ),
    each("geometry", "update_norm", "point", "L2 norm of the updates of the last round", |round| {
        let Geometry { norm_min, norm_median, norm_max, .. } = round.geometry;
        vec![("min", norm_min), ("median", norm_median), ("max", norm_max)]
    }),
    one("geometry", "coherence", "Mean cosine of two updates, -1 to 1", |round, _| round.geometry.coherence),
    one(
        "geometry",
        "noise_scale",
        "Number of clients at which signal and noise of the mean are equal",
        |round, _| round.geometry.noise_scale,
    ),
    one(
        "geometry",
        "signal_fraction",
        "Part of the mean's squared length that is no noise, 0 to 1",
        |round, _| round.geometry.signal_fraction,
    ),
    one(
        "geometry",
        "alignment",
        "Length of the mean update over the mean length of the updates, 0 to 1",
        |round, _| round.geometry.alignment,
    ),
    counter(one(
        "communication",
        "communication_cost_bytes_total",
        "Bytes up and down in all rounds",
        |_, derived| Some(derived.communication_cost as f64),
    )),
    each(
        "communication",
        "round_bytes",
        "direction",
        "Bytes of the last round; up: updates, down: models for clients",
        |round| vec![("up", Some(round.bytes.up as f64)), ("down", Some(round.bytes.down as f64))],
    ),
    one("privacy", "privacy_budget_spent_epsilon", "Epsilon of all releases so far", |_, derived| {
        derived.privacy_budget_spent
    }),
    one("privacy", "privacy_budget_epsilon", "Epsilon that the operator allows in all", |round, _| {
        Some(round.privacy?.epsilon_budget)
    }),
    one("privacy", "privacy_delta", "Delta at which both epsilons hold", |round, _| {
        Some(round.privacy?.delta)
    }),
    one("privacy", "privacy_rounds_left", "Rounds that the rest of the budget pays for", |round, _| {
        Some(round.privacy?.rounds_left? as f64)
    }),
    one("settings", "server_learning_rate", "Factor of the server's step", |round, _| {
        round.settings.server_learning_rate
    }),
    one("settings", "clip_norm", "Largest L2 norm of an update; longer ones are scaled down", |round, _| {
        round.settings.clip
    }),
    one("settings", "quorum", "Updates that the round waits for", |round, _| {
        round.settings.quorum.map(|quorum| quorum as f64)
    }),
    one(
        "settings",
        "deadline_seconds",
        "Seconds from the opening of the round to its deadline",
        |round, _| round.settings.deadline_s,
    ),
    one("settings", "selection", "Clients that the round asks for", |round, _| {
        round.settings.selected.map(|selected| selected as f64)
    }),
    one(
        "settings",
        "compression_target",
        "Bytes of a compressed update over those of a raw one, 0 to 1",
        |round, _| round.settings.compression_target,
    ),
    each("settings", "local_steps", "tier", "Local steps of a client, by tier", |round| {
        round.settings.local_steps.iter().map(|(tier, steps)| (tier.as_str(), Some(*steps as f64))).collect()
    }),
    one("settings", "adapted_settings", "Settings that the next round changes", |round, _| {
        Some(round.adapted.len() as f64)
    }),
];

fn client_counts(round: &RoundRecord) -> Vec<(&str, Option<f64>)> {
    let clients = round.clients;
    let counts = [
        ("registered", clients.population),
        ("selected", clients.selected),
        ("delivered", clients.delivered),
        ("late", clients.late),
        ("missing", clients.missing),
        ("rejected", clients.rejected),
        ("merged", clients.merged),
        ("waiting", clients.waiting),
    ];
    counts.into_iter().map(|(state, count)| (state, Some(count as f64))).collect()
}

fn points(quantiles: Option<Quantiles>) -> Vec<(&'static str, Option<f64>)> {
    let point = |of: fn(Quantiles) -> f64| quantiles.map(of);
    vec![
        ("min", point(|q| q.min)),
        ("median", point(|q| q.median)),
        ("p90", point(|q| q.p90)),
        ("max", point(|q| q.max)),
    ]
}
