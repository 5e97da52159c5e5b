//! Keeps every command from writing an output over one of its inputs, or over another output.

use crate::io::publish;
use crate::io::source::identity_of;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// An output that would replace what the command reads or writes elsewhere.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Collision {
    /// The output is an input.
    #[error("{}: is also an input, expected another output path", .path.display())]
    Input {
        /// Its path.
        path: PathBuf,
    },
    /// Two outputs are one file.
    #[error("{}: is also another output, expected different paths for all outputs", .path.display())]
    Output {
        /// Its path.
        path: PathBuf,
    },
}

/// Checks that the outputs differ from each other and from everything that is read. `read` has the device and inode of
/// each input, so other names and links of a file count as the file.
///
/// # Errors
///
/// The first output that is an input or another output too.
pub fn check(outputs: &[PathBuf], read: &[(u64, u64)]) -> Result<(), Collision> {
    let mut paths = BTreeSet::new();
    for path in outputs {
        if identity_of(path).is_some_and(|id| read.contains(&id)) {
            return Err(Collision::Input { path: path.clone() });
        }
        if !paths.insert(publish::resolved(path)) {
            return Err(Collision::Output { path: path.clone() });
        }
    }
    Ok(())
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
