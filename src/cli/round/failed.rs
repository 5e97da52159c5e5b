//! The error of the last `fedmill round run`, until a run ends without one.

use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::task;
use crate::round::world::Files;
use serde::{Deserialize, Serialize};

/// The error with which the last run ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) struct LastError {
    /// The time.
    pub(super) at: String,
    /// The message.
    pub(super) error: String,
}

/// Notes the error of a run.
///
/// # Errors
///
/// When the file cannot be written.
pub(super) fn note(files: &mut impl Files, error: &str) -> Result<(), RoundError> {
    let last = LastError { at: task::time(files.now().unix_s()), error: error.to_owned() };
    let text = format!("{}\n", serde_json::to_string(&last).unwrap_or_default());
    files.write(layout::LAST_ERROR, text.as_bytes()).map_err(RoundError::writing(layout::LAST_ERROR))
}

/// Forgets the error of an earlier run.
///
/// # Errors
///
/// When the file cannot be removed.
pub(super) fn clear(files: &mut impl Files) -> Result<(), RoundError> {
    match files.bytes(layout::LAST_ERROR) {
        Ok(_) => files.remove(layout::LAST_ERROR).map_err(RoundError::writing(layout::LAST_ERROR)),
        Err(_) => Ok(()),
    }
}

/// The error of the last run; `None` if it ended without one, or the file is torn.
///
/// # Errors
///
/// When the file cannot be read.
pub(super) fn read(files: &impl Files) -> Result<Option<LastError>, RoundError> {
    let bytes = files.read(layout::LAST_ERROR).map_err(RoundError::reading(layout::LAST_ERROR))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
