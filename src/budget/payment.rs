//! Steps that every charge takes: settings, the charge on disk, the grant, an earlier output.

use crate::budget::account::Account;
use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::budget::request::{Answer, ExistingRelease, Grant, Request};
use crate::io::{publish, secret};
use crate::privacy::event::Event;
use crate::privacy::key::{KEY_BYTES, Key};
use crate::privacy::ledger::budget::{self, Verdict};
use crate::privacy::ledger::record::{Charge, LedgerEntry, Mechanism};
use crate::privacy::ledger::replay::{ChargeRecord, Fate};
use crate::record::Head;
use std::path::Path;
use zeroize::Zeroize;

/// A charge that is on disk.
pub(super) struct Payment {
    /// The record of the charge.
    pub(super) charge: Head,
    /// The name of the release.
    pub(super) release_id: String,
}

impl Payment {
    /// The payment of an earlier process.
    pub(super) fn of(charge: &ChargeRecord) -> Self {
        Self { charge: charge.head, release_id: charge.charge.release_id.clone() }
    }

    /// The grant of a request that this charge paid for.
    pub(super) fn grant(
        self,
        account: &Account,
        request: &Request,
        mechanism: Mechanism,
        key: Key,
        counted: Vec<bool>,
    ) -> Grant {
        Grant {
            charge: self.charge,
            release_id: self.release_id,
            mechanism,
            key,
            counted,
            round: request.round,
            plan_sha256: account.state().init.plan_sha256,
            is_test: request.test_seed.is_some(),
        }
    }
}

/// The settings of a release.
pub(super) fn mechanism(account: &Account, request: &Request) -> Result<Mechanism, BudgetError> {
    let terms = account.books().terms(request.dimension)?;
    Ok(Mechanism {
        z: account.plan().noise_multiplier,
        q: account.plan().sampling_rate,
        clip: terms.clip,
        n_pub: terms.denominator,
        d: request.dimension,
        level: terms.level,
        inputs_sha256: request.inputs_sha256,
        output: publish::resolved(&request.output).to_string_lossy().into_owned(),
        resumable: request.resumable,
        clients_sha256: None,
    })
}

/// The refusal of one more event, if the budget does not hold it.
pub(super) fn refusal(
    account: &Account,
    mechanism: &Mechanism,
    event: &Event,
) -> Result<Option<Answer>, BudgetError> {
    let noise = account.plan().noise_of(mechanism.level, mechanism.d);
    let verdict = budget::would(account.state(), event, Some(noise), None)?;
    Ok((!verdict.fits()).then_some(Answer::Refused(verdict)))
}

/// Writes a charge to the ledger, if the budget holds it. `prepare` writes what has to be on disk before the charge.
pub(super) fn pay(
    account: &mut Account,
    request: &Request,
    mechanism: &Mechanism,
    event: Event,
    prepare: impl FnOnce(&Directory) -> Result<(), BudgetError>,
) -> Result<Result<Payment, Verdict>, BudgetError> {
    let noise = account.plan().noise_of(mechanism.level, mechanism.d);
    let verdict = budget::would(account.state(), &event, Some(noise), None)?;
    let Some(epsilons) = verdict.epsilons() else { return Ok(Err(verdict)) };
    account.reserve_room()?;
    prepare(&account.books().directory)?;
    let charge = Charge {
        round: request.round,
        mechanism: Some(mechanism.clone()),
        rng: request.rng(),
        contradiction: account.plan().contradiction(request.counting),
        ..account.new_charge(event, epsilons)
    };
    let release_id = charge.release_id.clone();
    let charge = account.append(LedgerEntry::Charge(Box::new(charge)))?;
    Ok(Ok(Payment { charge, release_id }))
}

/// Whether a charge paid for this request: with these settings, by this version.
pub(super) fn is_for(charge: &ChargeRecord, request: &Request, mechanism: Option<&Mechanism>) -> bool {
    let found = charge.charge.mechanism.as_ref();
    found.is_some()
        && found == mechanism
        && charge.charge.rng == request.rng()
        && charge.tool_version == env!("CARGO_PKG_VERSION")
}

/// The output of a charge, if it exists as it was released. Records its release if that is missing.
pub(super) fn existing_release(
    account: &mut Account,
    charge: &ChargeRecord,
) -> Result<Option<ExistingRelease>, BudgetError> {
    let Some(output) = account.books().output_of(charge)? else { return Ok(None) };
    match &charge.fate {
        Fate::Open => drop(account.adopt_output(charge, &output)?),
        Fate::Released { output_sha256, .. } if output.sha256()? == *output_sha256 => {}
        _ => return Ok(None),
    }
    Ok(Some(ExistingRelease { path: output.path, release_id: charge.charge.release_id.clone() }))
}

/// Reads the key of a charge from its file; `None` if there is none.
pub(super) fn read_key(path: &Path) -> Result<Option<Key>, BudgetError> {
    Ok(secret::read_key::<KEY_BYTES>(path).map_err(BudgetError::at(path))?.map(kept))
}

/// The key of these bytes, which are wiped.
pub(super) fn kept(mut bytes: [u8; KEY_BYTES]) -> Key {
    let key = Key::kept(bytes);
    bytes.zeroize();
    key
}
