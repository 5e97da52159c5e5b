//! The temporaries that killed runs left, and those of living runs, which are locked.

use super::{Staged, TEMPORARY_SUFFIX, directory_of, is_missing_call, temporary_name};
use crate::io::child;
use rustix::fs::OFlags;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Removes the temporaries of killed runs for `target`. Those of living runs are locked and stay. Returns whether a
/// living run has one.
///
/// # Errors
///
/// When the directory of the target cannot be listed.
pub fn remove_leftovers(target: &Path) -> io::Result<bool> {
    remove_leftovers_except(target, None)
}

/// The temporaries of a directory that killed runs left, whatever their targets.
///
/// # Errors
///
/// When the directory cannot be listed.
pub fn leftovers_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX) && is_free(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Claims a target for this run: an empty temporary, held until it is dropped. `None` if another run has a temporary of
/// the target. If two runs claim it at the same time, both may get `None`.
///
/// # Errors
///
/// When the directory of the target cannot be listed or written.
pub fn claim(target: &Path) -> io::Result<Option<Staged>> {
    let claim = Staged::create_private(target, 0)?;
    let is_being_written = remove_leftovers_except(target, Some(&claim.path))?;
    Ok((!is_being_written).then_some(claim))
}

fn remove_leftovers_except(target: &Path, own: Option<&Path>) -> io::Result<bool> {
    let prefix = temporary_name(target, "").to_string_lossy().replace(TEMPORARY_SUFFIX, "");
    let mut is_being_written = false;
    for entry in fs::read_dir(directory_of(target))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unique = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
        let is_ours = |unique: &str| unique.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if !unique.is_some_and(is_ours) || own.is_some_and(|own| own.file_name() == path.file_name()) {
            continue;
        }
        // Another run may have removed it already.
        match is_written(&path) {
            Some(true) => is_being_written = true,
            Some(false) => drop(fs::remove_file(&path)),
            None => {}
        }
    }
    Ok(is_being_written)
}

/// Whether a file exists that no living run writes.
pub(super) fn is_free(path: &Path) -> bool {
    is_written(path) == Some(false)
}

/// Whether a living run writes a temporary file; `None` if there is no such file. A pipe or a device with its name is
/// none, and is not opened.
fn is_written(path: &Path) -> Option<bool> {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file = File::options().write(true).custom_flags(flags).open(path).ok()?;
    Some(match file.try_lock() {
        Err(TryLockError::WouldBlock) => true,
        // A file system without locks: the name has the number of the process that writes the file.
        Err(TryLockError::Error(why)) if is_missing_call(&why) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unique = name.strip_suffix(TEMPORARY_SUFFIX).and_then(|name| name.rsplit_once('.'));
            let process = unique.and_then(|(_, unique)| unique.split('-').next()?.parse().ok());
            process.is_some_and(|process| child::parent(process).is_some())
        }
        _ => false,
    })
}
