//! The directory of the run of a plan, where the user names none.

use crate::io::folder;
use crate::plan::run::claim::{self, Holds};
use crate::plan::run::journal::Journal;
use std::path::{Path, PathBuf};

/// The directory of a run whose plan lies at a path: `PLAN.run`, or `PLAN.DIGEST.run` if the run of another plan that
/// succeeded has that name, or one whose results this run takes over.
pub fn directory_for(at: &Path, digest: &str, reused: Option<&Path>) -> PathBuf {
    let plain = at.with_extension("run");
    let is_reused = reused.is_some_and(|reused| folder::real(reused).ok() == folder::real(&plain).ok());
    let taken = claim::of(&plain) == Holds::Run
        && Journal::read(&plain).is_ok_and(|journal| {
            journal.plan().is_some_and(|plan| plan != digest) && (is_reused || journal.finished().is_some())
        });
    if taken { at.with_extension(format!("{}.run", &digest[..12.min(digest.len())])) } else { plain }
}
