//! Applies a patch: the new model gets its name once its digest is the one that the patch names.

use crate::compress::patch::error::PatchError;
use crate::compress::patch::format::Patch;
use crate::compress::patch::rebuild::rebuilt;
use crate::compress::patch::side::Side;
use crate::io::collision;
use crate::io::digest::Blake3;
use crate::io::model_writer::{WriteError, check_target};
use crate::io::publish::{Staged, remove_leftovers};
use crate::io::source::OpenFiles;
use std::path::Path;
use std::slice;

/// Applies a patch to the model `onto`, and publishes the new model at `target`. All threads of the current pool share
/// the work.
///
/// # Errors
///
/// When the patch is damaged, or is for another model, or the result has another digest than the patch names. Then
/// nothing is published.
pub fn apply(patch: &Path, onto: &Path, target: &Path) -> Result<(), PatchError> {
    apply_within(patch, onto, target, None)
}

/// As [`apply`], for a new model of at most `most` bytes; `None` stands for twice the bytes of `onto` and 64 times those
/// of the patch.
///
/// # Errors
///
/// As [`apply`].
pub fn apply_within(patch: &Path, onto: &Path, target: &Path, most: Option<u64>) -> Result<(), PatchError> {
    check_target(target)?;
    remove_leftovers(target).map_err(WriteError::at(target))?;
    let files = OpenFiles::raise_limit();
    let patch = Patch::open(patch, &files)?;
    let old = Side::open(onto, &files)?;
    collision::check(&[target.to_owned()], &[patch.file.identity(), old.file.identity()])?;
    let found = Blake3::of(slice::from_ref(&old.file)).map_err(PatchError::reading(onto))?;
    let [base, model] = &patch.terms.digests;
    if found != *base {
        let (path, patch, expected) = (onto.to_owned(), patch.file.path().to_owned(), base.clone());
        return Err(PatchError::OtherBase { path, patch, found, expected });
    }
    let at = || WriteError::at(target);
    let mut staged: Option<Staged> = None;
    let mut end = 0;
    let (_, found) = rebuilt(&patch, &old, most, |bytes| {
        let staged = match &mut staged {
            Some(staged) => staged,
            None => staged.insert(Staged::create(target, patch.terms.bytes[1]).map_err(at())?),
        };
        staged.write_at(bytes, end).map_err(at())?;
        end += bytes.len() as u64;
        Ok(())
    })?;
    if found != *model {
        let (path, expected) = (patch.file.path().to_owned(), model.clone());
        return Err(PatchError::OtherModel { path, found, expected });
    }
    match staged {
        Some(staged) => Ok(staged.publish_on_disk(target).map_err(at())?),
        None => Ok(()),
    }
}
