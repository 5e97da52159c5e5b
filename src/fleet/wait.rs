//! Waits for a registry that another process holds.
//!
//! Says so after a second, and gives up in the end.

use crate::fleet::error::{FleetError, held_by, is_busy};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// The time that a command waits for another process.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The part of it in which nothing is said.
const SILENCE: Duration = Duration::from_secs(1);

/// Does some work on a registry. If another process holds it, says so and tries again for the rest of [`PATIENCE`]. The
/// work must change nothing where it finds the registry held.
///
/// # Errors
///
/// When the other process holds the registry for longer, or the work fails.
pub(super) fn patiently<'c, T>(
    connection: &'c Connection,
    path: &Path,
    work: impl Fn(&'c Connection) -> rusqlite::Result<T>,
) -> Result<T, FleetError> {
    let wait = |time: Duration| connection.busy_timeout(time);
    let done = wait(SILENCE).and_then(|()| work(connection)).or_else(|why| {
        if !is_busy(&why) {
            return Err(why);
        }
        let (rest, limit) = (PATIENCE.saturating_sub(SILENCE), PATIENCE.as_secs());
        tracing::warn!(
            "{}: waits for {}, {limit} s at the longest",
            path.display(),
            held_by(path, "which holds the registry")
        );
        wait(rest)?;
        work(connection)
    });
    done.and_then(|done| wait(PATIENCE).map(|()| done)).map_err(FleetError::sql(path))
}
