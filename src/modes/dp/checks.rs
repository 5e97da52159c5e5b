//! Checks of a release before the charge: the base, and the number of clients.

use crate::budget::account::Account;
use crate::budget::stamp::Stamp;
use crate::engine::aggregate::error::{Error, Unsupported};
use crate::engine::aggregate::session::Session;
use crate::modes::dp::clipped::Clipped;
use crate::modes::dp::error::DpError;
use crate::modes::dp::release::{Options, refused};
use crate::updates::metadata::has_test_noise;

/// Refuses a base that no round may start from: without the layout of a model, with a stamp that the ledger does not
/// know, with a voided charge, or with noise from a test seed.
pub(super) fn check_base(session: &Session, options: &Options, account: &Account) -> Result<(), Error> {
    let Some(base) = &session.base else {
        return Err(Unsupported {
            option: "no --base".to_owned(),
            mode: Some("--dp"),
            why: "expected --base MODEL".to_owned(),
            hint: Some("under --dp the base decides the layout, so that no client can choose it"),
        }
        .into());
    };
    let (path, metadata) = (&base.model.path, &base.model.metadata);
    if let Some(stamp) = Stamp::of_base(path, metadata).map_err(DpError::of)? {
        account.check_base(path, &stamp).map_err(DpError::of)?;
    }
    if has_test_noise(metadata) && options.test_seed.is_none() {
        return Err(DpError::of(DpError::TestBase { path: path.clone() }));
    }
    Ok(())
}

/// Refuses a number of clients that the plan cannot have, and a round of noise alone that the operator did not ask for.
/// Warns of a number that contradicts the plan's sampling.
pub(super) fn check_cohort(
    session: &Session,
    options: &Options,
    account: &Account,
    clipped: &Clipped,
) -> Result<(), Error> {
    let (found, plan) = (clipped.counting(), account.plan());
    if found > plan.population {
        let population = plan.population;
        let why =
            format!("{found} clients, but the plan's population is {population}: the plan does not hold");
        return Err(refused(session, options, &clipped.taken, why));
    }
    if found == 0 && !options.allow_empty {
        let why = "no update counts, so the round would release noise alone; --allow-empty makes the round nevertheless";
        return Err(refused(session, options, &clipped.taken, why.to_owned()));
    }
    if let Some(contradiction) = plan.contradiction(found) {
        tracing::warn!("{contradiction}");
    }
    Ok(())
}
