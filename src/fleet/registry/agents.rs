//! Agents of plans in the registry: what they are, and what their attempts came to.
//!
//! The registry keeps what an agent is as JSON text. What it says is the concern of the room `plan`.

use crate::fleet::error::FleetError;
use crate::fleet::registry::{Registry, commit};
use crate::fleet::score::{is_weak, lower_bound, recent};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use std::collections::BTreeMap;

/// An agent in the registry.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct AgentRow {
    /// Its name.
    pub name: String,
    /// What it is: an agent of a plan.
    pub agent: serde_json::Value,
    /// Seconds that an attempt should take.
    pub expected_seconds: Option<f64>,
    /// Attempts that succeeded.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// How well its last attempts went, from 0 to 1.
    pub recent: Option<f64>,
    /// Its score, from 0 to 1.
    pub score: f64,
    /// When it was added, in seconds since 1970.
    pub added_at: i64,
    /// When it was retired, in seconds since 1970.
    pub retired_at: Option<i64>,
    /// Why it was retired, if not by an operator.
    pub retired_because: Option<String>,
}

/// An agent to add.
#[derive(Clone, PartialEq, Debug)]
pub struct NewAgent {
    /// Its name.
    pub name: String,
    /// What it is, as JSON.
    pub agent: String,
    /// Seconds that an attempt should take.
    pub expected_seconds: Option<f64>,
}

/// An attempt of an agent that came to an end.
#[derive(Clone, PartialEq, Debug)]
pub struct Work {
    /// The agent.
    pub agent: String,
    /// Whether the attempt succeeded.
    pub succeeded: bool,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What the attempts of a run changed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scored {
    /// Attempts that are new on record.
    pub attempts: u64,
    /// Agents that were retired, and why.
    pub retired: Vec<(String, String)>,
}

const COLUMNS: &str =
    "name, agent, expected_seconds, succeeded, failed, recent, added_at, retired_at, retired_because";

fn agent(row: &Row) -> rusqlite::Result<AgentRow> {
    let count = |column: &str| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
    let (succeeded, failed) = (count("succeeded")?, count("failed")?);
    let text: String = row.get("agent")?;
    Ok(AgentRow {
        name: row.get("name")?,
        agent: serde_json::from_str(&text).unwrap_or_default(),
        expected_seconds: row.get("expected_seconds")?,
        succeeded,
        failed,
        recent: row.get("recent")?,
        score: lower_bound(succeeded, failed),
        added_at: row.get("added_at")?,
        retired_at: row.get("retired_at")?,
        retired_because: row.get("retired_because")?,
    })
}

/// Whether the registry has agents: versions 1 and 2 have none.
fn has_agents(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'agents'";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|tables| tables > 0)
}

impl Registry {
    /// The agents, by name.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn agents(&self, with_retired: bool) -> Result<Vec<AgentRow>, FleetError> {
        let sql = format!("SELECT {COLUMNS} FROM agents WHERE ?1 OR retired_at IS NULL ORDER BY name");
        let read = || {
            if !has_agents(self.connection())? {
                return Ok(Vec::new());
            }
            let mut query = self.connection().prepare(&sql)?;
            query.query_map([with_retired], agent)?.collect()
        };
        read().map_err(FleetError::sql(self.path()))
    }

    /// The agent with this name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn agent(&self, name: &str) -> Result<AgentRow, FleetError> {
        let sql = format!("SELECT {COLUMNS} FROM agents WHERE name = ?1");
        let read = || match has_agents(self.connection())? {
            true => self.connection().query_row(&sql, [name], agent).optional(),
            false => Ok(None),
        };
        let found = read().map_err(FleetError::sql(self.path()))?;
        found.ok_or_else(|| FleetError::UnknownAgent { path: self.path().to_owned(), name: name.to_owned() })
    }

    /// Adds agents. With `update`, those that are there get the new description: they keep their counts, and retired
    /// ones come back.
    ///
    /// # Errors
    ///
    /// When one is there already: then none is added.
    pub fn add_agents(
        &mut self,
        agents: &[NewAgent],
        update: bool,
        now: Timestamp,
    ) -> Result<(), FleetError> {
        let path = self.path().to_owned();
        let change = self.begin()?;
        for NewAgent { name, agent, expected_seconds } in agents {
            let sql = "INSERT INTO agents (name, agent, expected_seconds, added_at) VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT (name) DO UPDATE SET agent = ?2, retired_at = NULL, retired_because = NULL, \
                       expected_seconds = coalesce(?3, expected_seconds) WHERE ?5";
            let values = params![name, agent, expected_seconds, now.as_second(), update];
            if change.execute(sql, values).map_err(FleetError::sql(&path))? == 0 {
                return Err(FleetError::AgentExists { path, name: name.clone() });
            }
        }
        commit(change, &path)
    }

    /// Retires agents: no plan gets them any more. Their counts stay. Returns how many were not retired before.
    ///
    /// # Errors
    ///
    /// When one of them is not there: then none is retired.
    pub fn retire_agents(&mut self, names: &[String], now: Timestamp) -> Result<u64, FleetError> {
        let path = self.path().to_owned();
        for name in names {
            self.agent(name)?;
        }
        let change = self.begin()?;
        let mut retired = 0;
        for name in names {
            let sql = "UPDATE agents SET retired_at = ?2 WHERE name = ?1 AND retired_at IS NULL";
            retired += change.execute(sql, params![name, now.as_second()]).map_err(FleetError::sql(&path))?;
        }
        commit(change, &path)?;
        Ok(retired as u64)
    }

    /// Records the attempts of a run so far, in order. Each counts once, however often this is called with them: `run`
    /// names the run. Agents that are too weak after that are retired.
    ///
    /// # Errors
    ///
    /// When the registry cannot be changed.
    pub fn record_work(&mut self, run: &str, work: &[Work], now: Timestamp) -> Result<Scored, FleetError> {
        let path = self.path().to_owned();
        let mut by_agent: BTreeMap<&str, Vec<&Work>> = BTreeMap::new();
        work.iter().for_each(|work| by_agent.entry(&work.agent).or_default().push(work));
        let change = self.begin()?;
        let scored = by_agent.iter().try_fold(Scored::default(), |scored, (name, work)| {
            record(&change, scored, (run, name), work, now)
        });
        let scored = scored.map_err(FleetError::sql(&path))?;
        commit(change, &path)?;
        Ok(scored)
    }
}

/// Records the attempts of an agent in a run.
fn record(
    change: &Connection,
    mut scored: Scored,
    (run, name): (&str, &str),
    work: &[&Work],
    now: Timestamp,
) -> rusqlite::Result<Scored> {
    let sql = format!("SELECT {COLUMNS} FROM agents WHERE name = ?1");
    let Some(mut row) = change.query_row(&sql, [name], agent).optional()? else { return Ok(scored) };
    let sql = "SELECT attempts FROM agent_runs WHERE run = ?1 AND agent = ?2";
    let known: i64 = change.query_row(sql, [run, name], |row| row.get(0)).optional()?.unwrap_or(0);
    let new = work.iter().skip(usize::try_from(known).unwrap_or(0));
    for work in new {
        scored.attempts += 1;
        row.succeeded += u64::from(work.succeeded);
        row.failed += u64::from(!work.succeeded);
        row.recent = Some(recent(row.recent, work.succeeded, work.seconds, row.expected_seconds));
    }
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let sql = "UPDATE agents SET succeeded = ?2, failed = ?3, recent = ?4 WHERE name = ?1";
    change.execute(sql, params![name, count(row.succeeded), count(row.failed), row.recent])?;
    let sql =
        "INSERT INTO agent_runs VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET attempts = max(attempts, ?3)";
    change.execute(sql, params![run, name, work.len() as i64])?;
    if let Some(why) = is_weak(row.succeeded, row.failed).filter(|_| row.retired_at.is_none()) {
        let sql = "UPDATE agents SET retired_at = ?2, retired_because = ?3 WHERE name = ?1";
        change.execute(sql, params![name, now.as_second(), why])?;
        scored.retired.push((name.to_owned(), why));
    }
    Ok(scored)
}
