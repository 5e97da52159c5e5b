//! Streams a model to disk: header first, then tiles in place, in any order, from any thread.
//!
//! A model above the shard limit becomes several files and a Hugging Face index. Loaders open the index. So the writer
//! removes an old index first and publishes the new one last: an index never stands beside shards of another model.

use crate::io::digest;
use crate::io::digest::seal;
use crate::io::header::{LENGTH_BYTES, METADATA_KEY};
use crate::io::interrupt::{self, Interrupted};
use crate::io::model_files::{KeptModel, index_path, publish_files, stem_of};
use crate::io::publish::{Staged, StagedNames, directory_of, remove_leftovers, resolved, sync_directory_of};
use crate::io::shards::{INDEX_SUFFIX, shard_name};
use crate::io::source::SourceFile;
use crate::model::layout::{Layout, Piece, TensorSpec};
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An error while writing a model.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum WriteError {
    #[error("{}: cannot be written: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: directory does not exist", .path.display())]
    NoDirectory { path: PathBuf },
    #[error("{}: is a directory, expected a file name", .path.display())]
    IsDirectory { path: PathBuf },
    #[error("{}: is no regular file, expected one or none", .path.display())]
    NotAFile { path: PathBuf },
    #[error("{}: holds something else, expected {what}, an empty file or none", .path.display())]
    Foreign { path: PathBuf, what: &'static str },
    #[error("{}: is the name of a shard index, expected one like model.safetensors", .path.display())]
    IsIndexName { path: PathBuf },
    #[error("{}: another run is writing it, expected another path or the end of that run", .path.display())]
    Busy { path: PathBuf },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl WriteError {
    /// The error of an operation on `path`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Bytes of a chunk copied from file to file.
const COPIED_BYTES: u64 = 1 << 20;

/// A model that is being written and has no name yet.
#[derive(Debug)]
pub struct ModelWriter {
    target: PathBuf,
    shards: Vec<Shard>,
    /// Shard and first byte of each tensor of the layout.
    places: Vec<(usize, u64)>,
    value_bytes: Vec<u64>,
    index: Option<(PathBuf, Staged)>,
    bytes: u64,
}

/// Starts a temporary file.
type Create = fn(&Path, u64) -> io::Result<Staged>;

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    staged: Staged,
    bytes: u64,
    /// Its tensors, by index in the layout.
    tensors: Range<usize>,
    header_bytes: usize,
}

impl ModelWriter {
    /// Starts a model of this layout for `target`, in shards if its data is larger than `max_shard_bytes`.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    pub fn create(
        target: &Path,
        layout: &Layout,
        metadata: &BTreeMap<String, String>,
        max_shard_bytes: Option<u64>,
    ) -> Result<Self, WriteError> {
        Self::create_with(Staged::create, target, layout, metadata, max_shard_bytes)
    }

    /// Starts a model in one file that only its owner may read. A file that it replaces keeps its mode.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_private(
        target: &Path,
        layout: &Layout,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, WriteError> {
        Self::create_with(Staged::create_private, target, layout, metadata, None)
    }

    fn create_with(
        create: Create,
        target: &Path,
        layout: &Layout,
        metadata: &BTreeMap<String, String>,
        max_shard_bytes: Option<u64>,
    ) -> Result<Self, WriteError> {
        check_target(target)?;
        remove_leftovers(target).map_err(WriteError::at(target))?;
        let ranges = shard_ranges(layout.tensors(), max_shard_bytes);
        let names = shard_names(target, ranges.len());
        let mut writer = Self {
            target: target.to_owned(),
            shards: Vec::new(),
            places: Vec::new(),
            value_bytes: layout.tensors().iter().map(|spec| spec.dtype.bytes() as u64).collect(),
            index: None,
            bytes: 0,
        };
        if ranges.len() > 1 {
            let index = index_json(layout.tensors(), metadata, &ranges, &names);
            let staged = stage(create, target, index.as_bytes(), index.len() as u64)?;
            writer.index = Some((index_path(target), staged));
            writer.bytes = index.len() as u64;
        }
        for (range, name) in ranges.into_iter().zip(names) {
            writer.add_shard(create, (layout, range), metadata, target.with_file_name(name))?;
        }
        Ok(writer)
    }

    fn add_shard(
        &mut self,
        create: Create,
        (layout, tensors): (&Layout, Range<usize>),
        metadata: &BTreeMap<String, String>,
        path: PathBuf,
    ) -> Result<(), WriteError> {
        let specs = &layout.tensors()[tensors.clone()];
        let header = header_bytes(specs, metadata);
        let mut end = header.len() as u64;
        for tensor in specs {
            self.places.push((self.shards.len(), end));
            end += tensor.bytes() as u64;
        }
        let staged = stage(create, &self.target, &header, end)?;
        self.shards.push(Shard { path, staged, bytes: end, tensors, header_bytes: header.len() });
        self.bytes += end;
        Ok(())
    }

    /// Writes the encoded values of consecutive pieces.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&self, pieces: impl Iterator<Item = Piece>, bytes: &[u8]) -> Result<(), WriteError> {
        let mut pending: Option<(usize, Range<u64>)> = None;
        let mut written = 0;
        for piece in pieces {
            let (shard, start) = self.places[piece.tensor];
            let size = self.value_bytes[piece.tensor];
            let begin = start + piece.start as u64 * size;
            let end = begin + piece.len as u64 * size;
            match &mut pending {
                Some((last, run)) if *last == shard && run.end == begin => run.end = end,
                _ => {
                    if let Some(run) = pending.replace((shard, begin..end)) {
                        written += self.write_run(run, &bytes[written..])?;
                    }
                }
            }
        }
        if let Some(run) = pending {
            self.write_run(run, &bytes[written..])?;
        }
        Ok(())
    }

    fn write_run(&self, (shard, run): (usize, Range<u64>), bytes: &[u8]) -> Result<usize, WriteError> {
        let len = (run.end - run.start) as usize;
        let shard = &self.shards[shard];
        shard.staged.write_at(&bytes[..len], run.start).map_err(WriteError::at(&shard.path))?;
        Ok(len)
    }

    /// Copies the stored values of a tensor from another file: `bytes` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written, or a signal asked to stop.
    pub fn copy(&self, tensor: usize, from: &SourceFile, offset: u64, bytes: u64) -> Result<(), WriteError> {
        let (shard, start) = self.places[tensor];
        let mut chunk = vec![0; bytes.min(COPIED_BYTES) as usize];
        let mut done = 0;
        while done < bytes {
            interrupt::check()?;
            let chunk = &mut chunk[..(bytes - done).min(COPIED_BYTES) as usize];
            let unreadable = |source| WriteError::Unreadable { path: from.path().to_owned(), source };
            from.read_values_at(chunk, offset + done).map_err(unreadable)?;
            let end = done + chunk.len() as u64;
            self.write_run((shard, start + done..start + end), chunk)?;
            done = end;
        }
        Ok(())
    }

    /// Replaces the metadata. Its JSON must not be longer than before.
    ///
    /// # Errors
    ///
    /// When it is longer, or cannot be written.
    pub fn rewrite_metadata(
        &self,
        layout: &Layout,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), WriteError> {
        let rewrite = |staged: &Staged, path: &Path, mut text: Vec<u8>, bytes: usize| {
            if text.len() > bytes {
                return Err(WriteError::at(path)(io::Error::other("metadata longer than before")));
            }
            // Spaces at the end mean nothing in JSON.
            text.resize(bytes, b' ');
            staged.write_at(&text, 0).map_err(WriteError::at(path))
        };
        for Shard { path, staged, tensors, header_bytes, .. } in &self.shards {
            let json = header_json(&layout.tensors()[tensors.clone()], metadata);
            let length = ((header_bytes - LENGTH_BYTES as usize) as u64).to_le_bytes();
            rewrite(staged, path, [&length[..], &json].concat(), *header_bytes)?;
        }
        let Some((path, staged)) = &self.index else { return Ok(()) };
        let ranges: Vec<Range<usize>> = self.shards.iter().map(|shard| shard.tensors.clone()).collect();
        let names = shard_names(&self.target, ranges.len());
        let index = index_json(layout.tensors(), metadata, &ranges, &names);
        let data: u64 = self.shards.iter().map(|shard| shard.bytes).sum();
        rewrite(staged, path, index.into_bytes(), (self.bytes - data) as usize)
    }

    /// The BLAKE3 digest of everything written, equal to that of the published files.
    ///
    /// # Errors
    ///
    /// When it cannot be read back.
    pub fn digest(&self) -> Result<String, WriteError> {
        let mut digest = digest::Blake3::default();
        for shard in &self.shards {
            let read = |chunk: &mut [u8], offset| shard.staged.read_at(chunk, offset);
            digest.add(shard.bytes, read).map_err(WriteError::at(&shard.path))?;
        }
        Ok(digest.hex())
    }

    /// Writes the digest of the files into them, where [`seal::with_room`] made room in the metadata. Call it when
    /// nothing else is left to write.
    ///
    /// # Errors
    ///
    /// When they cannot be read back or written.
    pub fn seal(&self) -> Result<(), WriteError> {
        let files: Vec<(&Staged, u64)> =
            self.shards.iter().map(|shard| (&shard.staged, shard.bytes)).collect();
        seal::fill(&files).map_err(WriteError::at(&self.target))
    }

    /// Flushes everything written to disk. Returns the time that it took.
    ///
    /// # Errors
    ///
    /// When it cannot be, or a signal asked to stop.
    pub fn sync(&self) -> Result<Duration, WriteError> {
        let started = Instant::now();
        for shard in &self.shards {
            shard.staged.sync().map_err(WriteError::at(&shard.path))?;
        }
        if let Some((path, staged)) = &self.index {
            staged.sync().map_err(WriteError::at(path))?;
        }
        interrupt::check()?;
        Ok(started.elapsed())
    }

    /// The file to load once the model is published: the model, or its index.
    pub fn path(&self) -> &Path {
        self.index.as_ref().map_or(&self.target, |(path, _)| path)
    }

    /// The files that hold data.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the model its name and replaces a model of that name. Call [`sync`](Self::sync) first.
    ///
    /// # Errors
    ///
    /// When files cannot be renamed.
    pub fn publish(self) -> Result<(), WriteError> {
        let shards = self.shards.into_iter().map(|shard| (shard.staged, shard.path)).collect();
        let index = self.index.map(|(path, staged)| (staged, path));
        publish_files(&self.target, shards, index, |staged, path| staged.publish(path))
    }

    /// Checks before the work that [`keep`](Self::keep) can rename the files.
    ///
    /// # Errors
    ///
    /// When a name is too long.
    pub fn check_kept_names(&self) -> Result<(), WriteError> {
        let shards = self.shards.iter().map(|shard| &shard.staged);
        let mut all = shards.chain(self.index.iter().map(|(_, staged)| staged));
        all.try_for_each(Staged::check_kept_name).map_err(WriteError::at(&self.target))
    }

    /// The names of all files on their way to their final ones.
    pub fn names(&self) -> Vec<StagedNames> {
        let shards = self.shards.iter().map(|shard| shard.staged.names(&shard.path));
        shards.chain(self.index.iter().map(|(path, staged)| staged.names(path))).collect()
    }

    /// Keeps the model under temporary names that outlast the run. Call [`sync`](Self::sync) first.
    ///
    /// # Errors
    ///
    /// When files cannot be renamed.
    pub fn keep(self) -> Result<KeptModel, WriteError> {
        let keep = |staged: Staged, path: PathBuf| match staged.keep() {
            // A later run may start in another directory.
            Ok(kept) => Ok((resolved(&kept), resolved(&path))),
            Err(why) => Err(WriteError::at(&path)(why)),
        };
        let shards = self.shards.into_iter().map(|shard| keep(shard.staged, shard.path));
        let shards = shards.collect::<Result<_, _>>()?;
        let index = self.index.map(|(path, staged)| keep(staged, path)).transpose()?;
        sync_directory_of(&self.target).map_err(WriteError::at(&self.target))?;
        Ok(KeptModel { target: resolved(&self.target), shards, index })
    }
}

/// Checks before the work that `target` can be the path of a model.
///
/// # Errors
///
/// As [`check_file_target`], and when the name is that of an index.
pub fn check_target(target: &Path) -> Result<(), WriteError> {
    if target.to_string_lossy().ends_with(INDEX_SUFFIX) {
        return Err(WriteError::IsIndexName { path: target.to_owned() });
    }
    check_file_target(target)
}

/// Checks that `target` can be the path of a file.
///
/// # Errors
///
/// When it is not a regular file, or its directory does not exist.
pub fn check_file_target(target: &Path) -> Result<(), WriteError> {
    check_no_special_file(target)?;
    let directory = directory_of(target);
    if !directory.is_dir() {
        return Err(WriteError::NoDirectory { path: directory.to_owned() });
    }
    Ok(())
}

/// Checks that `target` is a regular file, a link to one, or nothing.
///
/// # Errors
///
/// When it is a directory, a pipe, a device, a socket, or a link that leads nowhere.
pub fn check_no_special_file(target: &Path) -> Result<(), WriteError> {
    if target.is_dir() {
        return Err(WriteError::IsDirectory { path: target.to_owned() });
    }
    if !target.is_file() && target.symlink_metadata().is_ok() {
        return Err(WriteError::NotAFile { path: target.to_owned() });
    }
    Ok(())
}

fn stage(create: Create, target: &Path, start: &[u8], bytes: u64) -> Result<Staged, WriteError> {
    let staged = create(target, bytes).map_err(WriteError::at(target))?;
    staged.write_at(start, 0).map_err(WriteError::at(target))?;
    Ok(staged)
}

/// Assigns tensors to shards in order; a shard ends where the next tensor would exceed the limit.
fn shard_ranges(tensors: &[TensorSpec], max_shard_bytes: Option<u64>) -> Vec<Range<usize>> {
    let limit = max_shard_bytes.unwrap_or(u64::MAX);
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, tensor) in tensors.iter().enumerate() {
        let size = tensor.bytes() as u64;
        if i > start && bytes + size > limit {
            ranges.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    ranges.push(start..tensors.len());
    ranges
}

fn shard_names(target: &Path, count: usize) -> Vec<String> {
    if count == 1 {
        return vec![target.file_name().unwrap_or_default().to_string_lossy().into_owned()];
    }
    let stem = stem_of(target);
    (1..=count).map(|number| shard_name(&stem, number, count)).collect()
}

fn index_json(
    tensors: &[TensorSpec],
    metadata: &BTreeMap<String, String>,
    ranges: &[Range<usize>],
    names: &[String],
) -> String {
    let total_size: usize = tensors.iter().map(TensorSpec::bytes).sum();
    // The digest of the files is theirs.
    let of_all = metadata.iter().filter(|(key, _)| *key != seal::DIGEST_KEY);
    let mut index_metadata: BTreeMap<&str, serde_json::Value> =
        of_all.map(|(key, value)| (key.as_str(), json!(value))).collect();
    index_metadata.insert("total_size", json!(total_size));
    let weight_map: BTreeMap<&str, &str> = ranges
        .iter()
        .zip(names)
        .flat_map(|(range, name)| tensors[range.clone()].iter().map(|t| (t.name.as_str(), name.as_str())))
        .collect();
    let index = json!({ "metadata": index_metadata, "weight_map": weight_map });
    format!("{index:#}\n")
}

fn header_json(tensors: &[TensorSpec], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    json_of(&HeaderJson { tensors, metadata })
}

/// Length and JSON of a safetensors header, padded so that data starts on a multiple of 8 bytes.
pub fn header_bytes(tensors: &[TensorSpec], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut json = header_json(tensors, metadata);
    json.resize(json.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

#[expect(clippy::expect_used, reason = "maps with string keys always serialise")]
fn json_of(header: &HeaderJson) -> Vec<u8> {
    serde_json::to_vec(header).expect("a header of strings and numbers")
}

/// The header as JSON: metadata, then tensors in the order of their data.
struct HeaderJson<'a> {
    tensors: &'a [TensorSpec],
    metadata: &'a BTreeMap<String, String>,
}

impl Serialize for HeaderJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(METADATA_KEY, self.metadata)?;
        let mut begin = 0;
        for tensor in self.tensors {
            let end = begin + tensor.bytes();
            let (dtype, shape) = (tensor.dtype.stored(), tensor.shape.clone());
            let info = TensorInfo { dtype, shape, data_offsets: (begin, end) };
            map.serialize_entry(&tensor.name, &info)?;
            begin = end;
        }
        map.end()
    }
}
