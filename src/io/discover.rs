//! Finds update files from the paths that a user names.

use crate::io::shard_index;
use crate::io::shards::{INDEX_SUFFIX, MODEL_SUFFIX, index_stem, model_stem, shard_stem};
use crate::io::text;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An error while finding updates.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DiscoverError {
    #[error("{}: cannot list the directory: {source}", .path.display())]
    Unlistable { path: PathBuf, source: io::Error },
    #[error("{}: does not exist, expected an update or a directory", .path.display())]
    Missing { path: PathBuf },
    #[error("{}: directory holds no update, expected *{MODEL_SUFFIX} or *{INDEX_SUFFIX}{}", .path.display(), unread(.beside))]
    Empty { path: PathBuf, beside: Box<Beside> },
    #[error("{}: cannot read the list of updates: {source}", .path.display())]
    UnreadableList { path: PathBuf, source: io::Error },
    #[error("found no update, expected files, directories or --files-from FILE")]
    Nothing,
    #[error("{}: directory holds {found} models, expected one (or its path)", .path.display())]
    NotOneModel { path: PathBuf, found: usize },
}

/// Entries of a directory of updates that are not read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Unread {
    /// The path of the first by name.
    first: Option<PathBuf>,
    count: usize,
}

/// What a directory of updates holds that is not read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Beside {
    folders: Unread,
    /// Files whose ending is that of another format of models.
    others: Unread,
}

/// The endings of other formats that clients save models in.
const OTHER_FORMATS: [&str; 12] =
    ["pt", "pth", "bin", "ckpt", "pkl", "npz", "npy", "h5", "keras", "gguf", "onnx", "msgpack"];

impl Unread {
    fn add(&mut self, path: PathBuf) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|first| path < *first) {
            self.first = Some(path);
        }
    }
}

impl Beside {
    fn add(&mut self, name: &str, path: PathBuf) {
        let ending = Path::new(name).extension().unwrap_or_default().to_ascii_lowercase();
        if path.is_dir() {
            self.folders.add(path);
        } else if OTHER_FORMATS.iter().any(|other| ending == *other) {
            self.others.add(path);
        }
    }

    /// Warns if there are any.
    fn warn(&self, directory: &Path) {
        let directory = directory.display();
        if let Unread { first: Some(first), count } = &self.folders {
            tracing::warn!(
                clients = count,
                "{directory}: updates in its folders are not read: it has {count}, among them {}; name folders to read \
                 them",
                first.display()
            );
        }
        if let Unread { first: Some(first), count } = &self.others {
            tracing::warn!(
                clients = count,
                "{directory}: {count} files of other formats are not read, among them {}; updates are {MODEL_SUFFIX} files",
                first.display()
            );
        }
    }
}

fn unread(beside: &Beside) -> String {
    if let (None, Unread { first: Some(other), count }) = (&beside.folders.first, &beside.others) {
        return format!(" (it holds {count} files of other formats, among them {})", other.display());
    }
    let folders = &beside.folders;
    let Some(first) = &folders.first else { return String::new() };
    let of_more = if folders.count > 1 { format!(" and {} more", folders.count - 1) } else { String::new() };
    format!(" (not in folders below it: name {}{of_more})", first.display())
}

/// The update files that `paths` name, sorted by path. A directory stands for the updates in it, not for those in
/// folders below it. A path that is named as an update counts whether it exists or not: it is then a bad update.
///
/// # Errors
///
/// When a path with another name does not exist, or a directory cannot be listed. Unless `may_be_none`, also when a
/// directory holds no update, or no update is named.
pub fn updates(paths: &[PathBuf], may_be_none: bool) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            match updates_in(path) {
                Err(DiscoverError::Empty { beside, .. }) if may_be_none => beside.warn(path),
                in_directory => {
                    let (updates, beside) = in_directory?;
                    beside.warn(path);
                    found.extend(updates);
                }
            }
        } else if !exists(path) {
            return Err(DiscoverError::Missing { path: path.clone() });
        } else {
            found.push(path.clone());
        }
    }
    if found.is_empty() && !may_be_none {
        return Err(DiscoverError::Nothing);
    }
    found.sort();
    Ok(found)
}

/// The paths in a list, one per line, without blank lines. `-` is standard input.
///
/// # Errors
///
/// When the list cannot be read.
pub fn paths_from(list: &Path) -> Result<Vec<PathBuf>, DiscoverError> {
    let lines = text::read_lines(list)
        .map_err(|source| DiscoverError::UnreadableList { path: list.to_owned(), source })?;
    let is_blank = |line: &OsString| line.to_str().is_some_and(|line| line.trim().is_empty());
    Ok(lines.into_iter().filter(|line| !is_blank(line)).map(PathBuf::from).collect())
}

/// The model that a path names: of a directory, the model in it. `model.safetensors` or its index goes before others.
///
/// # Errors
///
/// When a directory cannot be listed, or it is not clear which model in it is meant.
pub fn model_at(path: &Path) -> Result<PathBuf, DiscoverError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut models = match updates_in(path) {
        Err(DiscoverError::Empty { .. }) => Vec::new(),
        found => found?.0,
    };
    let usual = |model: &PathBuf| stem(model) == "model";
    if models.iter().filter(|model| usual(model)).count() == 1 {
        models.retain(usual);
    }
    match <[PathBuf; 1]>::try_from(models) {
        Ok([model]) => Ok(model),
        Err(models) => Err(DiscoverError::NotOneModel { path: path.to_owned(), found: models.len() }),
    }
}

/// The name of an update without its ending: its client's id, unless its metadata names another.
pub fn stem(path: &Path) -> String {
    let name = text::of_name(path.file_name().unwrap_or_default());
    let stem = index_stem(&name).or_else(|| model_stem(&name).map(Into::into));
    stem.map_or_else(|| text::of_name(path.file_stem().unwrap_or_default()), |stem| stem.into_owned())
}

/// The name of the folder of an update. A path without a folder is in the working directory.
pub fn parent_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parent = absolute.parent().unwrap_or(Path::new(""));
    let name = |path: &Path| path.file_name().map(text::of_name);
    // `..` is no name.
    name(parent).or_else(|| name(&fs::canonicalize(parent).ok()?)).unwrap_or_default()
}

/// Whether something has this path. A broken link exists.
fn exists(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|why| why.kind() == io::ErrorKind::NotFound)
}

/// The updates in a directory, and what is not read.
fn updates_in(directory: &Path) -> Result<(Vec<PathBuf>, Beside), DiscoverError> {
    let unlistable = |source| DiscoverError::Unlistable { path: directory.to_owned(), source };
    let (mut names, mut beside) = (Vec::new(), Beside::default());
    for entry in fs::read_dir(directory).map_err(unlistable)? {
        let name = entry.map_err(unlistable)?.file_name();
        // The lossy text of a name that is not UTF-8 still has its ending.
        let text = name.to_string_lossy().into_owned();
        if text.starts_with('.') {
            continue;
        }
        if index_stem(&text).is_some() || model_stem(&text).is_some() {
            names.push((text, name));
        } else {
            beside.add(&text, directory.join(name));
        }
    }
    let indexes = || names.iter().filter_map(|(text, name)| Some((index_stem(text)?, name)));
    let stems: HashSet<String> = indexes().map(|(stem, _)| stem.into_owned()).collect();
    let only = indexes().next().filter(|_| stems.len() == 1);
    let foreign =
        only.map(|(_, name)| shard_index::foreign_shards(&directory.join(name))).unwrap_or_default();
    let is_shard = |text: &str| {
        shard_stem(text).is_some_and(|stem| stems.contains(stem.as_ref())) || foreign.contains(text)
    };
    let updates = names.iter().filter(|(text, _)| !is_shard(text));
    let updates: Vec<PathBuf> = updates.map(|(_, name)| directory.join(name)).collect();
    if updates.is_empty() {
        return Err(DiscoverError::Empty { path: directory.to_owned(), beside: Box::new(beside) });
    }
    Ok((updates, beside))
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

    #[test]
    fn the_folder_names_an_update() {
        assert_eq!(parent_name(Path::new("in/site-1/adapter_model.safetensors")), "site-1");
        let here = std::env::current_dir().unwrap();
        let expected = here.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(parent_name(Path::new("update.safetensors")), expected);
        assert_eq!(parent_name(Path::new("./src/../update.safetensors")), expected);
    }

    #[test]
    fn folders_that_are_not_read_are_named_or_counted() {
        let beside = |count| {
            let first = (count > 0).then(|| PathBuf::from("in/a"));
            Beside { folders: Unread { first, count }, others: Unread::default() }
        };
        assert_eq!(unread(&beside(0)), "");
        assert_eq!(unread(&beside(1)), " (not in folders below it: name in/a)");
        assert_eq!(unread(&beside(3)), " (not in folders below it: name in/a and 2 more)");
    }
}
