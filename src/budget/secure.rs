//! The charge of a secure sum, once for a session.
//!
//! The server draws no noise for it, or draws the same noise again for the same session. So a charge that the ledger has
//! pays for every run of the session, and no key is kept.

use crate::budget::account::{Account, ExternalSpend, SpendAnswer};
use crate::budget::error::BudgetError;
use crate::privacy::ledger::record::SecureSum;
use crate::record::Head;

/// The answer to the charge of a secure sum.
#[derive(Clone, Debug)]
pub enum SecureAnswer {
    /// The ledger has the charge of this session since before.
    PaidBefore(Head),
    /// The budget holds it, and the charge is on disk; or the budget does not hold it, and nothing was written.
    Asked(SpendAnswer),
}

/// Charges a secure sum, unless the ledger has its charge.
///
/// # Errors
///
/// When the ledger has a charge of the session with other numbers, the cost is not known, or the record cannot be written.
pub fn charge(
    account: &mut Account,
    round: Option<u64>,
    sum: &SecureSum,
) -> Result<SecureAnswer, BudgetError> {
    let same_session = |found: &SecureSum| found.session == sum.session;
    let paid =
        account.state().counted().find(|charge| charge.charge.secure.as_ref().is_some_and(same_session));
    if let Some(paid) = paid {
        return match paid.charge.secure.as_ref() == Some(sum) {
            true => Ok(SecureAnswer::PaidBefore(paid.head)),
            false => Err(BudgetError::NotOpen {
                seq: paid.head.seq,
                why: "charged this session with other numbers of clients or of noise".to_owned(),
            }),
        };
    }
    let event = account.plan().event()?;
    let text = format!("secure sum of session {}, {} noise", sum.session.short(), sum.noise);
    let spend = ExternalSpend { event, reserve: None, round, text: Some(text), secure: Some(sum.clone()) };
    account.spend(&spend).map(SecureAnswer::Asked)
}
