//! A round of a run whose noise is correlated: paid for with the first one, and made once.
//!
//! ```text
//! who counts, on disk --> charge, on disk --> key of the run kept, its digest on disk --> noise --> output --> release
//! ```
//!
//! The key is that of all rounds. So a round may be made again for the same bytes as long as the run lasts, at no cost; and
//! with anything else it is refused, whatever became of it, for its noise would hide neither of two sums. Cut off before
//! the digest of the key is in the ledger, no noise was made of it, and it is drawn anew. Behind the last round
//! everything that noise could be made of again is wiped.

use crate::budget::account::Account;
use crate::budget::charge::{Answer, Grant, Request, rng};
use crate::budget::clients::Admission;
use crate::budget::directory::BudgetError;
use crate::io::secret;
use crate::privacy::key::Key;
use crate::privacy::ledger::plan::Correlated;
use crate::privacy::ledger::record::{Entry, Mechanism, RunKey};
use crate::privacy::ledger::replay::{Charged, Fate};
use crate::record::sha256::Sha256;
use thiserror::Error;

/// Why a round of a run is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum WrongRound {
    /// Its number was used.
    #[error(
        "round {round} was run with other updates, settings or another version: its noise would hide neither"
    )]
    Used {
        /// The round.
        round: u64,
    },
    /// A later one was run.
    #[error("round {round} was passed over: round {last} was run, and rounds come in order")]
    Passed {
        /// The round.
        round: u64,
        /// The last one that was run.
        last: u64,
    },
    /// A sum that was made elsewhere holds a client that does not count.
    #[error("client `{client}` is in a sum, and comes more often or sooner than the plan allows")]
    InSum {
        /// The client.
        client: String,
    },
    /// There is no such round.
    #[error("round {round} is none of the plan, which has rounds 1 to {rounds}")]
    Beyond {
        /// The round.
        round: u64,
        /// Rounds of the plan.
        rounds: u64,
    },
}

impl Account {
    /// As [`charge`](Self::charge), for a round of a run.
    pub(crate) fn charge_round(
        &mut self,
        correlated: &Correlated,
        request: &Request,
    ) -> Result<Answer, BudgetError> {
        let round = request.round.ok_or(BudgetError::NoRound)?;
        let used = self.state().rounds().find(|(used, _)| *used == round).map(|(_, charged)| charged.clone());
        let admission = match used.as_ref().filter(|_| self.is_over()) {
            // It may stand; nothing else is left of it.
            Some(_) => Admission::default(),
            None => self.books().admit(correlated, round, request.all_clients())?,
        };
        let mechanism = Mechanism {
            resumable: false,
            clients_sha256: Some(admission.sha256()),
            ..self.mechanism(request)?
        };
        if let Some(charged) = used {
            return self.round_again(&charged, request, mechanism, admission);
        }
        let (last, rounds) = (self.state().last_round(), self.plan().rounds);
        if !(1..=rounds).contains(&round) {
            return Ok(Answer::WrongRound(WrongRound::Beyond { round, rounds }));
        }
        if let Some(last) = last.filter(|last| round < *last) {
            return Ok(Answer::WrongRound(WrongRound::Passed { round, last }));
        }
        if let Some(client) = admission.left_out_of(&request.clients, &request.summed) {
            return Ok(Answer::WrongRound(WrongRound::InSum { client: client.clone() }));
        }
        self.check_rng(request)?;
        let event = self.plan().event_of_round(last.is_none())?;
        let (head, release_id) =
            match self.pay(request, &mechanism, event, |directory| admission.keep(directory, round))? {
                Ok(paid) => paid,
                Err(verdict) => return Ok(Answer::Refused(verdict)),
            };
        let key = self.run_key(request)?;
        let granted = self.granted(head, release_id, mechanism, key, false);
        Ok(Answer::Granted(Grant { counted: admission.counted, round: Some(round), ..granted }))
    }

    /// A round that was charged before, for the same bytes.
    fn round_again(
        &mut self,
        charged: &Charged,
        request: &Request,
        mechanism: Mechanism,
        admission: Admission,
    ) -> Result<Answer, BudgetError> {
        let round = request.round.unwrap_or(0);
        let known = charged.charge.mechanism.clone();
        let clients_sha256 = known
            .as_ref()
            .filter(|_| self.is_over())
            .map_or(mechanism.clients_sha256, |known| known.clients_sha256);
        let mechanism = Mechanism { clients_sha256, ..mechanism };
        // It may be published elsewhere this time.
        let same = known.map(|known| Mechanism { output: mechanism.output.clone(), ..known });
        let alike = same.as_ref() == Some(&mechanism)
            && charged.charge.rng == rng(request)
            && charged.tool_version == env!("CARGO_PKG_VERSION");
        if !alike {
            return Ok(Answer::WrongRound(WrongRound::Used { round }));
        }
        if let Some(standing) = self.standing(charged)? {
            return Ok(Answer::Existing(standing));
        }
        let key = self.run_key(request)?;
        let granted = self.granted(charged.head, charged.charge.release_id.clone(), mechanism, key, true);
        Ok(Answer::Granted(Grant { counted: admission.counted, round: Some(round), ..granted }))
    }

    /// All rounds have noise of one key, and so of one kind.
    fn check_rng(&self, request: &Request) -> Result<(), BudgetError> {
        let other = self.state().rounds().find(|(_, charged)| charged.charge.rng != rng(request));
        let why =
            |round: u64| format!("is of another kind than --test-seed, or its absence: as in round {round}");
        other.map_or(Ok(()), |(round, _)| {
            Err(BudgetError::RunKey { path: self.books.directory.run_key(), why: why(round) })
        })
    }

    /// The key of the run; drawn, kept and written down if there is none yet.
    fn run_key(&mut self, request: &Request) -> Result<Key, BudgetError> {
        let path = self.books.directory.run_key();
        let chosen = request.test_seed.map(Key::of_test_seed);
        let Some(expected) = self.state().run_key else {
            let key = chosen.map_or_else(Key::draw, Ok)?;
            secret::write(&path, key.bytes()).map_err(BudgetError::at(&path))?;
            self.append(Entry::Key(RunKey { key_sha256: digest(&key) }))?;
            return Ok(key);
        };
        let kept = match chosen {
            Some(chosen) => Some(chosen),
            None => self.key_in(&path)?,
        };
        let fault = |why: &str| BudgetError::RunKey { path: path.clone(), why: why.to_owned() };
        let key = kept.ok_or_else(|| fault("is missing: the run is over, and was wiped, or lost it"))?;
        if digest(&key) != expected {
            return Err(fault("is another key than that of the rounds before"));
        }
        Ok(key)
    }

    /// Whether the last round was released.
    fn is_over(&self) -> bool {
        let last = self.state().rounds().last();
        let is_last = |(round, charged): (u64, &Charged)| {
            round == self.plan().rounds && matches!(charged.fate, Fate::Released { .. })
        };
        self.plan().correlated.is_some() && last.is_some_and(is_last)
    }

    /// Wipes what noise could be made of again, once the last round was released.
    pub(crate) fn wipe_run_if_over(&self) -> Result<(), BudgetError> {
        if !self.is_over() {
            return Ok(());
        }
        let directory = &self.books.directory;
        for path in [directory.run_key(), directory.clients_key()] {
            secret::wipe(&path).map_err(BudgetError::at(&path))?;
        }
        directory.wipe_rows(|_| false)
    }
}

/// Tells keys apart, and nothing of any.
fn digest(key: &Key) -> Sha256 {
    Sha256::of([b"fedmill key of a run".as_slice(), key.bytes()].concat())
}
