//! The registry: one SQLite file, `clients.db`, which any SQLite tool reads.
//!
//! [`agents`] has the agents of plans. The registry keeps a rollback journal beside the file, never a write-ahead log:
//! that fails on network disks. SQLite flushes the journal, the file and their folder itself. A change is in the file as
//! a whole or not at all.

pub mod agents;

use crate::fleet::client::{Client, PrivacyRequirements, Profile, Totals};
use crate::fleet::error::FleetError;
use crate::fleet::history::{self, Counts, Participation, Past, Recorded};
use crate::fleet::schema::{self, AGENTS, APPLICATION, OLDEST, SCHEMA, VERSION};
use crate::fleet::wait::{PATIENCE, patiently};
use crate::io::{crash, folder, publish, source};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The name of the registry in a state directory.
pub const FILE: &str = "clients.db";

/// The most memory for pages of the file, in KiB.
const CACHE_KIB: i64 = 256 << 10;

/// A registry that is open.
#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
    connection: Connection,
}

/// Which clients a list has.
#[derive(Clone, Default, Debug)]
pub struct Filter {
    /// Those of this tier; `None` for all.
    pub tier: Option<String>,
    /// Whether retired clients are among them.
    pub with_retired: bool,
    /// The most clients; `None` for all.
    pub limit: Option<u64>,
}

/// Whether there is a file of a registry. SQLite would wait for a pipe.
fn is_there(path: &Path) -> Result<bool, FleetError> {
    match source::check_regular(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(false),
        checked => checked.map(|()| true).map_err(FleetError::io(path)),
    }
}

impl Registry {
    /// Opens a registry, and makes it first if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or is no registry of this version.
    pub fn create(path: &Path) -> Result<Self, FleetError> {
        let directory = publish::directory_of(path);
        publish::make_directory(directory).map_err(FleetError::io(path))?;
        if !is_there(path)? {
            // SQLite would let everyone read which clients took part in which round.
            folder::append(path, 0, &[], true).map_err(FleetError::io(path))?;
        }
        let mut registry = Self::connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        if registry.is_empty()? {
            let made = registry.begin()?;
            for tables in [SCHEMA, AGENTS] {
                made.execute_batch(tables).map_err(FleetError::sql(path))?;
            }
            for (name, value) in [("application_id", APPLICATION), ("user_version", VERSION)] {
                made.pragma_update(None, name, value).map_err(FleetError::sql(path))?;
            }
            commit(made, path)?;
        }
        registry.checked()
    }

    /// Opens a registry that is there.
    ///
    /// # Errors
    ///
    /// When there is none, or it is no registry of this version.
    pub fn open(path: &Path) -> Result<Self, FleetError> {
        if !is_there(path)? {
            return Err(FleetError::Missing { path: path.to_owned() });
        }
        let registry = Self::connect(path, OpenFlags::empty())?;
        if registry.is_empty()? {
            return Err(FleetError::Missing { path: path.to_owned() });
        }
        registry.checked()
    }

    fn connect(path: &Path, more: OpenFlags) -> Result<Self, FleetError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(path, flags).map_err(FleetError::sql(path))?;
        connection.busy_timeout(PATIENCE).map_err(FleetError::sql(path))?;
        // EXTRA also flushes the folder, and fails where its file system flushes none.
        let synchronous = if publish::flushes_names(publish::directory_of(path)) { "EXTRA" } else { "FULL" };
        patiently(&connection, path, |connection| {
            connection.pragma_update(None, "synchronous", synchronous)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            // The first look at the file: a process that holds it shows here.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        })?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Whether the file has no tables: it is new, or the process that made it was killed.
    fn is_empty(&self) -> Result<bool, FleetError> {
        let tables: i64 = self.one("SELECT count(*) FROM sqlite_schema")?;
        Ok(tables == 0)
    }

    fn checked(self) -> Result<Self, FleetError> {
        let number = |name: &str| {
            self.connection
                .pragma_query_value(None, name, |row| row.get(0))
                .map_err(FleetError::sql(&self.path))
        };
        if number("application_id")? != APPLICATION {
            let why = "it is an SQLite file of another program".to_owned();
            return Err(FleetError::Foreign { path: self.path, why });
        }
        let found = number("user_version")?;
        if !(OLDEST..=VERSION).contains(&found) {
            return Err(FleetError::OtherVersion { path: self.path, found, known: VERSION });
        }
        Ok(self)
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, FleetError> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(FleetError::sql(&self.path))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The connection, to read.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A view of the registry that no other process changes while it is held.
    pub(super) fn view(&self) -> Result<Transaction<'_>, FleetError> {
        self.connection.unchecked_transaction().map_err(FleetError::sql(&self.path))
    }

    /// Begins a change; [`commit`] brings it to the file.
    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, FleetError> {
        let begun = patiently(&self.connection, &self.path, |connection| {
            Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        })?;
        schema::upgrade(&begun, &self.path).map_err(FleetError::sql(&self.path))?;
        Ok(begun)
    }

    /// Starts to register clients. They are in the file after [`Batch::commit`].
    ///
    /// # Errors
    ///
    /// When another process writes, or the file cannot be changed.
    pub fn batch(&mut self, now: Timestamp) -> Result<Batch<'_>, FleetError> {
        let path = self.path.clone();
        let transaction = self.begin()?;
        let last = transaction.query_row("SELECT coalesce(max(round), 0) FROM rounds", [], |row| row.get(0));
        let last_round = last.map_err(FleetError::sql(&path))?;
        Ok(Batch { transaction, path, now: now.as_second(), last_round })
    }

    /// The client with this id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn client(&self, id: &str) -> Result<Client, FleetError> {
        let sql = format!("SELECT {COLUMNS} FROM clients WHERE id = ?1");
        let found =
            self.connection.query_row(&sql, [id], client).optional().map_err(FleetError::sql(&self.path))?;
        found.ok_or_else(|| FleetError::Unknown { path: self.path.clone(), id: id.to_owned() })
    }

    /// Calls `each` with the clients of a list, in the order of their ids.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or `each` fails.
    pub fn list<E: From<FleetError>>(
        &self,
        filter: &Filter,
        mut each: impl FnMut(Client) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!(
            "SELECT {COLUMNS} FROM clients WHERE (?1 IS NULL OR tier = ?1) AND (?2 OR retired_at IS NULL) ORDER BY id \
             LIMIT ?3"
        );
        let limit = filter.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(-1));
        let sql_error = || FleetError::sql(&self.path);
        let mut query = self.connection.prepare(&sql).map_err(sql_error())?;
        let values = params![filter.tier, filter.with_retired, limit];
        for found in query.query_map(values, client).map_err(sql_error())? {
            each(found.map_err(sql_error())?)?;
        }
        Ok(())
    }

    /// The number of clients that may be selected.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn active(&self) -> Result<u64, FleetError> {
        self.one("SELECT count(*) FROM clients WHERE retired_at IS NULL").map(from_sql)
    }

    /// The clients that take part under secure aggregation only.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn demand_secure(&self) -> Result<BTreeSet<String>, FleetError> {
        let sql_error = || FleetError::sql(&self.path);
        let sql = "SELECT id FROM clients WHERE secure_aggregation != 0";
        let mut query = self.connection.prepare(sql).map_err(sql_error())?;
        let ids = query.query_map([], |row| row.get(0)).map_err(sql_error())?;
        ids.collect::<Result<_, _>>().map_err(sql_error())
    }

    /// Retires clients: no selection takes them. Their history stays. Changes nothing for those that are retired.
    ///
    /// # Errors
    ///
    /// When one of them is not registered: then none is retired.
    pub fn retire(&mut self, ids: &[String], now: Timestamp) -> Result<u64, FleetError> {
        let path = self.path.clone();
        for id in ids {
            self.client(id)?;
        }
        let change = self.begin()?;
        let mut retired = 0;
        for id in ids {
            let sql = "UPDATE clients SET retired_at = ?2 WHERE id = ?1 AND retired_at IS NULL";
            retired += change.execute(sql, params![id, now.as_second()]).map_err(FleetError::sql(&path))?;
        }
        commit(change, &path)?;
        Ok(retired as u64)
    }

    /// Retires the clients that were last seen before a time: the time of their last update, or of their registration
    /// if there is none. Returns their ids, in order.
    ///
    /// # Errors
    ///
    /// When the registry cannot be changed.
    pub fn expire(&mut self, before: Timestamp, now: Timestamp) -> Result<Vec<String>, FleetError> {
        let path = self.path.clone();
        let change = self.begin()?;
        let sql = "UPDATE clients SET retired_at = ?2 WHERE retired_at IS NULL AND \
                   coalesce(last_update, registered_at) < ?1 RETURNING id";
        let mut ids: Vec<String> = {
            let mut query = change.prepare(sql).map_err(FleetError::sql(&path))?;
            let ids = query.query_map(params![before.as_second(), now.as_second()], |row| row.get(0));
            ids.and_then(Iterator::collect).map_err(FleetError::sql(&path))?
        };
        commit(change, &path)?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// Records what clients did in a round, once: nothing changes if the round is on record.
    ///
    /// # Errors
    ///
    /// When the registry cannot be changed.
    pub fn record(
        &mut self,
        round: u64,
        did: &[Participation],
        at: Timestamp,
    ) -> Result<Recorded, FleetError> {
        let path = self.path.clone();
        let change = self.begin()?;
        let recorded = history::record(&change, round, did, at).map_err(FleetError::sql(&path))?;
        commit(change, &path)?;
        Ok(recorded)
    }

    /// What a client did in its last rounds, the last first.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn history(&self, id: &str, limit: u64) -> Result<Vec<Past>, FleetError> {
        history::of(&self.connection, id, limit).map_err(FleetError::sql(&self.path))
    }

    /// The last round on record; `None` for none.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn last_round(&self) -> Result<Option<u64>, FleetError> {
        history::last_round(&self.connection).map_err(FleetError::sql(&self.path))
    }

    /// The sums from which Jain's index of fair participation follows, over clients that are not retired.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn participation_counts(&self) -> Result<Counts, FleetError> {
        history::counts(&self.connection).map_err(FleetError::sql(&self.path))
    }

    /// The utilities of the rounds before a round, in order.
    pub(super) fn utilities(&self, before: u64) -> Result<Vec<f64>, FleetError> {
        history::utilities(&self.connection, before).map_err(FleetError::sql(&self.path))
    }

    /// Writes tiers of clients, by id. Returns how many changed.
    ///
    /// # Errors
    ///
    /// When the registry cannot be changed.
    pub fn set_tiers<'t>(
        &mut self,
        tiers: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Result<u64, FleetError> {
        let path = self.path.clone();
        let change = self.begin()?;
        let mut changed = 0;
        {
            let sql = "UPDATE clients SET tier = ?2 WHERE id = ?1 AND tier IS NOT ?2";
            let mut update = change.prepare(sql).map_err(FleetError::sql(&path))?;
            for (id, tier) in tiers {
                changed += update.execute([id, tier]).map_err(FleetError::sql(&path))?;
            }
        }
        commit(change, &path)?;
        Ok(changed as u64)
    }
}

/// Brings a change to the file. Tests end a run right before.
pub(super) fn commit(change: Transaction, path: &Path) -> Result<(), FleetError> {
    crash::before_step();
    // A reader keeps a change from the file. The change stays whole until then.
    patiently(&change, path, |change| change.execute_batch("COMMIT"))
}

/// Clients to register together.
#[derive(Debug)]
pub struct Batch<'r> {
    transaction: Transaction<'r>,
    path: PathBuf,
    now: i64,
    last_round: i64,
}

/// What became of a client to register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is new.
    Added,
    /// It has the new values.
    Updated,
    /// It was registered and stays as it was.
    Exists,
}

const INSERT: &str = "INSERT INTO clients (id, compute_capability, data_size, connection_quality, memory, bandwidth, \
                      epsilon, secure_aggregation, min_secagg_threshold, tier, public_key, last_update, \
                      retired_at, registered_at, last_round) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING";

/// A client that comes back is no longer retired, unless the new values say so. A tier and a time that the new values
/// lack stay.
const UPDATE: &str = "UPDATE clients SET compute_capability = ?2, data_size = ?3, connection_quality = ?4, memory = ?5, \
                      bandwidth = ?6, epsilon = ?7, secure_aggregation = ?8, min_secagg_threshold = ?9, \
                      tier = coalesce(?10, tier), public_key = ?11, last_update = coalesce(?12, last_update), \
                      retired_at = ?13 WHERE id = ?1";

impl Batch<'_> {
    /// Registers a client. With `update`, one that is registered gets the new values.
    ///
    /// # Errors
    ///
    /// When the registry cannot be changed.
    pub fn put(&self, profile: &Profile, update: bool) -> Result<Put, FleetError> {
        let Profile { id, compute_capability, data_size, connection_quality, .. } = profile;
        let PrivacyRequirements { epsilon, secure_aggregation, min_secagg_threshold } =
            profile.privacy_requirements;
        let values = params![
            id,
            compute_capability,
            data_size,
            connection_quality,
            profile.memory,
            profile.bandwidth,
            epsilon,
            secure_aggregation || profile.needs_secure_aggregation(),
            min_secagg_threshold,
            profile.tier,
            profile.public_key,
            profile.last_update,
            profile.retired_at,
            self.now,
            self.last_round
        ];
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            let changed = self.transaction.prepare_cached(sql).and_then(|mut sql| sql.execute(values));
            changed.map_err(FleetError::sql(&self.path))
        };
        if run(INSERT, values)? == 1 {
            return Ok(Put::Added);
        }
        if !update {
            return Ok(Put::Exists);
        }
        run(UPDATE, &values[..13])?;
        Ok(Put::Updated)
    }

    /// Brings the clients to the file.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails. Then none is registered.
    pub fn commit(self) -> Result<(), FleetError> {
        commit(self.transaction, &self.path)
    }
}

/// The columns of [`client`].
const COLUMNS: &str = "id, compute_capability, data_size, connection_quality, memory, bandwidth, epsilon, \
                       secure_aggregation, min_secagg_threshold, tier, retired_at, registered_at, last_update, \
                       last_round, last_loss, loss_round, last_duration, selected, merged, rejected, late, missing, \
                       refused, bytes_up, bytes_down, holds, public_key";

fn client(row: &Row) -> rusqlite::Result<Client> {
    let count = |column: &str| row.get(column).map(from_sql);
    Ok(Client {
        profile: Profile {
            id: row.get("id")?,
            compute_capability: row.get("compute_capability")?,
            data_size: row.get("data_size")?,
            connection_quality: row.get("connection_quality")?,
            memory: row.get("memory")?,
            bandwidth: row.get("bandwidth")?,
            privacy_requirements: PrivacyRequirements {
                epsilon: row.get("epsilon")?,
                secure_aggregation: row.get("secure_aggregation")?,
                min_secagg_threshold: row.get("min_secagg_threshold")?,
            },
            tier: row.get("tier")?,
            public_key: row.get("public_key")?,
            last_update: row.get("last_update")?,
            retired_at: row.get("retired_at")?,
        },
        registered_at: row.get("registered_at")?,
        history: Totals {
            last_round: count("last_round")?,
            selected: count("selected")?,
            merged: count("merged")?,
            rejected: count("rejected")?,
            late: count("late")?,
            missing: count("missing")?,
            refused: count("refused")?,
            bytes_up: count("bytes_up")?,
            bytes_down: count("bytes_down")?,
            last_loss: row.get("last_loss")?,
            loss_round: row.get::<_, Option<i64>>("loss_round")?.map(from_sql),
            last_duration: row.get("last_duration")?,
            holds: row.get("holds")?,
        },
    })
}

/// A count as SQLite keeps it. It keeps no unsigned numbers; fedmill writes none below zero.
fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
