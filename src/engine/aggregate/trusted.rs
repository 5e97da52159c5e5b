//! Says why the client that a rule trusts is not among those merged.

use crate::engine::aggregate::error::Error;
use crate::engine::intake::taken::Taken;
use crate::rules::Rule;

/// Refuses a rule that trusts a client whose update is a bad one.
///
/// # Errors
///
/// The fault of that update. Two updates that claim the id name each other.
pub fn check_trusted(rule: &dyn Rule, taken: &Taken) -> Result<(), Error> {
    let Some(id) = rule.trusted() else { return Ok(()) };
    if taken.cohort.clients.iter().any(|client| client.id == id) {
        return Ok(());
    }
    let mut bad = taken.rejected.iter().filter(|update| update.id == id);
    let Some((update, fault)) = bad.find_map(|update| Some((update, update.faults.iter().next()?))) else {
        return Ok(());
    };
    Err(Error::TrustedLeftOut {
        rule: rule.to_string(),
        id: id.to_owned(),
        fault: format!("{}: {fault}", update.path.display()),
        hint: fault.hint(),
    })
}
