//! The clients that count in each round of a series, as often as the plan allows.
//!
//! Each round has a list: hashes of the ids of the clients that count in it, sorted. The hashes are keyed, so that a
//! reader without the key cannot look up an id. A list is on disk before the charge that names its digest, and only
//! lists that charges name are used. A client that comes too often or too soon counts as zero. That depends on its
//! rounds alone, not on other clients.

use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::io::{cache, secret};
use crate::privacy::ledger::plan::Correlated;
use crate::privacy::ledger::replay::State;
use crate::record::sha256::Sha256;
use std::collections::HashMap;

/// Bytes of a hash.
const HASH_BYTES: usize = 16;
/// Bytes of the key that ids are hashed with.
const KEY_BYTES: usize = 32;

/// A client's id, hashed with the key of the directory.
type IdHash = [u8; HASH_BYTES];

/// Which clients count in a round.
#[derive(Default, Debug)]
pub(crate) struct Admission {
    /// Whether each client counts, in the order of the request.
    pub(crate) counted: Vec<bool>,
    list: Vec<u8>,
}

/// The rounds of a client so far: their number, and the last one.
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

    fn with(self, round: u64) -> Self {
        Self { count: self.count + 1, last: round }
    }
}

impl Admission {
    /// Admits clients to a round, given the rounds before it. A client that is named twice counts once.
    ///
    /// # Errors
    ///
    /// When the key or a list cannot be read, or a list is not the one that its charge names.
    pub(super) fn new<'a>(
        directory: &Directory,
        state: &State,
        correlated: &Correlated,
        round: u64,
        clients: impl Iterator<Item = &'a String>,
    ) -> Result<Self, BudgetError> {
        let path = directory.clients_key();
        let fault = |why: String| BudgetError::SeriesKey { path: path.clone(), why };
        let key = secret::read_key::<KEY_BYTES>(&path).map_err(|why| fault(why.to_string()))?;
        let key = key.ok_or_else(|| fault("is missing".to_owned()))?;
        let mut rounds_of_clients = earlier_rounds(directory, state, round)?;
        let mut admitted: Vec<IdHash> = Vec::new();
        let mut counted = Vec::new();
        for client in clients {
            let hash = hash(&key, client);
            let rounds = rounds_of_clients.entry(hash).or_default();
            let counts = rounds.admit(round, correlated);
            if counts {
                *rounds = rounds.with(round);
                admitted.push(hash);
            }
            counted.push(counts);
        }
        admitted.sort_unstable();
        Ok(Self { counted, list: admitted.concat() })
    }

    /// The digest of the list.
    pub(crate) fn sha256(&self) -> Sha256 {
        Sha256::of(&self.list)
    }

    /// The first client of an earlier sum that does not count. The ids of sums follow those of clients.
    pub(crate) fn left_out_of<'a>(&self, clients: &[String], summed: &'a [String]) -> Option<&'a String> {
        let counted = self.counted.iter().skip(clients.len());
        summed.iter().zip(counted).find(|(_, counts)| !**counts).map(|(client, _)| client)
    }

    /// Writes the list to disk.
    pub(crate) fn keep(&self, directory: &Directory, round: u64) -> Result<(), BudgetError> {
        let path = directory.clients(round);
        secret::write(&path, &self.list).map_err(BudgetError::at(&path))
    }
}

/// Draws the key that ids are hashed with, and writes it to disk.
pub(crate) fn draw_key(directory: &Directory) -> Result<(), BudgetError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    let path = directory.clients_key();
    secret::write_key(&path, &key).map_err(BudgetError::at(&path))
}

/// The rounds of each client before this round, from the lists on disk.
fn earlier_rounds(
    directory: &Directory,
    state: &State,
    before: u64,
) -> Result<HashMap<IdHash, Rounds>, BudgetError> {
    let mut rounds_of_clients: HashMap<IdHash, Rounds> = HashMap::new();
    for (round, charge) in state.rounds().filter(|(round, _)| *round < before) {
        let path = directory.clients(round);
        let list = cache::read(&path).map_err(BudgetError::at(&path))?.unwrap_or_default();
        let (found, mechanism) = (Sha256::of(&list), charge.charge.mechanism.as_ref());
        let expected = mechanism.and_then(|mechanism| mechanism.clients_sha256);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(BudgetError::Clients { path, found, expected });
        }
        for hash in list.chunks_exact(HASH_BYTES) {
            let hash = std::array::from_fn(|byte| hash[byte]);
            let rounds = rounds_of_clients.entry(hash).or_default();
            *rounds = rounds.with(round);
        }
    }
    Ok(rounds_of_clients)
}

fn hash(key: &[u8; KEY_BYTES], client: &str) -> IdHash {
    let whole = Sha256::of([key.as_slice(), client.as_bytes()].concat());
    std::array::from_fn(|byte| whole.bytes()[byte])
}
