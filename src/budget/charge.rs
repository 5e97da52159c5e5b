//! Charges and releases an output.
//!
//! The key is on disk before the charge, and the charge is on disk before any noise is made from the key. The release
//! is recorded once the output is published, and then the key is wiped.
//!
//! A release that is stopped in between stays charged. A process that starts it again goes on with the charge: the key
//! makes the same bytes again, for the same inputs and settings only. An output that exists already is not made again.
//! If the key was lost, the process draws new noise and pays again.

use crate::budget::account::Account;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::budget::payment::{
    KeptKey, Payment, existing_release, is_for, mechanism, paid_before, pay, refusal,
};
use crate::budget::request::{Answer, Grant, Request, WrongRound};
use crate::budget::series;
use crate::budget::stamp::StampedModel;
use crate::io::publish;
use crate::privacy::key::Key;
use crate::privacy::ledger::record::{Adopt, LedgerEntry, Mechanism, Release};
use crate::privacy::ledger::replay::{ChargeRecord, Fate};
use crate::record::Head;
use crate::record::sha256::Sha256;
use std::path::Path;

/// Charges a release whose key is on disk. Charges nothing if the output exists already, or
/// the budget does not hold the release.
///
/// # Errors
///
/// When a file cannot be written. The release may be charged all the same.
pub fn charge(account: &mut Account, request: &Request) -> Result<Answer, BudgetError> {
    if let Some(correlated) = account.plan().correlated {
        return series::charge_round(account, &correlated, request);
    }
    let mechanism = mechanism(account, request)?;
    if let Some(answer) = earlier(account, request, &mechanism)? {
        if let Answer::Granted(grant) = &answer {
            KeptOutputs::restage(&account.books().directory, grant.charge.seq, &request.staged)?;
        }
        return Ok(answer);
    }
    let event = account.plan().event()?;
    let key = request.test_seed.map_or_else(Key::draw, |seed| Ok(Key::of_test_seed(seed)))?;
    let kept = KeptKey::new(request, &mechanism);
    // Without a charge on disk, no noise is made from the key.
    let payment = match pay(account, request, &mechanism, event, |path| kept.write(&path.key, &key))? {
        Ok(payment) => payment,
        Err(verdict) => return Ok(Answer::Refused(verdict)),
    };
    let counted = vec![true; request.clients.len()];
    Ok(Answer::Granted(payment.grant(account, request, mechanism, key, counted)))
}

/// The answer to a request as it stands, if that is no grant: an output that exists, or a refusal. Charges nothing, so
/// that a run finds out before its work.
///
/// # Errors
///
/// When a file cannot be read.
pub fn foresee(account: &mut Account, request: &Request) -> Result<Option<Answer>, BudgetError> {
    let answer = match account.plan().correlated {
        Some(correlated) => series::foresee(account, &correlated, request)?,
        None => {
            let mechanism = mechanism(account, request)?;
            match earlier(account, request, &mechanism)? {
                None => match paid_before(account, request)? {
                    Some(paid) => Some(Answer::PaidBefore(paid)),
                    None => refusal(account, &mechanism, &account.plan().event()?)?,
                },
                answer => answer,
            }
        }
    };
    let own = match &answer {
        Some(Answer::Granted(grant)) => Some(grant.charge.seq),
        _ => None,
    };
    account.books().check_recorded((&request.output, request.state.as_deref()), own)?;
    Ok(answer.filter(|answer| !matches!(answer, Answer::Granted(_))))
}

/// Why a round cannot be charged, whatever its clients are; `None` if it may be.
pub fn wrong_round(account: &Account, round: Option<u64>) -> Option<WrongRound> {
    account.plan().correlated.and(round).and_then(|round| series::wrong_round(account.state(), round))
}

/// The answer to a release that was charged before: the output if it exists, or a grant if the key is kept. A charge
/// that is open may have had another output path: its directory may have been renamed.
fn earlier(
    account: &mut Account,
    request: &Request,
    mechanism: &Mechanism,
) -> Result<Option<Answer>, BudgetError> {
    let is_same = |charge: &&ChargeRecord| {
        let found = charge.charge.mechanism.as_ref();
        let expected = found.map(|found| Mechanism {
            resumable: found.resumable,
            output: found.output.clone(),
            ..mechanism.clone()
        });
        charge.charge.round == request.round && is_for(charge, request, expected.as_ref())
    };
    let charges: Vec<ChargeRecord> = account.state().charges.iter().filter(is_same).cloned().collect();
    for charge in charges.iter().rev() {
        let is_open = charge.fate == Fate::Open;
        // Without --round this may be another round. Equal bytes would reveal that its inputs are the same.
        let elsewhere = is_open || request.round.is_some();
        // A test seed may be another one this time.
        if request.test_seed.is_none()
            && (is_open || !request.release_again)
            && let Some(existing) = existing_release(account, charge, &request.output, elsewhere)?
        {
            return Ok(Some(Answer::Existing(existing)));
        }
        let path = account.books().directory.key(charge.head.seq);
        if is_open && let Some(key) = KeptKey::new(request, mechanism).read(&path)? {
            let counted = vec![true; request.clients.len()];
            let grant = Payment::of(charge).grant(account, request, mechanism.clone(), key, counted);
            return Ok(Some(Answer::Granted(grant)));
        }
    }
    Ok(None)
}

/// The open charge that paid for a request, and its outputs that wait for their names; `None` if there are none.
///
/// # Errors
///
/// When a file cannot be read.
pub fn kept(
    account: &Account,
    request: &Request,
) -> Result<Option<(ChargeRecord, KeptOutputs)>, BudgetError> {
    if request.test_seed.is_some() {
        return Ok(None);
    }
    let wanted = mechanism(account, request)?;
    let directory = &account.books().directory;
    for charge in account.state().charges.iter().rev().filter(|charge| charge.fate == Fate::Open) {
        let found = charge.charge.mechanism.as_ref();
        let expected = found.map(|found| Mechanism {
            resumable: found.resumable,
            clients_sha256: found.clients_sha256,
            ..wanted.clone()
        });
        let is_same = charge.charge.round == request.round && is_for(charge, request, expected.as_ref());
        if let Some(kept) =
            is_same.then(|| KeptOutputs::read(directory, charge.head.seq)).transpose()?.flatten()
            && is_usable(charge, &kept, &directory.outputs(charge.head.seq))
        {
            return Ok(Some((charge.clone(), kept)));
        }
    }
    Ok(None)
}

/// Whether the outputs of a charge are complete and as they were made. Otherwise the run makes them again.
fn is_usable(charge: &ChargeRecord, kept: &KeptOutputs, record: &Path) -> bool {
    let changed = if kept.was_damaged { Some(record) } else { None };
    let changed = changed.or_else(|| kept.is_complete().then(|| kept.changed()).flatten());
    if let Some(changed) = changed {
        tracing::warn!(
            "{}: was damaged since the run that wrote it: this run makes the outputs of charge {} again",
            changed.display(),
            charge.head.seq
        );
    }
    changed.is_none() && kept.is_complete()
}

/// Records that the output of a grant was published with its stamp, and wipes the key.
///
/// # Errors
///
/// When the output cannot be read or has another stamp, or the record cannot be written. The charge stands, and
/// `privacy recover` explains it.
pub fn release(
    account: &mut Account,
    grant: Grant,
    output: &Path,
    next_clip: Option<f64>,
) -> Result<Head, BudgetError> {
    let published = StampedModel::published(output)?;
    let stamp = Some(grant.stamp(next_clip));
    let published = published.filter(|model| model.stamp == stamp).ok_or_else(|| BudgetError::NotOpen {
        seq: grant.charge.seq,
        why: format!("found no model at {} that names it", output.display()),
    })?;
    let output_sha256 = published.sha256()?;
    if let Some(head) = released_before(account, &grant, output_sha256)? {
        return Ok(head);
    }
    let release =
        Release { charge: grant.charge.seq, release_id: grant.release_id.clone(), output_sha256, next_clip };
    let head = account.append(entry_of(account, &grant, release, output))?;
    account.books.directory.settle(grant.charge.seq)?;
    account.books.wipe_series_if_over()?;
    Ok(head)
}

/// The record of a release. It names the path if an earlier run charged the release for another one.
fn entry_of(account: &Account, grant: &Grant, release: Release, output: &Path) -> LedgerEntry {
    let charge = account.state().charges.iter().find(|charge| charge.head == grant.charge);
    let charged = charge.and_then(|charge| charge.charge.mechanism.as_ref());
    if charged.is_none_or(|charged| charged.output == grant.mechanism.output) {
        return LedgerEntry::Release(release);
    }
    let output = publish::resolved(output).to_string_lossy().into_owned();
    LedgerEntry::Adopt(Adopt { release, output })
}

/// The end of the ledger if the release of this charge is recorded: a round of a series that was made again.
fn released_before(account: &Account, grant: &Grant, found: Sha256) -> Result<Option<Head>, BudgetError> {
    let charge = account.state().charges.iter().find(|charge| charge.head == grant.charge);
    let Some(Fate::Released { output_sha256, .. }) = charge.map(|charge| &charge.fate) else {
        return Ok(None);
    };
    if found == *output_sha256 {
        return Ok(Some(account.state().head));
    }
    let why = format!("was released before with digest {output_sha256}; this run made {found}");
    Err(BudgetError::NotOpen { seq: grant.charge.seq, why })
}
