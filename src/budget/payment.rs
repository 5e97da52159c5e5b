//! Steps that every charge takes: settings, the charge on disk, the grant, an earlier output.

use crate::budget::account::Account;
use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::budget::request::{Answer, ExistingRelease, Grant, PaidBefore, Request};
use crate::budget::stamp::StampedModel;
use crate::io::{publish, secret};
use crate::privacy::event::Event;
use crate::privacy::key::{KEY_BYTES, Key};
use crate::privacy::ledger::budget::{self, Verdict};
use crate::privacy::ledger::record::{Charge, LedgerEntry, Mechanism};
use crate::privacy::ledger::replay::{ChargeRecord, Fate};
use crate::record::Head;
use crate::record::sha256::Sha256;
use std::path::{Path, PathBuf};
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
        resumable: true,
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

/// What has to be on disk before a charge.
pub(super) struct Ahead<'d> {
    /// The state directory.
    pub(super) directory: &'d Directory,
    /// The file of the charge's key.
    pub(super) key: PathBuf,
}

/// Writes a charge to the ledger, if the budget holds it. `prepare` writes what has to be on disk before the charge.
pub(super) fn pay(
    account: &mut Account,
    request: &Request,
    mechanism: &Mechanism,
    event: Event,
    prepare: impl FnOnce(&Ahead) -> Result<(), BudgetError>,
) -> Result<Result<Payment, Verdict>, BudgetError> {
    let noise = account.plan().noise_of(mechanism.level, mechanism.d);
    let verdict = budget::would(account.state(), &event, Some(noise), None)?;
    let Some(epsilons) = verdict.epsilons() else { return Ok(Err(verdict)) };
    warn_of_repetition(account, request);
    account.reserve_room()?;
    let (directory, seq) = (&account.books().directory, account.next_seq());
    KeptOutputs::restage(directory, seq, &request.staged)?;
    prepare(&Ahead { directory, key: directory.key(seq) })?;
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

/// Warns of an earlier charge for the same round, and of charges that a rerun of their command would finish for free.
fn warn_of_repetition(account: &Account, request: &Request) {
    let state = account.state();
    let same_round = |charge: &&ChargeRecord| request.round.is_some() && charge.charge.round == request.round;
    if let Some(charge) = state.counted().find(same_round) {
        tracing::warn!(
            "round {} has charge {} of other inputs or settings: this release pays for the round again",
            request.round.unwrap_or_default(),
            charge.head.seq
        );
    }
    if let Some(charge) = state.orphans().next() {
        tracing::warn!(
            hint = "`fedmill privacy recover DIR` says how to finish it",
            "charge {} is paid and its release is not recorded; this release is another one",
            charge.head.seq
        );
    }
}

/// Whether a charge paid for this request: with these settings, by this version.
pub(super) fn is_for(charge: &ChargeRecord, request: &Request, mechanism: Option<&Mechanism>) -> bool {
    let found = charge.charge.mechanism.as_ref();
    found.is_some()
        && found == mechanism
        && charge.charge.rng == request.rng()
        && charge.tool_version == env!("CARGO_PKG_VERSION")
}

/// The output of a charge, if it exists as it was released: at the path that this run wants, or where it was published
/// or found, `elsewhere` or not. Records its release if that is missing.
pub(super) fn existing_release(
    account: &mut Account,
    charge: &ChargeRecord,
    wanted: &Path,
    elsewhere: bool,
) -> Result<Option<ExistingRelease>, BudgetError> {
    let others = if elsewhere { account.books().paths_of(charge) } else { Vec::new() };
    let kept = KeptOutputs::read(&account.books().directory, charge.head.seq)?;
    let Some(output) = intact((charge, kept.as_ref()), [wanted.to_owned()].into_iter().chain(others))? else {
        return Ok(None);
    };
    if charge.fate == Fate::Open {
        account.adopt_output(charge, &output)?;
    }
    Ok(Some(ExistingRelease { path: output.path, release_id: charge.charge.release_id.clone() }))
}

/// The first model of a charge at these paths that is as it was released.
fn intact(
    (charge, kept): (&ChargeRecord, Option<&KeptOutputs>),
    paths: impl Iterator<Item = PathBuf>,
) -> Result<Option<StampedModel>, BudgetError> {
    for path in paths {
        // A file that is no model is no output of the charge.
        let there = StampedModel::published(&path).ok().flatten().filter(|model| model.is_of(charge));
        let Some(output) = there else { continue };
        let is_intact = match &charge.fate {
            Fate::Open => kept.map(|kept| kept.stranger(output.files())).transpose()?.flatten().is_none(),
            Fate::Released { output_sha256, .. } => output.sha256()? == *output_sha256,
            Fate::Voided { .. } | Fate::External => false,
        };
        if is_intact {
            return Ok(Some(output));
        }
    }
    Ok(None)
}

/// The charge that paid for a request's round and inputs before. Warns of it instead if the request asks for a second
/// release, or has a test seed, whose releases are not private.
pub(super) fn paid_before(account: &Account, request: &Request) -> Result<Option<PaidBefore>, BudgetError> {
    let is_same = |charge: &&ChargeRecord| {
        let mechanism = charge.charge.mechanism.as_ref();
        charge.charge.round == request.round
            && charge.charge.rng == request.rng()
            && mechanism.is_some_and(|mechanism| mechanism.inputs_sha256 == request.inputs_sha256)
    };
    let Some(earlier) = account.state().counted().filter(is_same).last() else { return Ok(None) };
    let seq = earlier.head.seq;
    if request.release_again || request.test_seed.is_some() {
        tracing::warn!(
            "charge {seq} paid for this round with these inputs: this run pays for them once more"
        );
        return Ok(None);
    }
    let paths = account.books().paths_of(earlier);
    let kept = KeptOutputs::read(&account.books().directory, seq)?;
    let model = intact((earlier, kept.as_ref()), paths.iter().cloned())?.map(|model| model.path);
    Ok(Some(PaidBefore {
        seq,
        output: paths.last().cloned().unwrap_or_default(),
        model,
        is_released: earlier.fate != Fate::Open,
        directory: account.books().directory.path.clone(),
    }))
}

/// The key of a charge, kept on disk until the release. Behind the key stands the digest of what its noise is for, so
/// that a file from a restored backup never gives the same noise to something else.
pub(super) struct KeptKey {
    purpose: Sha256,
    test_key: Option<Key>,
}

impl KeptKey {
    /// Bytes of a key and of the digest.
    const BYTES: usize = KEY_BYTES + 32;

    /// The key of a request with these settings.
    pub(super) fn new(request: &Request, mechanism: &Mechanism) -> Self {
        let Mechanism { z, q, clip, n_pub, d, level, inputs_sha256, .. } = mechanism;
        let purpose = format!("{:?}", (request.round, z, q, clip, n_pub, d, level, inputs_sha256));
        Self { purpose: Sha256::of(purpose), test_key: request.test_seed.map(Key::of_test_seed) }
    }

    /// Writes a key to disk.
    pub(super) fn write(&self, path: &Path, key: &Key) -> Result<(), BudgetError> {
        let mut bytes = [0; Self::BYTES];
        bytes[..KEY_BYTES].copy_from_slice(key.bytes());
        bytes[KEY_BYTES..].copy_from_slice(self.purpose.bytes());
        let written = secret::write_key(path, &bytes);
        bytes.zeroize();
        written.map_err(BudgetError::at(path))
    }

    /// Reads the key; `None` if there is none for this purpose, or a test seed makes another one.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Key>, BudgetError> {
        let Some(mut bytes) = secret::read_key::<{ Self::BYTES }>(path).map_err(BudgetError::at(path))?
        else {
            return Ok(None);
        };
        let (start, purpose) = bytes.split_at(KEY_BYTES);
        let key = start.try_into().ok().filter(|_| purpose == self.purpose.bytes()).map(kept);
        bytes.zeroize();
        let is_same = |key: &Key| self.test_key.as_ref().is_none_or(|test| test.bytes() == key.bytes());
        Ok(key.filter(is_same))
    }
}

/// The key of these bytes, which are wiped.
pub(super) fn kept(mut bytes: [u8; KEY_BYTES]) -> Key {
    let key = Key::kept(bytes);
    bytes.zeroize();
    key
}
