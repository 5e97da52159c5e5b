//! The tables of a registry, as SQL, and the step from an older version.

use rusqlite::Connection;
use std::path::Path;

/// The tables of a new registry. docs/clients.md shows the same text.
pub const SCHEMA: &str = "\
CREATE TABLE clients (
  id TEXT NOT NULL PRIMARY KEY,        -- in Unicode NFC
  compute_capability REAL NOT NULL,    -- any unit, larger is faster
  data_size REAL NOT NULL,             -- examples
  connection_quality REAL NOT NULL,    -- from 0 to 1
  memory REAL,                         -- any unit
  bandwidth REAL,                      -- any unit
  epsilon REAL,                        -- the most epsilon that the client allows
  secure_aggregation INTEGER NOT NULL, -- 1: takes part under secure aggregation only
  min_secagg_threshold REAL,           -- the least threshold of secure aggregation
  tier TEXT,
  retired_at INTEGER,                  -- seconds since 1970; NULL for clients that may be selected
  registered_at INTEGER NOT NULL,      -- seconds since 1970
  last_update INTEGER,                 -- seconds since 1970
  last_round INTEGER NOT NULL,         -- the last round that selected it, else the last before it registered
  last_loss REAL,                      -- root of the mean squared loss over its examples
  loss_round INTEGER,                  -- the round of last_loss
  last_duration REAL,                  -- seconds from task to update
  selected INTEGER NOT NULL DEFAULT 0, -- rounds by their outcome, and bytes
  merged INTEGER NOT NULL DEFAULT 0,
  rejected INTEGER NOT NULL DEFAULT 0,
  late INTEGER NOT NULL DEFAULT 0,
  missing INTEGER NOT NULL DEFAULT 0,
  refused INTEGER NOT NULL DEFAULT 0,
  bytes_up INTEGER NOT NULL DEFAULT 0,
  bytes_down INTEGER NOT NULL DEFAULT 0,
  holds TEXT,                          -- digest of the model that the client holds
  public_key TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE rounds (
  round INTEGER NOT NULL PRIMARY KEY,
  recorded_at INTEGER NOT NULL,        -- seconds since 1970
  utility REAL                         -- mean of data_size * loss over merged clients
) STRICT;
CREATE TABLE participation (
  client TEXT NOT NULL,
  round INTEGER NOT NULL,
  outcome TEXT NOT NULL,               -- merged, rejected, late, missing or refused
  bytes_up INTEGER NOT NULL,
  bytes_down INTEGER NOT NULL,
  duration REAL,                       -- seconds from task to update
  loss REAL,
  reason TEXT,                         -- why it ended so; NULL for merged, and for rounds before version 2
  PRIMARY KEY (client, round)
) STRICT, WITHOUT ROWID;
";

/// The tables of agents, since version 3. docs/clients.md shows the same text.
pub const AGENTS: &str = "\
CREATE TABLE agents (
  name TEXT NOT NULL PRIMARY KEY,
  agent TEXT NOT NULL,                 -- what it is, as in `agents` of a plan: JSON
  expected_seconds REAL,               -- what an attempt should take
  succeeded INTEGER NOT NULL DEFAULT 0, -- attempts
  failed INTEGER NOT NULL DEFAULT 0,
  recent REAL,                         -- how well its last attempts went, from 0 to 1; NULL before the first
  added_at INTEGER NOT NULL,           -- seconds since 1970
  retired_at INTEGER,                  -- seconds since 1970; NULL for agents that plans may get
  retired_because TEXT                 -- the reason, if not an operator retired it
) STRICT, WITHOUT ROWID;
CREATE TABLE agent_runs (
  run TEXT NOT NULL,                   -- digest of the first line of the run's journal
  agent TEXT NOT NULL,
  attempts INTEGER NOT NULL,           -- attempts of the run that the counts of the agent have
  PRIMARY KEY (run, agent)
) STRICT, WITHOUT ROWID;
";

/// The version of [`SCHEMA`] and [`AGENTS`], in `PRAGMA user_version`.
pub const VERSION: i64 = 3;

/// The oldest version that this fedmill reads. The first change of such a registry brings it to [`VERSION`].
pub const OLDEST: i64 = 1;

/// The mark of a registry, in `PRAGMA application_id`: `fedm` in ASCII.
pub const APPLICATION: i64 = 0x6665_646d;

/// The step from version 1 to version 2.
const REASONS: &str = "ALTER TABLE participation ADD COLUMN reason TEXT";

/// Whether the registry says why a round ended as it did for a client: version 1 does not.
pub(super) fn has_reasons(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_table_info('participation') WHERE name = 'reason'";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|columns| columns > 0)
}

/// Brings an older registry to [`VERSION`], within a change to it.
pub(super) fn upgrade(change: &Connection, path: &Path) -> rusqlite::Result<()> {
    let found: i64 = change.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if !(OLDEST..VERSION).contains(&found) {
        return Ok(());
    }
    if found == OLDEST {
        change.execute_batch(REASONS)?;
    }
    change.execute_batch(AGENTS)?;
    change.pragma_update(None, "user_version", VERSION)?;
    tracing::warn!(
        "{}: the registry had version {found} and gets version {VERSION} with this change: an older fedmill does not \
         read it any more",
        path.display()
    );
    Ok(())
}
