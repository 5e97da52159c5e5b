//! The charge of a budget for a sum, before anything of the sum is published.

use crate::budget::account::{Account, SpendAnswer};
use crate::budget::secure::{self, SecureAnswer};
use crate::io::digest::Blake3;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::privacy::of_budget;
use crate::modes::secure::set::FrozenSet;
use crate::modes::secure::unmask::UnmaskOptions;
use crate::parties::error::SecureError;
use crate::parties::identity::{Identity, derived};
use crate::privacy::ledger::record::{NoiseFrom, SecureSum};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A charge that waits until the sum is known to be sound.
#[derive(Debug)]
pub struct Payment {
    budget: PathBuf,
    account: Account,
    round: Option<u64>,
    sum: SecureSum,
}

impl Payment {
    /// The charge for the sum over a frozen set; `None` if the session is under no budget.
    ///
    /// # Errors
    ///
    /// When the session is under a budget and the options name none, or the other way round, when they name another budget,
    /// or when they ask for the exact sums beside central noise.
    pub fn of(
        manifest: &Manifest,
        frozen: &FrozenSet,
        options: &UnmaskOptions,
    ) -> Result<Option<Self>, SecureError> {
        let terms = &manifest.terms;
        let (privacy, budget) = match (&terms.privacy, &options.budget) {
            (None, None) => return Ok(None),
            (Some(privacy), Some(budget)) => (privacy, budget),
            (Some(_), None) => {
                let why = "the session was opened under a privacy budget, and this run names none";
                return Err(SecureError::refused(
                    why,
                    Some("pass --dp with the state directory of the budget"),
                ));
            }
            (None, Some(budget)) => {
                let why = format!("{}: the session was opened without a privacy budget", budget.display());
                let hint = "leave --dp out, or open another session with --dp: clients bound norms as the manifest says";
                return Err(SecureError::refused(why, Some(hint)));
            }
        };
        if privacy.mode == NoiseFrom::Central && options.sums.is_some() {
            let why = "--sums: found central noise, which the exact sums are without";
            return Err(SecureError::refused(why, Some("leave it out")));
        }
        let account = Account::open(budget).map_err(of_budget(budget))?;
        let found = account.plan().sha256();
        if found != privacy.plan_sha256 {
            let why = format!(
                "{}: its plan has the digest {found}, expected {}, by which the session was opened",
                budget.display(),
                privacy.plan_sha256
            );
            return Err(SecureError::refused(why, None));
        }
        if !account.state().heads.contains(&privacy.ledger) {
            let why = format!(
                "{}: is not the budget by which the session was opened, or an older copy of it: its ledger lacks record {}, {}",
                budget.display(),
                privacy.ledger.seq,
                privacy.ledger.sha256
            );
            return Err(SecureError::refused(why, Some("pass --dp with that budget as it is now")));
        }
        let sum = SecureSum {
            noise: privacy.mode,
            session: manifest.session,
            clients: frozen.set.members().count() as u64,
            draws: privacy.honest(terms.min_survivors) as u64,
            colluders: privacy.colluders as u64,
            clip: privacy.clip_norm,
            norm_bound: privacy.norm_bound,
            level: privacy.level,
            d: terms.values() as u64,
        };
        Ok(Some(Self { budget: budget.clone(), account, round: terms.round, sum }))
    }

    /// Charges the budget, unless an earlier run of this session did.
    ///
    /// # Errors
    ///
    /// When the budget does not hold the sum, or the record cannot be written. Nothing is published then.
    pub fn charge(mut self) -> Result<(), SecureError> {
        let answer = secure::charge(&mut self.account, self.round, &self.sum);
        match answer.map_err(of_budget(&self.budget))? {
            SecureAnswer::PaidBefore(_) | SecureAnswer::Asked(SpendAnswer::Recorded(..)) => Ok(()),
            SecureAnswer::Asked(SpendAnswer::Refused(verdict)) => {
                Err(SecureError::refused(format!("over the privacy budget: {verdict}"), None))
            }
        }
    }
}

/// The key of the noise that the server adds; `None` if it adds none. The same set of a session has the same noise, so that
/// a second run makes the same bytes. Who knows the server's secret key knows the noise, and the server has seen the sum.
pub fn central_noise(
    manifest: &Manifest,
    frozen: &FrozenSet,
    identity: &Identity,
) -> Option<Zeroizing<[u8; 32]>> {
    let privacy = manifest.terms.privacy.as_ref().filter(|privacy| privacy.mode == NoiseFrom::Central)?;
    let own = Zeroizing::new(derived(identity.secret(), "central noise"));
    let of = format!("{} {} {}", manifest.session, frozen.digest, privacy.plan_sha256);
    let of = Zeroizing::new([own.as_slice(), of.as_bytes()].concat());
    Some(Zeroizing::new(Blake3::of_bytes(&of)))
}
