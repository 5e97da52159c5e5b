//! Charges a round of a series, whose noise is correlated.
//!
//! ```text
//! clients that count, on disk --> charge, on disk --> key kept, its digest on disk --> noise --> output --> release
//! ```
//!
//! The first round that is charged pays for all rounds, and each round is released once.
//!
//! All rounds share the key, and the draws of a round come from the key and the round's transcript
//! ([`State::transcripts`]). So a round can be made again with the same bytes, at no cost, until the series is over.
//! With other inputs it is refused, whether it was published or not: it would be another release, which the series did
//! not pay for. A restored copy of the directory does not know the round. There, other inputs have other draws: the
//! copy costs one more charge, and no draw is used twice. If a process is stopped before the digest of the key is in
//! the ledger, no noise was made from the key, and a new key is drawn. After the last round all keys and noise are
//! wiped.
//!
//! [`State::transcripts`]: crate::privacy::ledger::replay::State::transcripts

use crate::budget::account::Account;
use crate::budget::clients::Admission;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::budget::payment::{Ahead, Payment, existing_release, is_for, kept, mechanism, pay, refusal};
use crate::budget::request::{Answer, Request, WrongRound};
use crate::io::secret;
use crate::privacy::event::Event;
use crate::privacy::key::{KEY_BYTES, Key};
use crate::privacy::ledger::plan::Correlated;
use crate::privacy::ledger::record::{DrawsFrom, LedgerEntry, Mechanism, SeriesKey};
use crate::privacy::ledger::replay::{ChargeRecord, State};
use crate::record::sha256::Sha256;

/// As [`charge`](super::charge::charge), for a round of a series.
pub(super) fn charge_round(
    account: &mut Account,
    correlated: &Correlated,
    request: &Request,
) -> Result<Answer, BudgetError> {
    let Due { round, event, mechanism, admission, key } = match due(account, correlated, request)? {
        Ok(due) => due,
        Err(answer) => {
            if let Answer::Granted(grant) = &answer {
                KeptOutputs::restage(&account.books().directory, grant.charge.seq, &request.staged)?;
            }
            return Ok(answer);
        }
    };
    let keep = |ahead: &Ahead| admission.keep(ahead.directory, round);
    let payment = match pay(account, request, &mechanism, event, keep)? {
        Ok(payment) => payment,
        Err(verdict) => return Ok(Answer::Refused(verdict)),
    };
    let key = key.map_or_else(|| draw_key(account, request), Ok)?;
    Ok(Answer::Granted(payment.grant(account, request, mechanism, key, admission.counted)))
}

/// As [`foresee`](super::charge::foresee), for a round of a series.
pub(super) fn foresee(
    account: &mut Account,
    correlated: &Correlated,
    request: &Request,
) -> Result<Option<Answer>, BudgetError> {
    match due(account, correlated, request)? {
        Ok(due) => refusal(account, &due.mechanism, &due.event),
        Err(answer) => Ok(Some(answer)),
    }
}

/// A round that was not charged yet, and may be.
struct Due {
    round: u64,
    event: Event,
    mechanism: Mechanism,
    admission: Admission,
    /// The key of the series; `None` if no round drew it yet.
    key: Option<Key>,
}

/// What a round has to pay, or the answer to it if there is nothing to pay.
fn due(
    account: &mut Account,
    correlated: &Correlated,
    request: &Request,
) -> Result<Result<Due, Answer>, BudgetError> {
    let round = request.round.ok_or(BudgetError::NoRound)?;
    let used = account.state().rounds().find(|(used, _)| *used == round).map(|(_, charge)| charge.clone());
    let admission = match used.as_ref().filter(|_| account.state().series_is_over()) {
        // The lists are wiped; only an output that exists can still be found.
        Some(_) => Admission::default(),
        None => {
            let (directory, state) = (&account.books().directory, account.state());
            Admission::new(directory, state, correlated, round, request.all_clients())?
        }
    };
    let mechanism = Mechanism {
        resumable: false,
        clients_sha256: Some(admission.sha256()),
        ..mechanism(account, request)?
    };
    if let Some(charge) = used {
        if request.release_again {
            return Ok(Err(Answer::WrongRound(WrongRound::Again { round })));
        }
        return earlier_round(account, &charge, request, mechanism, admission).map(Err);
    }
    if let Some(why) = wrong_round(account.state(), round) {
        return Ok(Err(Answer::WrongRound(why)));
    }
    if let Some(client) = admission.left_out_of(&request.clients, &request.summed) {
        return Ok(Err(Answer::WrongRound(WrongRound::InSum { client: client.clone() })));
    }
    check_draws(account)?;
    check_rng(account, request)?;
    let event = account.plan().event_of_round(account.state().last_round().is_none())?;
    let key = series_key(account, request)?;
    Ok(Ok(Due { round, event, mechanism, admission, key }))
}

/// Why a round of a series cannot be charged, whatever its clients are.
pub(super) fn wrong_round(state: &State, round: u64) -> Option<WrongRound> {
    let rounds = state.plan().rounds;
    if state.rounds().any(|(used, _)| used == round) {
        return None;
    }
    if !(1..=rounds).contains(&round) {
        return Some(WrongRound::Beyond { round, rounds });
    }
    state.last_round().filter(|last| round < *last).map(|last| WrongRound::Passed { round, last })
}

/// The answer to a round that was charged before.
fn earlier_round(
    account: &mut Account,
    charge: &ChargeRecord,
    request: &Request,
    mechanism: Mechanism,
    admission: Admission,
) -> Result<Answer, BudgetError> {
    let found = charge.charge.mechanism.clone();
    let is_over = account.state().series_is_over();
    let clients_sha256 =
        found.as_ref().filter(|_| is_over).map_or(mechanism.clients_sha256, |found| found.clients_sha256);
    let mechanism = Mechanism { clients_sha256, ..mechanism };
    // The output may have another path this time.
    let expected = found.map(|found| Mechanism { output: found.output, ..mechanism.clone() });
    if !is_for(charge, request, expected.as_ref()) {
        let round = request.round.unwrap_or(0);
        return Ok(Answer::WrongRound(WrongRound::Used { round }));
    }
    if let Some(existing) = existing_release(account, charge, &request.output, true)? {
        return Ok(Answer::Existing(existing));
    }
    check_draws(account)?;
    let key = series_key(account, request)?.map_or_else(|| draw_key(account, request), Ok)?;
    let grant = Payment::of(charge).grant(account, request, mechanism, key, admission.counted);
    Ok(Answer::Granted(grant))
}

/// Refuses a series that an older version started: its draws do not depend on the inputs of a round.
fn check_draws(account: &Account) -> Result<(), BudgetError> {
    match &account.state().series_key {
        Some(key) if key.draws != DrawsFrom::Inputs => {
            Err(BudgetError::OldSeries { path: account.books().directory.ledger() })
        }
        _ => Ok(()),
    }
}

/// Checks that the key comes from the same source as in earlier rounds: they share it.
fn check_rng(account: &Account, request: &Request) -> Result<(), BudgetError> {
    let other = account.state().rounds().find(|(_, charge)| charge.charge.rng != request.rng());
    let why =
        |round: u64| format!("must be given in all rounds of a series or in none; round {round} differs");
    other.map_or(Ok(()), |(round, _)| Err(BudgetError::TestSeed { why: why(round) }))
}

/// Draws the key of the series, keeps it, and writes its digest to the ledger.
fn draw_key(account: &mut Account, request: &Request) -> Result<Key, BudgetError> {
    let path = account.books().directory.series_key();
    let key = request.test_seed.map(Key::of_test_seed).map_or_else(Key::draw, Ok)?;
    secret::write(&path, key.bytes()).map_err(BudgetError::at(&path))?;
    let record = SeriesKey { key_sha256: digest(&key), draws: DrawsFrom::Inputs };
    account.append(LedgerEntry::Key(record))?;
    Ok(key)
}

/// The key of the series, checked against its digest in the ledger; `None` if no round drew it yet.
fn series_key(account: &Account, request: &Request) -> Result<Option<Key>, BudgetError> {
    let path = account.books().directory.series_key();
    let Some(expected) = &account.state().series_key else { return Ok(None) };
    let key = match request.test_seed.map(Key::of_test_seed) {
        Some(key) => Some(key),
        // The ledger has its digest.
        None => secret::read::<KEY_BYTES>(&path).map_err(BudgetError::at(&path))?.map(kept),
    };
    let fault = |why: &str| BudgetError::SeriesKey { path: path.clone(), why: why.to_owned() };
    let key = key
        .ok_or_else(|| fault("the key of the series is missing: the series is over, or the file was lost"))?;
    if digest(&key) != expected.key_sha256 {
        if request.test_seed.is_some() {
            let why = "found another seed than in the earlier rounds of the series".to_owned();
            return Err(BudgetError::TestSeed { why });
        }
        return Err(fault("the key is not that of the earlier rounds"));
    }
    Ok(Some(key))
}

/// A digest that tells keys apart and does not reveal them. Ledgers hold it, so the text must not change.
fn digest(key: &Key) -> Sha256 {
    Sha256::of([b"fedmill key of a run".as_slice(), key.bytes()].concat())
}
