//! The state of a federation at a glance: numbers, and what needs the operator's attention.

use super::numbers::{Unit, time};
use super::tables::shown;
use crate::telemetry::derived::Derived;
use crate::telemetry::metrics::{Outcome, RoundRecord};
use serde::Serialize;

/// A number of the head of the page.
#[derive(Serialize)]
pub(super) struct Tile {
    label: &'static str,
    value: String,
    note: String,
    /// A part of one, in percent, that is drawn as a bar.
    bar: Option<f64>,
}

/// The numbers of the last round.
pub(super) fn tiles(records: &[RoundRecord], derived: &Derived) -> Vec<Tile> {
    let Some((last, before)) = records.split_last() else { return Vec::new() };
    let clients = last.clients;
    let plain = |label, value, note| Tile { label, value, note, bar: None };
    let mut tiles = vec![plain("Round", last.round.to_string(), format!("ended {}", time(last.closed_at)))];
    for (label, name) in [("Accuracy", "accuracy"), ("Loss", "loss")] {
        if let Some(value) = last.metric(name) {
            let earlier = before.iter().rev().find_map(|record| record.metric(name));
            tiles.push(plain(label, Unit::Plain.shown(value), change(value, earlier)));
        }
    }
    if let Some(rate) = derived.convergence_rate {
        let note = if rate > 0.0 { "the loss falls" } else { "the loss does not fall" };
        tiles.push(plain("Convergence rate", Unit::Plain.shown(rate), note.to_owned()));
    }
    tiles.push(Tile {
        label: "Participation",
        value: derived.node_participation.map_or_else(|| "none".to_owned(), |share| Unit::Share.shown(share)),
        note: format!("{} of {} selected merged", clients.merged, clients.selected),
        bar: derived.node_participation.map(|share| 100.0 * share.min(1.0)),
    });
    tiles.push(plain(
        "Rejected",
        clients.rejected.to_string(),
        format!("of {} delivered", clients.delivered),
    ));
    if let Some(privacy) = last.privacy {
        let left = privacy.rounds_left.map(|rounds| format!(", {rounds} rounds left")).unwrap_or_default();
        tiles.push(Tile {
            label: "Epsilon spent",
            value: Unit::Plain.shown(privacy.epsilon_spent),
            note: format!("of {}{left}", Unit::Plain.shown(privacy.epsilon_budget)),
            bar: Some(100.0 * (privacy.epsilon_spent / privacy.epsilon_budget).clamp(0.0, 1.0)),
        });
    }
    let of_round = Unit::Bytes.shown((last.bytes.up + last.bytes.down) as f64);
    let total = Unit::Bytes.shown(derived.communication_cost as f64);
    tiles.push(plain("Bytes in all", total, format!("{of_round} in the last round")));
    tiles
}

/// How a value differs from an earlier one.
fn change(value: f64, earlier: Option<f64>) -> String {
    match earlier.map(|earlier| value - earlier) {
        None => "first value".to_owned(),
        Some(change) if change >= 0.0 => format!("+{} since the round before", Unit::Plain.shown(change)),
        Some(change) => format!("{} since the round before", Unit::Plain.shown(change)),
    }
}

/// What needs the operator's attention, a sentence each.
pub(super) fn attention(records: &[RoundRecord], derived: &Derived) -> Vec<String> {
    let Some(last) = records.last() else { return Vec::new() };
    let clients = last.clients;
    let mut found = Vec::new();
    if let Outcome::Refused(why) = &last.outcome {
        found.push(format!("Round {} published no model: {}", last.round, shown(why)));
    }
    for (name, _) in last.metrics.iter().filter(|(_, value)| !value.is_finite()) {
        found.push(format!("The evaluation's {} is not finite.", shown(name)));
    }
    if derived.convergence_rate.is_some_and(|rate| rate < 0.0) {
        found.push("The loss rises over the last rounds.".to_owned());
    }
    if derived.node_participation.is_some_and(|share| share < 0.5) {
        found.push(format!(
            "Under half of the selected clients are merged: {} of {}.",
            clients.merged, clients.selected
        ));
    }
    if 3 * clients.rejected > clients.delivered {
        found.push(format!(
            "Over a third of the updates are rejected: {} of {}.",
            clients.rejected, clients.delivered
        ));
    }
    if let Some(left) = last.privacy.and_then(|privacy| privacy.rounds_left).filter(|left| *left <= 5) {
        found.push(format!("The privacy budget pays for {left} more rounds."));
    }
    found
}
