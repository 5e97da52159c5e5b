//! The tables of the page: the last rounds, clients turned away, adapted settings.

use super::numbers::{Unit, time};
use crate::telemetry::escape::escaped;
use crate::telemetry::metrics::{Outcome, RoundRecord};
use serde::Serialize;

/// The number of rounds that tables look at.
pub(super) const ROUNDS: usize = 20;

/// The most rows of clients or of settings.
pub(super) const MOST_ROWS: usize = 40;

/// The most characters of a text that a client or an operator chose.
const LONGEST: usize = 160;

/// A text of others: escaped for the eye, and cut where it is long. The template escapes it for HTML.
pub(super) fn shown(text: &str) -> String {
    let text = escaped(text);
    match text.char_indices().nth(LONGEST) {
        None => text.into_owned(),
        Some((end, _)) => format!("{} …", &text[..end]),
    }
}

/// A finished round.
#[derive(Serialize)]
pub(super) struct RoundRow {
    round: u64,
    ended: String,
    is_published: bool,
    reason: String,
    accuracy: Option<String>,
    loss: Option<String>,
    merged: String,
    rejected: u64,
    bytes: String,
    duration: String,
    model: String,
}

/// The last rounds, the newest first.
pub(super) fn rounds(records: &[RoundRecord]) -> Vec<RoundRow> {
    records.iter().rev().take(ROUNDS).map(RoundRow::of).collect()
}

impl RoundRow {
    fn of(record: &RoundRecord) -> Self {
        let metric = |name| record.metric(name).map(|value| Unit::Plain.shown(value));
        let reason = match &record.outcome {
            Outcome::Published => String::new(),
            Outcome::Refused(why) => shown(why),
        };
        Self {
            round: record.round,
            ended: time(record.closed_at),
            is_published: record.outcome == Outcome::Published,
            reason,
            accuracy: metric("accuracy"),
            loss: metric("loss"),
            merged: format!("{} of {}", record.clients.merged, record.clients.selected),
            rejected: record.clients.rejected,
            bytes: Unit::Bytes.shown((record.bytes.up + record.bytes.down) as f64),
            duration: Unit::Seconds.shown(record.closed_at - record.opened_at),
            model: record.model.iter().flat_map(|digest| digest.chars().take(12)).collect(),
        }
    }
}

/// A client that a round did not merge although it delivered.
#[derive(Serialize)]
pub(super) struct ClientRow {
    round: u64,
    id: String,
    outcome: String,
    norm: Option<String>,
    reason: String,
}

/// The clients that the last rounds turned away, the newest first. `None` if the last round does not name clients.
pub(super) fn turned_away(records: &[RoundRecord]) -> Option<Vec<ClientRow>> {
    records.last()?.rows.as_ref()?;
    let rows = records.iter().rev().take(ROUNDS).flat_map(|record| {
        let rows = record.rows.iter().flatten();
        rows.filter(|row| !row.kept && row.outcome != "missing").map(|row| ClientRow {
            round: record.round,
            id: shown(&row.id),
            outcome: shown(&row.outcome),
            norm: row.norm.map(|norm| Unit::Plain.shown(norm)),
            reason: row.reason.as_deref().map(shown).unwrap_or_default(),
        })
    });
    Some(rows.take(MOST_ROWS).collect())
}

/// A setting that a round changed for the next one.
#[derive(Serialize)]
pub(super) struct SettingRow {
    round: u64,
    setting: String,
    from: String,
    to: String,
    why: String,
}

/// The latest changes of settings, the newest first.
pub(super) fn adapted(records: &[RoundRecord]) -> Vec<SettingRow> {
    let rows = records.iter().rev().flat_map(|record| {
        record.adapted.iter().map(|change| SettingRow {
            round: record.round,
            setting: shown(&change.setting),
            from: shown(&change.from),
            to: shown(&change.to),
            why: shown(&change.why),
        })
    });
    rows.take(MOST_ROWS).collect()
}
