//! What a selection came to, with the reason for each choice.

use crate::fleet::error::FleetError;
use crate::fleet::registry::Registry;
use crate::fleet::select::pool::Pool;
use crate::fleet::select::strategy::Pick;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The clients of a round.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Selection {
    /// How they were selected, with all settings that were given.
    pub strategy: String,
    /// The number of the round.
    pub round: u64,
    /// The seed.
    pub seed: u64,
    /// The number of clients that the selection wanted.
    pub asked: usize,
    /// The number of clients that could be selected.
    pub eligible: usize,
    /// The numbers of clients that could not, by the first constraint that excluded them.
    pub excluded: BTreeMap<String, usize>,
    /// The probability with which each eligible client took part, independent of all others. The privacy plan may use
    /// it as its sampling rate. `None` for strategies that give no such promise.
    pub rate: Option<f64>,
    /// The selected clients, the first choice first.
    pub choices: Vec<Choice>,
}

/// A selected client.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Choice {
    /// Its id.
    pub id: String,
    /// Its tier.
    pub tier: Option<String>,
    /// The probability with which the strategy chooses it, where that is known.
    pub probability: Option<f64>,
    /// What the strategy ranks clients by.
    pub score: Option<f64>,
    /// Why it was chosen.
    pub why: String,
    /// The digest of the model that it holds.
    pub known_version: Option<String>,
}

/// The choices that picks stand for.
pub(super) fn choices(registry: &Registry, pool: &Pool, picks: Vec<Pick>) -> Result<Vec<Choice>, FleetError> {
    let sql_error = || FleetError::sql(registry.path());
    let sql = "SELECT tier, holds FROM clients WHERE id = ?1";
    let mut query = registry.connection().prepare(sql).map_err(sql_error())?;
    let mut choice = |pick: Pick| {
        let id = pool.id(pick.client).to_owned();
        let found = query.query_row([&id], |row| Ok((row.get(0)?, row.get(1)?)));
        let (tier, known_version) = found.map_err(sql_error())?;
        let Pick { probability, score, why, .. } = pick;
        Ok(Choice { id, tier, probability, score, why, known_version })
    };
    picks.into_iter().map(&mut choice).collect()
}
