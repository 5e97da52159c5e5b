//! Keeps commands from writing outputs over inputs, other outputs, and what is no regular file.
//!
//! [`target`] says where an output goes, and [`arguments`] finds the outputs on a command line.

pub mod arguments;
pub mod target;

use crate::io::folder;
use crate::io::journal::LEDGER;
use crate::io::model_writer::{WriteError, check_file_target, check_no_special_file};
use crate::io::publish::{self, Staged};
use crate::io::source::{identity_of, open_regular};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use target::Target;
pub use target::destination;

/// An output that would replace what the command reads or writes elsewhere.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Collision {
    /// The output is an input.
    #[error("{}: is also an input, expected another output path", .path.display())]
    Input {
        /// Its path.
        path: PathBuf,
    },
    /// The output is in a directory that fedmill keeps for itself.
    #[error("{}: is in the state directory {}, expected an output path outside it", .path.display(), .directory.display())]
    Kept {
        /// Its path.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// An output is a file that another one comes with: a shard, an index, or what it replaces.
    #[error("{}: is also another output, as fedmill writes or removes it with {}, expected different paths for all outputs", .path.display(), .of.display())]
    Beside {
        /// Its path.
        path: PathBuf,
        /// The other output.
        of: PathBuf,
    },
    /// Two outputs are one file.
    #[error("{}: is also another output, expected different paths for all outputs", .path.display())]
    Output {
        /// Its path.
        path: PathBuf,
    },
}

/// Checks that the outputs differ from each other and from everything that is read, and are outside of state
/// directories. `read` has the device and inode of each input, so other names and links of a file count as the file, and
/// so does a descriptor of it, such as `/dev/fd/3`. Pipes and devices replace nothing.
///
/// # Errors
///
/// The first output that is an input or another output too, or is in a directory with a ledger.
pub fn check(outputs: &[PathBuf], read: &[(u64, u64)]) -> Result<(), Collision> {
    let mut paths = BTreeSet::new();
    for path in outputs {
        let target = Target::of(path).unwrap_or_else(|_| Target::File(path.clone()));
        let Some(named) = target.file() else {
            if target == Target::StandardOutput && !paths.insert(PathBuf::from("-")) {
                return Err(Collision::Output { path: path.clone() });
            }
            continue;
        };
        if identity_of(&named).is_some_and(|id| read.contains(&id)) {
            return Err(Collision::Input { path: path.clone() });
        }
        let resolved = publish::resolved(&named);
        let directory = publish::directory_of(&resolved);
        if directory.join(LEDGER).exists() {
            return Err(Collision::Kept { path: path.clone(), directory: directory.to_owned() });
        }
        let key = if target == Target::StandardOutput { PathBuf::from("-") } else { resolved };
        if !paths.insert(key) {
            return Err(Collision::Output { path: path.clone() });
        }
    }
    Ok(())
}

/// Checks that no output is in a directory that fedmill keeps for itself: it could replace a file there, or be wiped
/// with one.
///
/// # Errors
///
/// The first output there.
pub fn check_outside(outputs: &[PathBuf], directory: &Path) -> Result<(), Collision> {
    let kept = identity_of(directory);
    let is_inside =
        |path: &&PathBuf| kept.is_some() && publish::resolved(path).parent().and_then(identity_of) == kept;
    let collision = |path: &PathBuf| Collision::Kept { path: path.clone(), directory: directory.to_owned() };
    outputs.iter().find(is_inside).map_or(Ok(()), |path| Err(collision(path)))
}

/// The file to write for an output that the operator names: a link leads to its file.
///
/// # Errors
///
/// When it is a directory, a stream, a device, a socket, or links lead in a circle.
pub fn named_output(path: &Path) -> Result<PathBuf, WriteError> {
    match Target::of(path).map_err(WriteError::at(path))? {
        Target::File(file) => check_no_special_file(&file).map(|()| file),
        _ => Err(WriteError::NotAFile { path: path.to_owned() }),
    }
}

/// Writes an output that the operator names: to a stream, or as a whole file, which is on disk before it has its name.
/// Creates its folder.
///
/// # Errors
///
/// As [`named_output`] for what is no stream, and when it cannot be written.
pub fn write_output(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    if Target::of(path).and_then(|target| target.stream(bytes)).map_err(WriteError::at(path))? {
        return Ok(());
    }
    let target = named_output(path)?;
    folder::write_file_on_disk(&target, bytes).map_err(WriteError::at(path))
}

/// Checks that an output may be written: to a stream, or as a file in a folder that exists.
///
/// # Errors
///
/// As [`check_file_target`].
pub fn check_target(path: &Path) -> Result<(), WriteError> {
    match target::is_stream(path) {
        true => Ok(()),
        false => check_file_target(&named_output(path)?),
    }
}

/// A text that is complete, and goes to a file that has no name yet. A stream has the text already.
pub type StagedText = Option<(PathBuf, Staged)>;

/// Writes a text to a stream, or to disk for a file of this path, by `stage`.
///
/// # Errors
///
/// As [`write_output`].
pub fn stage_text(
    path: &Path,
    bytes: &[u8],
    stage: fn(&Path, &[u8]) -> std::io::Result<Staged>,
) -> Result<StagedText, WriteError> {
    if Target::of(path).and_then(|target| target.stream(bytes)).map_err(WriteError::at(path))? {
        return Ok(None);
    }
    let target = named_output(path)?;
    let staged = stage(&target, bytes).map_err(WriteError::at(path))?;
    Ok(Some((target, staged)))
}

/// Gives a staged text its name.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn publish_text(text: StagedText) -> Result<(), WriteError> {
    let Some((path, staged)) = text else { return Ok(()) };
    staged.publish(&path).map_err(WriteError::at(&path))?;
    publish::settle_directory_of(&path);
    Ok(())
}

/// Checks that an output would replace nothing but an earlier one, which begins with `start`, or an empty file.
///
/// # Errors
///
/// As [`named_output`], and when the file begins with something else or cannot be read.
pub fn check_earlier(path: &Path, start: impl AsRef<[u8]>, what: &'static str) -> Result<(), WriteError> {
    let start = start.as_ref();
    if target::is_stream(path) {
        return Ok(());
    }
    let target = named_output(path)?;
    if !folder::exists(&target) {
        return Ok(());
    }
    let mut found = Vec::new();
    let file = open_regular(&target).map_err(WriteError::at(path))?;
    file.take(start.len() as u64).read_to_end(&mut found).map_err(WriteError::at(path))?;
    match found.is_empty() || found == start {
        true => Ok(()),
        false => Err(WriteError::Foreign { path: path.to_owned(), what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_and_detours_name_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("input"), "x").unwrap();
        fs::hard_link(at("input"), at("link")).unwrap();
        let read = [identity_of(&at("input")).unwrap()];
        assert_eq!(check(&[at("new"), at("link")], &read), Err(Collision::Input { path: at("link") }));
        let detour = at("./new");
        assert_eq!(check(&[at("new"), detour.clone()], &read), Err(Collision::Output { path: detour }));
        assert_eq!(check(&[at("new"), at("other")], &read), Ok(()));
    }
}
