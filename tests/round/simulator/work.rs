//! The work of other rooms, in memory: a merged model is the digest of all that went into it.

use super::World;
use super::disk::Disk;
use fedmill::fleet::history::Participation;
use fedmill::fleet::select::{Choice, Selection};
use fedmill::io::digest::{Blake3, hex};
use fedmill::lint::tier_codecs::TierTask;
use fedmill::modes::secure::standing::Standing;
use fedmill::round::error::RoundError;
use fedmill::round::journal::{Rejected, Settings};
use fedmill::round::moment::Moment;
use fedmill::round::world::{
    BudgetFacts, Examined, Fingerprint, MaskedFile, Means, MergeOrder, Merged, MergedClient, SessionOrder,
    Sessions, Work,
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn fingerprint(bytes: &[u8]) -> Fingerprint {
    // A quarter of the digest tells all files of a simulation apart, and journals are read many times.
    Fingerprint { blake3: hex(&Blake3::of_bytes(bytes)[..8]), bytes: bytes.len() as u64 }
}

fn io(why: std::io::Error) -> RoundError {
    RoundError::Write { path: "simulated".to_owned(), source: why }
}

impl World {
    fn bytes(&self, path: &str) -> Vec<u8> {
        self.disk.files.get(path).unwrap_or_else(|| panic!("{path} is gone")).clone()
    }

    fn put(&mut self, path: String, bytes: Vec<u8>) -> Result<(), RoundError> {
        self.disk.change(|disk: &mut Disk| disk.put(&path, bytes), |_| {}).map_err(io)
    }

    /// The state of the strategy that belongs to a base, as a merge finds it: the state, or the one before it.
    fn state_of(&self, base: &str, round: u64) -> Vec<u8> {
        let path = format!("rounds/{round:06}/state.safetensors");
        let belongs = |path: &String| {
            let bytes = self.disk.files.get(path)?;
            bytes.ends_with(base.as_bytes()).then(|| bytes.clone())
        };
        let found = belongs(&path).or_else(|| belongs(&format!("{path}.previous")));
        found.unwrap_or_else(|| panic!("round {round}: no state belongs to the base {base}"))
    }
}

impl Work for World {
    fn select(&mut self, round: u64, _: &Settings, _: &Moment) -> Result<Selection, RoundError> {
        let choice = |id: &String| Choice {
            id: id.clone(),
            tier: None,
            probability: None,
            score: None,
            why: "the script says so".to_owned(),
            known_version: None,
        };
        let ids = self.script.selected(round);
        Ok(Selection {
            strategy: "script".to_owned(),
            round,
            seed: 0,
            asked: ids.len(),
            eligible: ids.len(),
            excluded: BTreeMap::new(),
            rate: None,
            choices: ids.iter().map(choice).collect(),
        })
    }

    fn tiers(&mut self, _: &str) -> Result<BTreeMap<String, TierTask>, RoundError> {
        Ok(BTreeMap::new())
    }

    fn population(&mut self) -> Result<u64, RoundError> {
        Ok(100)
    }

    fn recorded_round(&mut self) -> Result<Option<u64>, RoundError> {
        Ok(self.recorded.keys().last().copied())
    }

    fn record(&mut self, round: u64, clients: &[Participation], _: &Moment) -> Result<(), RoundError> {
        if let Some(before) = self.recorded.get(&round) {
            assert_eq!(*before, clients.len(), "the same clients");
            return Ok(());
        }
        let count = clients.len();
        // The registry commits a round as a whole.
        let mut committed = false;
        let done = self.disk.change(|_| committed = true, |_| {});
        if committed {
            self.recorded.insert(round, count);
        }
        done.map_err(io)
    }

    fn fairness(&mut self) -> Result<Option<f64>, RoundError> {
        Ok(None)
    }

    fn examine(&mut self, order: &MergeOrder) -> Result<Examined, RoundError> {
        let is_bad = |path: &str| self.bytes(path).starts_with(b"bad");
        let bad = order.updates.iter().filter(|update| is_bad(&update.path));
        let rejected = bad
            .map(|update| Rejected {
                id: update.id.clone(),
                path: update.path.clone(),
                why: "bad layout".to_owned(),
                ..Rejected::default()
            })
            .collect();
        Ok(Examined { rejected, ..Examined::default() })
    }

    fn merge(&mut self, order: &MergeOrder) -> Result<Merged, RoundError> {
        let base = self.bytes(&order.base);
        let base_digest = fingerprint(&base).blake3;
        let mut all = base.clone();
        for update in &order.updates {
            let bytes = self.bytes(&update.path);
            assert_eq!(fingerprint(&bytes), update.file, "the update that was collected");
            assert!(!bytes.starts_with(b"bad"), "a bad update is merged");
            all.extend(bytes);
        }
        let takes_state = !self.script.takes_stale;
        let state = match (takes_state, &order.state) {
            (false, _) | (true, None) => Vec::new(),
            (true, Some(_)) => self.state_of(&base_digest, order.round),
        };
        all.extend(&state);
        let model = format!("model {}", fingerprint(&all).blake3).into_bytes();
        let file = fingerprint(&model);
        if takes_state {
            let path = format!("rounds/{:06}/state.safetensors", order.round);
            if let Some(before) = self.disk.files.get(&path).cloned()
                && before.ends_with(base_digest.as_bytes())
            {
                self.put(format!("{path}.previous"), before)?;
            }
            let next = [fingerprint(&state).blake3.as_bytes(), b" of ", file.blake3.as_bytes()].concat();
            self.put(path, next)?;
        }
        self.put(format!("rounds/{:06}/model.safetensors", order.round), model)?;
        let row = |id: &String| MergedClient {
            id: id.clone(),
            weight: Some(1.0),
            norm: Some(1.0),
            kept: true,
            reason: String::new(),
        };
        let clients = order.updates.iter().map(|update| row(&update.id)).collect();
        Ok(Merged { model: file, has_state: takes_state, clients, ..Merged::default() })
    }

    fn state_fault(&mut self, path: &str) -> Option<String> {
        (!self.disk.files.contains_key(path)).then(|| "no file".to_owned())
    }

    fn evaluate(&mut self, _: u64, model: &str) -> Result<BTreeMap<String, f64>, RoundError> {
        let digest = Blake3::of_bytes(&self.bytes(model));
        Ok(BTreeMap::from([
            ("accuracy".to_owned(), f64::from(digest[0]) / 255.0),
            ("loss".to_owned(), 0.1 + f64::from(digest[1])),
        ]))
    }

    fn patch(&mut self, _: &str, _: &str, _: &str) -> Result<Option<Fingerprint>, RoundError> {
        Ok(None)
    }

    fn prepare(&mut self, _: u64) -> Result<(), RoundError> {
        Ok(())
    }

    fn releases(&mut self) -> Result<Option<u64>, RoundError> {
        Ok(None)
    }

    fn budget(&mut self) -> Result<Option<BudgetFacts>, RoundError> {
        Ok(None)
    }
}

/// No round of the script is secure.
impl Sessions for World {
    fn demand_secure(&self) -> Result<BTreeSet<String>, RoundError> {
        Ok(BTreeSet::new())
    }

    fn open_session(&mut self, _: &SessionOrder) -> Result<String, RoundError> {
        unreachable!()
    }

    fn session(&self, _: u64) -> Result<Option<String>, RoundError> {
        unreachable!()
    }

    fn masked(&self, _: u64) -> Result<Vec<MaskedFile>, RoundError> {
        unreachable!()
    }

    fn standing(&self, _: u64, _: &BTreeSet<String>) -> Result<Standing, RoundError> {
        unreachable!()
    }

    fn freeze(&mut self, _: u64, _: &BTreeSet<String>) -> Result<(), RoundError> {
        unreachable!()
    }

    fn unmask(&mut self, _: u64) -> Result<Means, RoundError> {
        unreachable!()
    }
}
