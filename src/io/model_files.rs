//! The files of a model on disk: their names, and how they get them.
//!
//! Loaders open the index. So an old index is removed first and the new one appears last: an index never stands beside
//! shards of another model.

use crate::io::interrupt::Section;
use crate::io::model_writer::WriteError;
use crate::io::publish::{directory_of, publish_kept, settle_directory_of, sync_directory_of};
use crate::io::shards::{INDEX_SUFFIX, MODEL_SUFFIX, is_shard_of};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A model that is complete on disk under temporary names, from one run to the next.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct KeptModel {
    pub(super) target: PathBuf,
    /// The temporary and the final path of each file.
    pub(super) shards: Vec<(PathBuf, PathBuf)>,
    pub(super) index: Option<(PathBuf, PathBuf)>,
}

impl KeptModel {
    /// As [`ModelWriter::publish`](crate::io::model_writer::ModelWriter::publish). May be repeated.
    ///
    /// # Errors
    ///
    /// When files cannot be renamed.
    pub fn publish(&self) -> Result<(), WriteError> {
        let Self { target, shards, index } = self.clone();
        // The index comes last. It must not be removed as an old one.
        if index.as_ref().is_some_and(|(kept, path)| !kept.exists() && path.exists()) {
            settle_directory_of(&target);
            return Ok(());
        }
        publish_files(&target, shards, index, |kept, path| publish_kept(&kept, path))
    }

    /// The path that the model is published to, in one file or in shards.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The file to load once the model is published.
    pub fn path(&self) -> &Path {
        self.index.as_ref().map_or(&self.target, |(_, path)| path)
    }
}

/// Gives the files of a model their names, by `rename`.
pub(super) fn publish_files<T>(
    target: &Path,
    shards: Vec<(T, PathBuf)>,
    index: Option<(T, PathBuf)>,
    rename: impl Fn(T, &Path) -> io::Result<()>,
) -> Result<(), WriteError> {
    let at_target = || WriteError::at(target);
    let _whole = Section::enter();
    // Removes the old index on disk before a file of the old model is replaced.
    if remove_if_there(&index_path(target)).map_err(at_target())? {
        sync_directory_of(target).map_err(at_target())?;
    }
    let mut files = Vec::new();
    for (staged, path) in shards {
        rename(staged, &path).map_err(WriteError::at(&path))?;
        files.push(path);
    }
    let mut path = target.to_owned();
    if let Some((staged, index)) = index {
        sync_directory_of(target).map_err(at_target())?;
        rename(staged, &index).map_err(WriteError::at(&index))?;
        path = index;
    }
    // The model is published: what fails from here on changes nothing about it.
    for old in family(target).unwrap_or_default() {
        if old != path
            && !files.contains(&old)
            && let Err(why) = remove_if_there(&old)
        {
            tracing::warn!("{}: of the model before, cannot be removed: {why}", old.display());
        }
    }
    settle_directory_of(target);
    Ok(())
}

/// The files that the publication of a model to `target` may replace: the file, an index and its shards.
///
/// # Errors
///
/// When the directory cannot be listed.
pub fn family(target: &Path) -> io::Result<Vec<PathBuf>> {
    let stem = stem_of(target);
    let mut files = vec![target.to_owned(), index_path(target)];
    for entry in fs::read_dir(directory_of(target))? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| is_shard_of(&stem, name)) {
            files.push(target.with_file_name(name));
        }
    }
    Ok(files)
}

/// Removes a file. Returns whether there was one.
fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// The name of a model without its ending.
pub(super) fn stem_of(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(MODEL_SUFFIX).unwrap_or(&name).to_owned()
}

/// The path of the index of a model in shards.
pub(super) fn index_path(target: &Path) -> PathBuf {
    target.with_file_name(stem_of(target) + INDEX_SUFFIX)
}
