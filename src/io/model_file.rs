//! A model on disk: one safetensors file, or several under a Hugging Face shard index.

use crate::io::digest::seal;
use crate::io::discover::DiscoverError;
use crate::io::header::{Header, HeaderFault, LENGTH_BYTES, StoredTensor, header_length};
use crate::io::limits::Limits;
use crate::io::lookalike::{self, Lookalike};
use crate::io::shard_index::{IndexFault, ShardIndex, is_index};
use crate::io::shards::shard_stem;
use crate::io::source::{OpenFiles, SourceFile};
use crate::model::faults::Faults;
use crate::model::layout::TensorSpec;
use crate::model::sparsity::Sparsity;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A fault of a model on disk.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum OpenFault {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error("shard {shard}: {fault}")]
    Shard { shard: String, fault: Box<OpenFault> },
    #[error("file is {}, expected safetensors", .0.what)]
    Lookalike(Lookalike),
    #[error(transparent)]
    Folder(#[from] DiscoverError),
    #[error(transparent)]
    Index(#[from] IndexFault),
    #[error("file is one shard of {stem}, expected the index of all its shards")]
    ShardAlone { stem: String },
    #[error("tensor `{tensor}`: the index places it in {shard}, which does not hold it")]
    NotInShard { tensor: String, shard: String },
    #[error("tensor `{tensor}`: {shard} holds it, but the index does not place it there")]
    NotInIndex { tensor: String, shard: String },
    #[error("update is encoded, but {why}")]
    BadEncoding { why: String },
    #[error(
        "--backend gpu: tensor `{tensor}` is encoded by {found}, expected a codec with shaders, with its default blocks: {expected}"
    )]
    NoShaders { tensor: String, found: String, expected: String },
    #[error("file is an encoded update, expected a plain model")]
    Encoded,
    #[error("metadata `{key}` is `{one}` in one shard and `{other}` in another")]
    ConflictingMetadata { key: String, one: String, other: String },
    #[error("file was damaged or changed: its digest is {found}, expected {expected} as it states itself")]
    Damaged { found: String, expected: String },
    #[error(
        "file was damaged or changed: metadata `{}` is missing, expected the digest of the file",
        seal::DIGEST_KEY
    )]
    NoDigest,
}

impl OpenFault {
    /// Whether the file's content is not that of its digest.
    fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::NoDigest)
    }

    /// The remedy of the first fault that has one, other than damage: a file with a predecessor has its own way back.
    pub fn hint_beside_damage(faults: &Faults<Self>) -> Option<&'static str> {
        faults.iter().filter(|fault| !fault.is_damage()).find_map(Self::hint)
    }

    /// The remedy, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Encoded => Some("run `fedmill decompress` on it first"),
            Self::NoShaders { .. } => Some("--backend cpu decodes every codec"),
            Self::Lookalike(known) => Some(known.hint),
            Self::ShardAlone { .. } => {
                Some("name the index, *.safetensors.index.json, and put all shards beside it")
            }
            Self::Damaged { .. } | Self::NoDigest => {
                Some("take a sound copy of the file, or make it again by the command that wrote it")
            }
            Self::Shard { fault, .. } => fault.hint(),
            _ => None,
        }
    }
}

/// A tensor, and the place of its first value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorPlace {
    /// Name, dtype and shape.
    pub spec: TensorSpec,
    /// Index of its file, or [`ENCODED`].
    pub file: usize,
    /// First byte of its values, counted from the end of that file's header, so that models with other metadata share
    /// one table; for an encoded tensor its number in the model.
    pub offset: u64,
}

/// The file index of a tensor whose values only the model's decoder can read.
pub const ENCODED: usize = usize::MAX;

/// Reads the encoded values of a model.
pub trait Decoder: Debug + Send + Sync {
    /// Decodes values of a tensor, by its number in the model, from `start` on.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or its content is not valid.
    fn decode(&self, files: &[SourceFile], tensor: usize, start: usize, out: &mut [f32]) -> io::Result<()>;

    /// Which of its values were sent; all others are zero.
    fn sparsity(&self) -> Sparsity;

    /// The bytes of its values in the file, if metadata stands among the data; `None` if not.
    fn content(&self) -> Option<Range<u64>>;

    /// Bytes of memory that it takes, about.
    fn memory(&self) -> usize;
}

/// Bytes that a run keeps for each tensor beside the table: its place in the layout.
const PLACED: usize = 24;
/// Bytes of a key of metadata beside its text.
const KEY: usize = 72;
/// Keys that every update may have.
const USUAL_KEYS: usize = 16;

/// Bytes that `len` bytes on the heap take.
pub fn heap(len: usize) -> usize {
    if len == 0 { 0 } else { (len + 8).next_multiple_of(16).max(32) }
}

/// The tensors of a model in the order of their data.
pub type TensorTable = Vec<TensorPlace>;

/// Keeps one copy of each table, since the clients of a round send the same one.
#[derive(Default, Debug)]
pub struct TablePool {
    tables: Mutex<HashSet<Arc<TensorTable>>>,
}

impl TablePool {
    /// Returns the shared copy of a table.
    pub fn share(&self, table: TensorTable) -> Arc<TensorTable> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tables.get(&table) {
            return Arc::clone(known);
        }
        let table = Arc::new(table);
        tables.insert(Arc::clone(&table));
        table
    }

    /// Drops a table, unless another model has it too.
    pub fn forget(&self, table: Arc<TensorTable>) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // One count is the pool's, and one the caller's.
        if Arc::strong_count(&table) == 2 {
            tables.remove(&table);
        }
    }
}

/// A model on disk whose headers are read and checked.
#[derive(Debug)]
pub struct ModelFile {
    /// The path that the user named: the file, or the index.
    pub path: PathBuf,
    /// The files that hold the data.
    pub files: Vec<SourceFile>,
    /// Its tensors.
    pub table: Arc<TensorTable>,
    /// The metadata, joined over all shards.
    pub metadata: BTreeMap<String, String>,
    /// The decoder of its encoded tensors.
    pub decoder: Option<Arc<dyn Decoder>>,
}

impl ModelFile {
    /// Opens a model and checks its headers. Reads no values.
    ///
    /// # Errors
    ///
    /// Every fault found.
    pub fn open(
        path: &Path,
        files: &OpenFiles,
        tables: &TablePool,
        limits: &Limits,
    ) -> Result<Self, Faults<OpenFault>> {
        let opened = if is_index(path) {
            open_shards(path, files, limits)?
        } else {
            open_single(path, files, limits)?
        };
        let (files, places, metadata) = opened;
        Ok(Self { path: path.to_owned(), files, table: tables.share(places), metadata, decoder: None })
    }

    /// Bytes of memory that it takes by itself, about: `shares_table` tells if another model has its table.
    pub fn memory(&self, shares_table: bool) -> usize {
        let of_place = |place: &TensorPlace| {
            let TensorSpec { name, shape, .. } = &place.spec;
            size_of::<TensorPlace>() + heap(name.len()) + heap(shape.len() * size_of::<usize>()) + PLACED
        };
        let table = if shares_table { 0 } else { self.table.iter().map(of_place).sum() };
        let of_key = |(key, value): (&String, &String)| heap(key.len()) + heap(value.len()) + KEY;
        let metadata: usize = self.metadata.iter().skip(USUAL_KEYS).map(of_key).sum();
        table + metadata + self.decoder.as_ref().map_or(0, |decoder| decoder.memory())
    }

    /// Bytes in all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(SourceFile::bytes).sum()
    }
}

/// Checks that a path names a whole model: a shard is none.
///
/// # Errors
///
/// When it names a shard.
pub fn check_is_whole(path: &Path) -> Result<(), Faults<OpenFault>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match shard_stem(&name) {
        Some(stem) => Err(OpenFault::ShardAlone { stem: stem.into_owned() }.into()),
        None => Ok(()),
    }
}

/// Bytes of a header that is read while no other such header is.
const LONG_HEADER: usize = 6 << 20;

/// Held while a long header is read.
type AloneGuard = MutexGuard<'static, ()>;

type ModelParts = (Vec<SourceFile>, TensorTable, BTreeMap<String, String>);

fn open_single(path: &Path, files: &OpenFiles, limits: &Limits) -> Result<ModelParts, Faults<OpenFault>> {
    let (source, header, _) = open_file(path, files, limits)?;
    let place = |stored: StoredTensor| TensorPlace { offset: stored.offset, spec: stored.spec, file: 0 };
    Ok((vec![source], header.tensors.into_iter().map(place).collect(), header.metadata))
}

/// Opens one safetensors file. Also returns the bytes of its header, with their length.
fn open_file(
    path: &Path,
    files: &OpenFiles,
    limits: &Limits,
) -> Result<(SourceFile, Header, u64), Faults<OpenFault>> {
    let unreadable = |why| Faults::from(OpenFault::Unreadable(why));
    let source = SourceFile::open(path, files).map_err(unreadable)?;
    let mut first = [0; lookalike::BYTES];
    let known = first.len().min(usize::try_from(source.bytes()).unwrap_or(usize::MAX));
    source.read_exact_at(&mut first[..known], 0).map_err(unreadable)?;
    let (json, _alone) = read_header(&source, &first[..known], limits)?;
    let data_start = LENGTH_BYTES + json.len() as u64;
    let header = Header::parse(&json, source.bytes() - data_start, limits);
    let header = header.map_err(|faults| told(&first[..known], faults))?;
    Ok((source.behind(data_start), header, data_start))
}

/// The text of a file's header. Long headers take many times their length while they are read: no other such text is
/// read until the caller drops the guard.
fn read_header(
    source: &SourceFile,
    first: &[u8],
    limits: &Limits,
) -> Result<(Vec<u8>, Option<AloneGuard>), Faults<OpenFault>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let bytes = source.bytes();
    let length = match first.first_chunk::<{ LENGTH_BYTES as usize }>() {
        Some(length) => header_length(*length, bytes, limits),
        None => Err(HeaderFault::NoLength { bytes }),
    };
    let length = length.map_err(|fault| told(first, fault.into()))?;
    let alone = (length > LONG_HEADER).then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    let mut json = vec![0; length];
    source.read_exact_at(&mut json, LENGTH_BYTES).map_err(OpenFault::Unreadable)?;
    Ok((json, alone))
}

/// The faults of a header, or that the file has another format.
fn told(first: &[u8], faults: Faults<HeaderFault>) -> Faults<OpenFault> {
    match lookalike::told_by(first) {
        Some(known) => OpenFault::Lookalike(known).into(),
        None => faults.map(OpenFault::from),
    }
}

fn open_shards(
    index_path: &Path,
    files: &OpenFiles,
    limits: &Limits,
) -> Result<ModelParts, Faults<OpenFault>> {
    let mut index = ShardIndex::read(index_path, limits).map_err(OpenFault::from)?;
    let mut metadata = std::mem::take(&mut index.metadata);
    let (names, foreign) = index.shards(index_path);
    let mut faults = foreign.map(OpenFault::from);
    let (mut sources, mut table) = (Vec::new(), Vec::new());
    let mut left = *limits;
    for name in names {
        match open_file(&index_path.with_file_name(name), files, &left) {
            Ok((source, header, data_start)) => {
                left.header_bytes = left.header_bytes.saturating_sub(data_start);
                left.tensors = left.tensors.saturating_sub(header.tensors.len());
                add_index_faults(&mut faults, &index, name, &header);
                faults.extend(merge_metadata(&mut metadata, header.metadata));
                table.extend(header.tensors.into_iter().map(|stored| TensorPlace {
                    offset: stored.offset,
                    spec: stored.spec,
                    file: sources.len(),
                }));
                sources.push(source);
            }
            Err(found) => faults.append(
                found.map(|fault| OpenFault::Shard { shard: name.to_owned(), fault: Box::new(fault) }),
            ),
        }
    }
    faults.none_or((sources, table, metadata))
}

/// Adds the faults where an index and the header of a shard disagree.
fn add_index_faults(faults: &mut Faults<OpenFault>, index: &ShardIndex, shard: &str, header: &Header) {
    let held: HashSet<&str> = header.tensors.iter().map(|stored| stored.spec.name.as_str()).collect();
    let placed = |tensor: &str| index.weight_map.get(tensor).is_some_and(|file| file == shard);
    let missing = index
        .weight_map
        .iter()
        .filter(|(tensor, file)| *file == shard && !held.contains(tensor.as_str()))
        .map(|(tensor, _)| OpenFault::NotInShard { tensor: tensor.clone(), shard: shard.to_owned() });
    faults.extend(missing);
    let extra =
        header.tensors.iter().filter(|stored| !placed(&stored.spec.name)).map(|stored| {
            OpenFault::NotInIndex { tensor: stored.spec.name.clone(), shard: shard.to_owned() }
        });
    faults.extend(extra);
}

fn merge_metadata(all: &mut BTreeMap<String, String>, shard: BTreeMap<String, String>) -> Faults<OpenFault> {
    let mut faults = Faults::default();
    for (key, value) in shard {
        let known = all.entry(key.clone()).or_insert_with(|| value.clone());
        if *known != value {
            faults.push(OpenFault::ConflictingMetadata { key, one: known.clone(), other: value });
        }
    }
    faults
}
