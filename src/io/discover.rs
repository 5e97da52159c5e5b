//! Finds update files from the paths a user names.

use crate::io::text;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Ending of the index of a sharded model.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// Ending of a model in one file.
pub const MODEL_SUFFIX: &str = ".safetensors";

/// Why no updates could be found.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DiscoverError {
    #[error("{}: cannot list the directory: {source}", .path.display())]
    Unlistable { path: PathBuf, source: io::Error },
    #[error("{}: directory holds no update, expected *{MODEL_SUFFIX} or *{INDEX_SUFFIX}", .path.display())]
    Empty { path: PathBuf },
    #[error("{}: cannot read the list of updates: {source}", .path.display())]
    UnreadableList { path: PathBuf, source: io::Error },
    #[error("no update named: give files, directories or --files-from")]
    Nothing,
}

/// The update files that `paths` stand for, sorted by path: each directory replaced by the updates in
/// it (not in folders below it), each file as it is, whether it exists or not.
///
/// # Errors
///
/// When a directory cannot be listed or holds no update, or nothing is left.
pub fn updates(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(updates_in(path)?);
        } else {
            found.push(path.clone());
        }
    }
    if found.is_empty() {
        return Err(DiscoverError::Nothing);
    }
    found.sort();
    Ok(found)
}

/// The paths that a list names, one a line; blank lines are skipped. `-` is standard input.
///
/// # Errors
///
/// When the list cannot be read.
pub fn paths_from(list: &Path) -> Result<Vec<PathBuf>, DiscoverError> {
    let text =
        text::read(list).map_err(|source| DiscoverError::UnreadableList { path: list.to_owned(), source })?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(PathBuf::from).collect())
}

/// The name of an update without its ending, which is its client's id unless its metadata says otherwise.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [INDEX_SUFFIX, MODEL_SUFFIX]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .map_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), str::to_owned)
}

fn updates_in(directory: &Path) -> Result<Vec<PathBuf>, DiscoverError> {
    let unlistable = |source| DiscoverError::Unlistable { path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(unlistable)? {
        let entry = entry.map_err(unlistable)?;
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let shards: HashSet<String> = names
        .iter()
        .filter(|name| name.ends_with(INDEX_SUFFIX))
        .flat_map(|name| shards_of(&directory.join(name)))
        .collect();
    let updates: Vec<PathBuf> = names
        .iter()
        .filter(|name| name.ends_with(INDEX_SUFFIX) || name.ends_with(MODEL_SUFFIX))
        .filter(|name| !shards.contains(*name))
        .map(|name| directory.join(name))
        .collect();
    if updates.is_empty() {
        return Err(DiscoverError::Empty { path: directory.to_owned() });
    }
    Ok(updates)
}

/// The files an index names. None if it is not understood: opening it will say why.
fn shards_of(index: &Path) -> Vec<String> {
    crate::io::model_file::read_index(index)
        .map(|index| index.weight_map.into_values().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stem_drops_the_whole_ending() {
        assert_eq!(stem(Path::new("a/client-1.safetensors")), "client-1");
        assert_eq!(stem(Path::new("client-1.safetensors.index.json")), "client-1");
        assert_eq!(stem(Path::new("a.b.safetensors")), "a.b");
        assert_eq!(stem(Path::new("update.bin")), "update");
    }
}
