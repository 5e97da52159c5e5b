//! Who took part in which round of a run: so that no client counts more often, or sooner, than its plan says.
//!
//! A list is kept for each round, of hashes of the ids of clients that count in it, sorted. Hashes are keyed, so that
//! nobody without the key looks an id up. A list is on disk before the charge that names its digest; what counts is what
//! charges name. A client that comes too often or too soon counts as zero, which hangs on its own rounds alone.

use crate::budget::directory::{Books, BudgetError, Directory};
use crate::io::source::identity_of;
use crate::io::{cache, secret};
use crate::privacy::ledger::plan::Correlated;
use crate::record::sha256::Sha256;
use std::collections::HashMap;

/// Bytes of a hash.
const HASH: usize = 16;
/// Bytes of the key of hashes.
const KEY: usize = 32;

/// Who counts in a round.
#[derive(Default, Debug)]
pub(crate) struct Admission {
    /// Whether each of the clients does.
    pub(crate) counted: Vec<bool>,
    list: Vec<u8>,
}

/// A client's rounds so far: how many, and the last.
#[derive(Clone, Copy, Default)]
struct Rounds {
    count: u64,
    last: u64,
}

impl Rounds {
    fn admit(self, round: u64, correlated: &Correlated) -> bool {
        let is_far = self.count == 0 || round - self.last >= correlated.separation;
        is_far && self.count < correlated.participations
    }
}

impl Admission {
    /// Of its list.
    pub(crate) fn sha256(&self) -> Sha256 {
        Sha256::of(&self.list)
    }

    /// The first client of a sum that does not count; sums come behind clients.
    pub(crate) fn left_out_of<'a>(&self, clients: &[String], summed: &'a [String]) -> Option<&'a String> {
        let counted = self.counted.iter().skip(clients.len());
        summed.iter().zip(counted).find(|(_, counts)| !**counts).map(|(client, _)| client)
    }

    /// Brings its list to disk.
    pub(crate) fn keep(&self, directory: &Directory, round: u64) -> Result<(), BudgetError> {
        let path = directory.clients(round);
        secret::write(&path, &self.list).map_err(BudgetError::at(&path))
    }
}

/// Draws the key of hashes.
pub(crate) fn draw_key(directory: &Directory) -> Result<(), BudgetError> {
    let mut key = [0; KEY];
    getrandom::fill(&mut key)?;
    let path = directory.clients_key();
    secret::write(&path, &key).map_err(BudgetError::at(&path))
}

impl Books {
    /// Who of these clients counts in a round. One that is named twice counts once.
    pub(crate) fn admit<'a>(
        &self,
        correlated: &Correlated,
        round: u64,
        clients: impl Iterator<Item = &'a String>,
    ) -> Result<Admission, BudgetError> {
        let path = self.directory.clients_key();
        let key = secret::read::<KEY>(&path).map_err(BudgetError::at(&path))?;
        let key = key.ok_or_else(|| BudgetError::RunKey { path, why: "is missing".to_owned() })?;
        let mut known = self.rounds_of_clients(round)?;
        let mut admitted: Vec<[u8; HASH]> = Vec::new();
        let mut counted = Vec::new();
        for client in clients {
            let hash = hash(&key, client);
            let rounds = known.entry(hash).or_default();
            let counts = rounds.admit(round, correlated);
            if counts {
                *rounds = Rounds { count: rounds.count + 1, last: round };
                admitted.push(hash);
            }
            counted.push(counts);
        }
        admitted.sort_unstable();
        Ok(Admission { counted, list: admitted.concat() })
    }

    /// Whether each of these clients counts in a round, as far as is known here: where sums are made elsewhere nothing is.
    pub(crate) fn counted<'a>(
        &self,
        round: Option<u64>,
        clients: impl Iterator<Item = &'a String>,
    ) -> Result<Vec<bool>, BudgetError> {
        let correlated = self.state.plan().correlated;
        let is_known = identity_of(&self.directory.clients_key()).is_some();
        match correlated.filter(|_| is_known) {
            Some(correlated) => {
                Ok(self.admit(&correlated, round.ok_or(BudgetError::NoRound)?, clients)?.counted)
            }
            None => Ok(clients.map(|_| true).collect()),
        }
    }

    /// The rounds of all clients before this one.
    fn rounds_of_clients(&self, before: u64) -> Result<HashMap<[u8; HASH], Rounds>, BudgetError> {
        let mut known: HashMap<[u8; HASH], Rounds> = HashMap::new();
        for (round, charged) in self.state.rounds().filter(|(round, _)| *round < before) {
            let path = self.directory.clients(round);
            let list = cache::read(&path).map_err(BudgetError::at(&path))?.unwrap_or_default();
            let (found, how) = (Sha256::of(&list), charged.charge.mechanism.as_ref());
            if let Some(expected) = how.and_then(|how| how.clients_sha256).filter(|sha256| *sha256 != found) {
                return Err(BudgetError::Clients { path, found, expected });
            }
            for hash in list.chunks_exact(HASH) {
                let hash = std::array::from_fn(|byte| hash[byte]);
                let rounds = known.entry(hash).or_default();
                *rounds = Rounds { count: rounds.count + 1, last: round };
            }
        }
        Ok(known)
    }
}

fn hash(key: &[u8; KEY], client: &str) -> [u8; HASH] {
    let whole = Sha256::of([key.as_slice(), client.as_bytes()].concat());
    std::array::from_fn(|byte| whole.bytes()[byte])
}
