//! The clients that may be selected, column by column, in the order of their ids.

use crate::fleet::client::may_sign;
use crate::fleet::error::FleetError;
use crate::fleet::registry::Registry;
use crate::fleet::select::constraints::Constraints;
use crate::fleet::select::ranking::largest;
use crate::io::interrupt;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use std::collections::BTreeMap;
use std::ops::Range;

/// A number that the registry has of each client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Column {
    /// Its speed.
    Compute,
    /// Its number of examples.
    DataSize,
    /// The quality of its connection, from 0 to 1.
    Quality,
    /// When its last update came, else when it registered, in seconds since 1970.
    Seen,
    /// Its last loss; NaN if there is none.
    Loss,
    /// The round of its last loss; NaN if there is none.
    LossRound,
    /// The seconds from its last task to its update; NaN if unknown.
    Duration,
    /// The number of rounds that selected it.
    Selected,
    /// The last round that selected it.
    LastRound,
}

impl Column {
    fn sql(self) -> &'static str {
        match self {
            Self::Compute => "compute_capability",
            Self::DataSize => "data_size",
            Self::Quality => "connection_quality",
            Self::Seen => "coalesce(last_update, registered_at)",
            Self::Loss => "last_loss",
            Self::LossRound => "loss_round",
            Self::Duration => "last_duration",
            Self::Selected => "selected",
            Self::LastRound => "last_round",
        }
    }
}

/// The clients that may be selected.
#[derive(Default, Debug)]
pub struct Pool {
    /// The numbers of clients that may not, by the first constraint that excludes them.
    pub excluded: BTreeMap<String, usize>,
    /// The utilities of the rounds on record, in order, for strategies that read them.
    pub utilities: Vec<f64>,
    ids: String,
    ends: Vec<usize>,
    open: Vec<usize>,
    columns: BTreeMap<Column, Numbers>,
}

/// The numbers of a column.
#[derive(Debug)]
struct Numbers {
    of_clients: Vec<f64>,
    /// The smallest and the largest over the registry: over all clients that are not retired.
    range: [f64; 2],
}

/// Clients between two looks for a signal.
const LISTEN_EVERY: usize = 1 << 14;

impl Pool {
    /// Reads these columns of the clients of a registry that meet the constraints.
    pub(super) fn read(
        registry: &Registry,
        constraints: &Constraints,
        columns: &[Column],
    ) -> Result<Self, FleetError> {
        let sql_error = || FleetError::sql(registry.path());
        let checks = Checks::of(constraints);
        let names: Vec<&str> = columns.iter().map(|column| column.sql()).collect();
        let sql = format!(
            "SELECT id, retired_at, {}{} FROM clients ORDER BY id",
            checks.sql(),
            names.iter().map(|name| format!(", {name}")).collect::<String>()
        );
        let mut pool = Self::default();
        let empty = || Numbers { of_clients: Vec::new(), range: [f64::INFINITY, f64::NEG_INFINITY] };
        let mut numbers: Vec<Numbers> = columns.iter().map(|_| empty()).collect();
        let mut query = registry.connection().prepare(&sql).map_err(sql_error())?;
        let mut rows = query.query([]).map_err(sql_error())?;
        let mut read = 0;
        while let Some(row) = rows.next().map_err(sql_error())? {
            if read % LISTEN_EVERY == 0 {
                interrupt::check()?;
            }
            read += 1;
            pool.take(row, &checks, &mut numbers).map_err(sql_error())?;
        }
        pool.open = (0..pool.ends.len()).collect();
        pool.columns = columns.iter().copied().zip(numbers).collect();
        Ok(pool)
    }

    fn take(&mut self, row: &Row, checks: &Checks, numbers: &mut [Numbers]) -> rusqlite::Result<()> {
        let why = checks.exclusion(row)?;
        if why == Some(RETIRED) {
            *self.excluded.entry(RETIRED.to_owned()).or_default() += 1;
            return Ok(());
        }
        for (place, numbers) in numbers.iter_mut().enumerate() {
            let number = match row.get_ref(FIRST_NUMBER + place)? {
                ValueRef::Integer(number) => number as f64,
                ValueRef::Real(number) => number,
                _ => f64::NAN,
            };
            // A NaN is neither.
            numbers.range = [numbers.range[0].min(number), numbers.range[1].max(number)];
            if why.is_none() {
                numbers.of_clients.push(number);
            }
        }
        match why {
            Some(why) => *self.excluded.entry(why.to_owned()).or_default() += 1,
            None => {
                self.ids.push_str(row.get_ref(0)?.as_str()?);
                self.ends.push(self.ids.len());
            }
        }
        Ok(())
    }

    /// The number of clients that may be selected.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no client may be selected.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The id of a client.
    pub fn id(&self, client: usize) -> &str {
        let start = client.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.ids[Range { start, end: self.ends[client] }]
    }

    /// The clients that a strategy may choose, in the order of their ids.
    pub fn open(&self) -> &[usize] {
        &self.open
    }

    /// A number of every client, by its place. The strategy must list the column.
    pub fn column(&self, column: Column) -> &[f64] {
        &self.columns[&column].of_clients
    }

    /// A number of every client after a rising function, scaled to [0, 1] over the registry. 1 for all clients if they
    /// are equal.
    pub fn scaled(&self, column: Column, rising: impl Fn(f64) -> f64) -> Vec<f64> {
        let Numbers { of_clients, range } = &self.columns[&column];
        let [least, most] = range.map(&rising);
        let scale =
            |number: &f64| if most > least { (rising(*number) - least) / (most - least) } else { 1.0 };
        of_clients.iter().map(scale).collect()
    }

    /// Takes the clients that waited for more than `most` rounds from the open ones, with their waits: the longest wait
    /// first, ties by id, and at most `count`.
    pub(super) fn take_waiting(&mut self, round: u64, most: u64, count: usize) -> Vec<(f64, usize)> {
        let last = &self.columns[&Column::LastRound].of_clients;
        let keys = self.open.iter().map(|client| (round as f64 - last[*client], *client));
        let waiting = largest(keys.filter(|(waited, _)| *waited > most as f64).collect(), count);
        let mut taken: Vec<usize> = waiting.iter().map(|(_, client)| *client).collect();
        taken.sort_unstable();
        self.open.retain(|client| taken.binary_search(client).is_err());
        waiting
    }
}

/// The reason that stands for clients that are retired.
pub const RETIRED: &str = "retirement";

/// The reason that stands for clients that cannot sign masked updates.
pub const NO_KEY: &str = "signing key";

/// The place of the first column of a strategy in the query.
const FIRST_NUMBER: usize = 7;

/// The constraints of a request on each client.
struct Checks<'c> {
    constraints: &'c Constraints,
    tiers: Vec<&'c str>,
}

impl<'c> Checks<'c> {
    fn of(constraints: &'c Constraints) -> Self {
        Self { constraints, tiers: constraints.tiers.iter().map(String::as_str).collect() }
    }

    /// The columns that the constraints need, `NULL` for those that they do not.
    fn sql(&self) -> String {
        let Constraints { epsilon, secure_aggregation, secure_threshold, signing_keys, .. } =
            self.constraints;
        let column = |is_needed: bool, name: &'static str| if is_needed { name } else { "NULL" };
        [
            column(!self.tiers.is_empty(), "tier"),
            column(epsilon.is_some(), "epsilon"),
            column(!secure_aggregation, "secure_aggregation"),
            column(secure_threshold.is_some(), "min_secagg_threshold"),
            column(*signing_keys, "public_key"),
        ]
        .join(", ")
    }

    /// The first constraint that excludes the client of a row.
    fn exclusion(&self, row: &Row) -> rusqlite::Result<Option<&'static str>> {
        if row.get_ref(1)? != ValueRef::Null {
            return Ok(Some(RETIRED));
        }
        let Constraints { epsilon, secure_aggregation, secure_threshold, .. } = *self.constraints;
        if !self.tiers.is_empty() {
            let is_ours = row.get_ref(2)?.as_str_or_null()?.is_some_and(|tier| self.tiers.contains(&tier));
            if !is_ours {
                return Ok(Some("tier"));
            }
        }
        if let (Some(spent), Some(cap)) = (epsilon, row.get_ref(3)?.as_f64_or_null()?)
            && cap < spent
        {
            return Ok(Some("epsilon"));
        }
        let demands = !secure_aggregation && row.get_ref(4)?.as_i64()? != 0;
        let demanded = row.get_ref(5)?.as_f64_or_null()?;
        let is_low =
            secure_threshold.is_some_and(|threshold| demanded.is_some_and(|least| least > threshold));
        if demands || is_low {
            return Ok(Some("secure aggregation"));
        }
        let can_sign = || -> rusqlite::Result<bool> {
            Ok(may_sign(row.get_ref(0)?.as_str()?, row.get_ref(6)?.as_str_or_null()?))
        };
        Ok((self.constraints.signing_keys && !can_sign()?).then_some(NO_KEY))
    }
}
