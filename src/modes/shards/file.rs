//! Shard files: the results of a shard, in safetensors with the run and sections as metadata.
//!
//! All shard files of a run have its [`RunIdentity`]. Together they hold every section once. If a model has fewer
//! sections than there are shards, some shard files are empty. They must exist too, so that the server notices a shard
//! that did not run.

use crate::engine::aggregate::error::Error;
use crate::io::digest::seal;
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, OpenFault, TablePool};
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::source::OpenFiles;
use crate::model::dtype::Dtype;
use crate::model::faults::Faults;
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::modes::shards::identity::{Difference, RunIdentity};
use crate::settings::shard::Shard;
use crate::telemetry::explain::Explain;
use crate::updates::fault::LayoutFault;
use crate::updates::metadata::{PARTIAL_KEY, SHARD_KEY};
use crate::updates::placement::placement;
use crate::updates::source::Placement;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Metadata keys.
const KIND: &str = PARTIAL_KEY;
const SECTIONS: &str = "fedmill.sections";
const SHARD: &str = SHARD_KEY;

/// The content of a shard file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardKind {
    /// Sums of the first pass.
    Gram,
    /// Merged values.
    Combine,
}

impl ShardKind {
    /// The command that writes it.
    fn command(self) -> &'static str {
        match self {
            Self::Gram => "gram",
            Self::Combine => "combine",
        }
    }
}

impl fmt::Display for ShardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/1", self.command())
    }
}

/// An opened shard file.
#[derive(Debug)]
pub struct ShardFile {
    /// Its sections.
    pub sections: Range<usize>,
    /// Its shard.
    shard: Shard,
    /// Whether the file carries a digest.
    is_sealed: bool,
    /// Its file.
    pub model: ModelFile,
}

/// Why shard files or a decision cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ShardError {
    #[error("{}: the shard file cannot be used: {}", .path.display(), .faults)]
    Unreadable { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: is a partial of a tree, expected a shard file of `fedmill {command}`", .path.display())]
    PartialOfTree { path: PathBuf, command: &'static str },
    #[error("{}: metadata `{key}` is {found}, expected {expected}", .path.display())]
    Metadata { path: PathBuf, key: &'static str, found: String, expected: String },
    #[error("{}: belongs to another run: its {what} is {found}, that of this run is {expected}", .path.display())]
    Stranger { path: PathBuf, what: String, found: String, expected: String },
    #[error("{}: its tensors are not those of its sections: {}", .path.display(), .faults)]
    OtherTensors { path: PathBuf, faults: Faults<LayoutFault> },
    #[error("{}: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} and {}: both hold {}, expected one shard file for each section", .one.display(), .other.display(), named(.sections))]
    Twice { one: PathBuf, other: PathBuf, sections: Range<usize> },
    #[error("{} holds {}, and {} holds {}: they overlap", .one.display(), named(.of_one), .other.display(), named(.of_other))]
    Overlap { one: PathBuf, of_one: Range<usize>, other: PathBuf, of_other: Range<usize> },
    #[error("no shard file holds {}{}", named(.sections), between(.before, .after))]
    Gap { sections: Range<usize>, before: Option<PathBuf>, after: Option<PathBuf> },
    #[error("{} and {}: both are of shard {shard}, expected one shard file for each shard", .one.display(), .other.display())]
    ShardTwice { one: PathBuf, other: PathBuf, shard: Shard },
    #[error("no shard file is of shard {shard}")]
    NoShard { shard: Shard },
    #[error("{}: is not a decision: {why}", .path.display())]
    NotADecision { path: PathBuf, why: String },
    #[error("{rule}, --pre or the strategy compares whole updates, expected --decision FILE")]
    NoDecision { rule: String },
    #[error(
        "{rule} needs the coordinate median of the updates after --pre or the strategy: a sharded run has no second \
        measurement"
    )]
    SecondLook { rule: String },
}

fn named(sections: &Range<usize>) -> String {
    match sections.len() {
        1 => format!("section {}", sections.start),
        _ => format!("sections {} to {}", sections.start, sections.end.saturating_sub(1)),
    }
}

fn between(before: &Option<PathBuf>, after: &Option<PathBuf>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!(", between {} and {}", before.display(), after.display()),
        (Some(before), None) => format!(", after {}", before.display()),
        (None, Some(after)) => format!(", before {}", after.display()),
        (None, None) => String::new(),
    }
}

impl Explain for ShardError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Stranger { .. } => "give all commands of one run the same updates and the same options",
            Self::Gap { .. } | Self::NoShard { .. } => {
                "name the shard files of all shards; the command of a shard makes its file"
            }
            Self::PartialOfTree { .. } => "`fedmill aggregate` takes partials of a tree, beside updates",
            Self::SecondLook { .. } => "merge the round with `fedmill aggregate`",
            Self::NoDecision { .. } => "run `fedmill gram` for each shard, then `fedmill decide`",
            Self::Unreadable { .. } | Self::Damaged { .. } | Self::OtherTensors { .. } => {
                "make the file again: its command gives the same bytes"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<ShardError> for Error {
    fn from(why: ShardError) -> Self {
        Self::Mode(Box::new(why))
    }
}

/// A tensor of a shard file, in memory.
pub(crate) struct SmallTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl SmallTensor {
    pub(crate) fn spec(&self) -> TensorSpec {
        let Self { name, dtype, shape, .. } = self;
        TensorSpec { name: name.clone(), dtype: *dtype, shape: shape.clone(), len: shape.iter().product() }
    }
}

/// Starts a shard file with these tensors, and with room for its digest. Writes the small ones, which come last.
pub(crate) fn create(
    path: &Path,
    kind: ShardKind,
    key: &RunIdentity,
    shard: Shard,
    sections: &Range<usize>,
    large: &[TensorSpec],
    small: &[SmallTensor],
) -> Result<ModelWriter, WriteError> {
    let mut metadata = key.metadata();
    metadata.insert(KIND.to_owned(), kind.to_string());
    metadata.insert(SECTIONS.to_owned(), format!("{}..{}", sections.start, sections.end));
    metadata.insert(SHARD.to_owned(), shard.to_string());
    let metadata = seal::with_room(metadata);
    let specs = large.iter().cloned().chain(small.iter().map(SmallTensor::spec));
    let writer = ModelWriter::create(path, &Layout::new(specs.collect()), &metadata, None)?;
    write(&writer, large.len(), small)?;
    Ok(writer)
}

/// Writes small tensors of a shard file, from index `first` on.
pub(crate) fn write(writer: &ModelWriter, first: usize, small: &[SmallTensor]) -> Result<(), WriteError> {
    for (i, tensor) in small.iter().enumerate() {
        let len = tensor.spec().len;
        if len > 0 {
            let whole = Piece { tensor: first + i, start: 0, len };
            writer.write(std::iter::once(whole), &tensor.bytes)?;
        }
    }
    Ok(())
}

/// Opens the shard files of all shards of a run. Returns them in order; together they hold each of the sections once.
///
/// # Errors
///
/// When a file is not a shard file of this run, or the files overlap or leave a gap.
pub fn open_all(
    paths: &[PathBuf],
    kind: ShardKind,
    key: &RunIdentity,
    sections: usize,
) -> Result<Vec<ShardFile>, ShardError> {
    let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
    let open = |path: &PathBuf| ShardFile::open(path, kind, key, sections, &files, &tables);
    let partials = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    joined(partials, sections)
}

/// Opens the shard files of all shards of a run that they alone describe. Returns them in order, and the run.
///
/// # Errors
///
/// As [`open_all`]; a missing last shard is found only where the files say how many shards there are.
pub fn open_alone(paths: &[PathBuf], kind: ShardKind) -> Result<(Vec<ShardFile>, RunIdentity), ShardError> {
    let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
    let mut identity = RunIdentity(BTreeMap::new());
    if let Some(path) = paths.first() {
        let model = ModelFile::open(path, &files, &tables, &Limits::TRUSTED)
            .map_err(|faults| ShardError::Unreadable { path: path.clone(), faults })?;
        identity = RunIdentity::read(&model.metadata);
    }
    let open = |path: &PathBuf| ShardFile::open(path, kind, &identity, usize::MAX, &files, &tables);
    let partials = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let sections = partials.iter().map(|partial| partial.sections.end).max().unwrap_or(0);
    Ok((joined(partials, sections)?, identity))
}

/// Shard files in order, which together hold each of the sections once.
fn joined(mut partials: Vec<ShardFile>, sections: usize) -> Result<Vec<ShardFile>, ShardError> {
    let unsealed = partials.iter().filter(|partial| !partial.is_sealed);
    seal::warn_of_unsealed(&unsealed.map(|partial| partial.model.path.as_path()).collect::<Vec<_>>());
    partials.sort_by(|a, b| {
        let place = |partial: &ShardFile| (partial.sections.start, partial.sections.end);
        place(a).cmp(&place(b)).then_with(|| a.model.path.cmp(&b.model.path))
    });
    check_complete(&partials, sections)?;
    check_shards(&partials)?;
    Ok(partials)
}

/// Checks that no shard has two files, and that none is missing if all files have the same number of shards.
fn check_shards(partials: &[ShardFile]) -> Result<(), ShardError> {
    let mut of_shard: BTreeMap<Shard, &Path> = BTreeMap::new();
    for ShardFile { shard, model, .. } in partials {
        if let Some(one) = of_shard.insert(*shard, &model.path) {
            return Err(ShardError::ShardTwice {
                one: one.to_owned(),
                other: model.path.clone(),
                shard: *shard,
            });
        }
    }
    let Some(first) = partials.first().map(|partial| partial.shard) else { return Ok(()) };
    if !of_shard.keys().all(|shard| shard.is_cut_as(first)) {
        return Ok(());
    }
    match first.all().find(|shard| !of_shard.contains_key(shard)) {
        Some(shard) => Err(ShardError::NoShard { shard }),
        None => Ok(()),
    }
}

/// Checks that shard files, in order, hold every section once.
fn check_complete(partials: &[ShardFile], sections: usize) -> Result<(), ShardError> {
    let path = |partial: &ShardFile| partial.model.path.clone();
    let mut last: Option<&ShardFile> = None;
    for next in partials.iter().filter(|partial| !partial.sections.is_empty()) {
        let done = last.map_or(0, |last| last.sections.end);
        if let Some(last) = last.filter(|_| next.sections.start < done) {
            let (one, other) = (path(last), path(next));
            let (of_one, of_other) = (last.sections.clone(), next.sections.clone());
            return Err(match of_one == of_other {
                true => ShardError::Twice { one, other, sections: of_one },
                false => ShardError::Overlap { one, of_one, other, of_other },
            });
        }
        if next.sections.start > done {
            let sections = done..next.sections.start;
            return Err(ShardError::Gap { sections, before: last.map(path), after: Some(path(next)) });
        }
        last = Some(next);
    }
    match last.map_or(0, |last| last.sections.end) {
        done if done < sections => {
            Err(ShardError::Gap { sections: done..sections, before: last.map(path), after: None })
        }
        _ => Ok(()),
    }
}

impl ShardFile {
    fn open(
        path: &Path,
        kind: ShardKind,
        key: &RunIdentity,
        sections: usize,
        files: &OpenFiles,
        tables: &TablePool,
    ) -> Result<Self, ShardError> {
        let at = || path.to_owned();
        let model = ModelFile::open(path, files, tables, &Limits::TRUSTED)
            .map_err(|faults| ShardError::Unreadable { path: at(), faults })?;
        let is_sealed = seal::check(&model)
            .map_err(|fault| ShardError::Unreadable { path: at(), faults: fault.into() })?;
        let text = |key: &'static str| model.metadata.get(key).map_or("missing", String::as_str);
        let bad = |key: &'static str, expected: String| ShardError::Metadata {
            path: at(),
            key,
            found: format!("`{}`", text(key)),
            expected,
        };
        // The description of a partial is a JSON object.
        if text(KIND).starts_with('{') {
            return Err(ShardError::PartialOfTree { path: at(), command: kind.command() });
        }
        if text(KIND) != kind.to_string() {
            return Err(bad(KIND, format!("`{kind}`")));
        }
        if let Some(Difference { what, found, expected }) = RunIdentity::read(&model.metadata).difference(key)
        {
            return Err(ShardError::Stranger { path: at(), what, found, expected });
        }
        let numbers = text(SECTIONS).split_once("..").map(|(start, end)| (start.parse(), end.parse()));
        let sections = match numbers {
            Some((Ok(start), Ok(end))) if start <= end && end <= sections => start..end,
            _ => return Err(bad(SECTIONS, format!("START..END up to {sections}"))),
        };
        let shard = text(SHARD).parse().map_err(|_| bad(SHARD, "I/S: shard I of S".to_owned()))?;
        Ok(Self { sections, shard, is_sealed, model })
    }

    /// The places of these tensors in the file.
    ///
    /// # Errors
    ///
    /// When the file holds other tensors.
    pub fn placement(&self, specs: &[TensorSpec]) -> Result<Placement, ShardError> {
        placement(&*self.model.table, specs, "shard")
            .map_err(|faults| ShardError::OtherTensors { path: self.model.path.clone(), faults })
    }

    /// Its tensors whose names start with `prefix`.
    pub(crate) fn specs_below(&self, prefix: &str) -> Vec<TensorSpec> {
        let named = self.model.table.iter().filter(|place| place.spec.name.starts_with(prefix));
        named.map(|place| place.spec.clone()).collect()
    }

    /// The error that the file is damaged.
    pub(crate) fn damaged(&self, what: impl Into<String>) -> ShardError {
        ShardError::Damaged { path: self.model.path.clone(), what: what.into() }
    }

    /// The shape of a tensor; `None` if the file lacks it.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        let place = self.model.table.iter().find(|place| place.spec.name == name)?;
        Some(&place.spec.shape)
    }

    /// The bytes of a small tensor.
    pub(crate) fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>, ShardError> {
        let place = self.model.table.iter().find(|place| place.spec.name == name);
        let place = place.filter(|place| place.spec.dtype == dtype && place.spec.shape == shape);
        let missing = || self.damaged(format!("tensor `{name}` is missing, expected {dtype} {shape:?}"));
        let place = place.ok_or_else(missing)?;
        let mut bytes = vec![0; place.spec.bytes()];
        let read = self.model.files[place.file].read_values_at(&mut bytes, place.offset);
        read.map_err(|why| self.damaged(format!("cannot be read: {why}")))?;
        Ok(bytes)
    }
}

/// Encodes numbers as f64, little-endian.
pub(crate) fn bytes_of(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Decodes numbers from f64, little-endian.
pub(crate) fn numbers_of(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|x| f64::from_bits(u64_of(x))).collect()
}

/// Encodes counts as u64, little-endian.
pub(crate) fn bytes_of_counts(counts: impl IntoIterator<Item = u64>) -> Vec<u8> {
    counts.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Decodes counts from u64, little-endian.
pub(crate) fn counts_of(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(u64_of).collect()
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
