//! Keeps every command from writing an output over one of its inputs, or over another output.

use crate::io::journal::LEDGER;
use crate::io::publish;
use crate::io::source::identity_of;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    /// Two outputs are one file.
    #[error("{}: is also another output, expected different paths for all outputs", .path.display())]
    Output {
        /// Its path.
        path: PathBuf,
    },
}

/// Checks that the outputs differ from each other and from everything that is read, and are outside state directories. `read` has the device and inode of
/// each input, so other names and links of a file count as the file.
///
/// # Errors
///
/// The first output that is an input or another output too, or is in a directory with a ledger.
pub fn check(outputs: &[PathBuf], read: &[(u64, u64)]) -> Result<(), Collision> {
    let mut paths = BTreeSet::new();
    for path in outputs {
        if identity_of(path).is_some_and(|id| read.contains(&id)) {
            return Err(Collision::Input { path: path.clone() });
        }
        let resolved = publish::resolved(path);
        let directory = publish::directory_of(&resolved);
        if directory.join(LEDGER).exists() {
            return Err(Collision::Kept { path: path.clone(), directory: directory.to_owned() });
        }
        if !paths.insert(resolved) {
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
