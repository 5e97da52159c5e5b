//! What each client did in each round, and the sums of it in the client's row.

use crate::fleet::schema::has_reasons;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// How a round ended for a client that it selected.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its update was merged.
    Merged,
    /// Its update came, and the round rejected it.
    Rejected,
    /// No update came in time, but one that is too late for this round or an earlier one.
    Late,
    /// No update came.
    Missing,
    /// Its update came, and the round published nothing.
    Refused,
}

impl Outcome {
    /// Its name, which is also its column in the table of clients.
    pub fn name(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Rejected => "rejected",
            Self::Late => "late",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }

    /// Whether an update came.
    fn sent(self) -> bool {
        matches!(self, Self::Merged | Self::Rejected | Self::Late | Self::Refused)
    }
}

/// What a client did in a round that selected it.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Participation {
    /// Its id.
    pub client: String,
    /// How the round ended for it.
    pub outcome: Outcome,
    /// Bytes of its update.
    pub bytes_up: u64,
    /// Bytes that it was given.
    pub bytes_down: u64,
    /// Seconds from its task to its update.
    pub duration_s: Option<f64>,
    /// Its loss before training: the root of the mean squared loss over its examples.
    pub loss: Option<f64>,
    /// The digest of the model that it holds now; `None` if that did not change.
    pub holds: Option<String>,
    /// Why the round ended so for it; `None` if its update was merged.
    pub reason: Option<String>,
}

/// What became of a round to record.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recorded {
    /// Whether the round was on record before: nothing changed.
    pub was_known: bool,
    /// Ids that are not registered. Their part in the round is on record without a client.
    pub unregistered: Vec<String>,
}

/// What a client did in one of its rounds.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Past {
    /// The round.
    pub round: u64,
    /// How it ended for the client.
    pub outcome: String,
    /// Why it ended so; `None` if the update was merged, and for rounds that an older fedmill recorded.
    pub reason: Option<String>,
    /// Bytes of its update.
    pub bytes_up: u64,
    /// Bytes that it was given.
    pub bytes_down: u64,
    /// Seconds from its task to its update.
    pub duration_s: Option<f64>,
    /// Its loss before training.
    pub loss: Option<f64>,
}

/// Sums over the clients of how many updates of each were merged.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Counts {
    /// The number of clients, n.
    pub clients: u64,
    /// The sum of their counts.
    pub sum: f64,
    /// The sum of the squares of their counts.
    pub sum_of_squares: f64,
}

impl Counts {
    /// Jain's index, `sum^2 / (n * sum of squares)`: 1 if all took part equally often, 1/n if one did alone. `None`
    /// before any update was merged.
    pub fn jain(&self) -> Option<f64> {
        (self.sum_of_squares > 0.0).then(|| self.sum * self.sum / (self.clients as f64 * self.sum_of_squares))
    }
}

/// A count as SQLite keeps it.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Records a round within a transaction, once.
pub(super) fn record(
    change: &Connection,
    round: u64,
    did: &[Participation],
    at: Timestamp,
) -> rusqlite::Result<Recorded> {
    let sql = "INSERT INTO rounds (round, recorded_at, utility) VALUES (?1, ?2, NULL) ON CONFLICT DO NOTHING";
    if change.execute(sql, params![to_sql(round), at.as_second()])? == 0 {
        return Ok(Recorded { was_known: true, unregistered: Vec::new() });
    }
    let (mut unregistered, mut utility, mut losses) = (Vec::new(), 0.0, 0_u32);
    for part in did {
        if !record_part(change, to_sql(round), part, at)? {
            unregistered.push(part.client.clone());
        }
        if let (Outcome::Merged, Some(loss)) = (part.outcome, part.loss) {
            let mut query = change.prepare_cached("SELECT data_size FROM clients WHERE id = ?1")?;
            let size: Option<f64> = query.query_row([&part.client], |row| row.get(0)).optional()?;
            utility += size.unwrap_or(0.0) * loss;
            losses += 1;
        }
    }
    if losses > 0 {
        let mean = utility / f64::from(losses);
        change.execute("UPDATE rounds SET utility = ?2 WHERE round = ?1", params![to_sql(round), mean])?;
    }
    Ok(Recorded { was_known: false, unregistered })
}

/// Records the part of a client. Returns whether it is registered.
fn record_part(
    change: &Connection,
    round: i64,
    part: &Participation,
    at: Timestamp,
) -> rusqlite::Result<bool> {
    let Participation { client, outcome, duration_s, loss, holds, .. } = part;
    let (up, down) = (to_sql(part.bytes_up), to_sql(part.bytes_down));
    let sql = "INSERT INTO participation (client, round, outcome, bytes_up, bytes_down, duration, loss, reason) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
    let is_new = change.prepare_cached(sql)?.execute(params![
        client,
        round,
        outcome.name(),
        up,
        down,
        duration_s,
        loss,
        part.reason
    ])?;
    if is_new == 0 {
        return Ok(true);
    }
    let counter = outcome.name();
    let sql = format!(
        "UPDATE clients SET selected = selected + 1, {counter} = {counter} + 1, bytes_up = bytes_up + ?2, \
         bytes_down = bytes_down + ?3, last_round = max(last_round, ?4), \
         last_update = CASE WHEN ?5 THEN max(coalesce(last_update, ?6), ?6) ELSE last_update END, \
         loss_round = CASE WHEN ?7 IS NULL THEN loss_round ELSE ?4 END, last_loss = coalesce(?7, last_loss), \
         last_duration = coalesce(?8, last_duration), holds = coalesce(?9, holds) WHERE id = ?1"
    );
    let values = params![client, up, down, round, outcome.sent(), at.as_second(), loss, duration_s, holds];
    Ok(change.prepare_cached(&sql)?.execute(values)? == 1)
}

/// What a client did in its last rounds.
pub(super) fn of(connection: &Connection, id: &str, limit: u64) -> rusqlite::Result<Vec<Past>> {
    let reason = if has_reasons(connection)? { "reason" } else { "NULL" };
    let sql = format!(
        "SELECT round, outcome, bytes_up, bytes_down, duration, loss, {reason} FROM participation WHERE client = ?1 \
         ORDER BY round DESC LIMIT ?2"
    );
    let count =
        |row: &rusqlite::Row, column| row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0));
    let mut query = connection.prepare(&sql)?;
    let rows = query.query_map(params![id, to_sql(limit)], |row| {
        Ok(Past {
            round: count(row, 0)?,
            outcome: row.get(1)?,
            bytes_up: count(row, 2)?,
            bytes_down: count(row, 3)?,
            duration_s: row.get(4)?,
            loss: row.get(5)?,
            reason: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// The last round on record.
pub(super) fn last_round(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let last: Option<i64> = connection.query_row("SELECT max(round) FROM rounds", [], |row| row.get(0))?;
    Ok(last.and_then(|last| u64::try_from(last).ok()))
}

/// The sums over all clients that are not retired.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<Counts> {
    let sql = "SELECT count(*), total(merged), total(merged * merged) FROM clients WHERE retired_at IS NULL";
    connection.query_row(sql, [], |row| {
        let clients = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
        Ok(Counts { clients, sum: row.get(1)?, sum_of_squares: row.get(2)? })
    })
}

/// The utilities of the rounds before a round, in order; 0 for a round without losses.
pub(super) fn utilities(connection: &Connection, before: u64) -> rusqlite::Result<Vec<f64>> {
    let sql = "SELECT coalesce(utility, 0.0) FROM rounds WHERE round < ?1 ORDER BY round";
    let mut query = connection.prepare(sql)?;
    let found = query.query_map([to_sql(before)], |row| row.get(0))?;
    found.collect()
}
