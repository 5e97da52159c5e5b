//! Turns an error of a budget into a failure of a command.

use crate::budget::error::BudgetError;
use crate::cli::Failure;

/// The failure of a command, with the hint and the signal of the error.
pub(super) fn failure(error: BudgetError) -> Failure {
    let (hint, signal) = (error.hint(), error.signal());
    Failure { hint, signal, ..Failure::from(error) }
}
