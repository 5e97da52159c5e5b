//! A model on disk: one safetensors file, or several under a Hugging Face shard index.

use crate::io::discover::stem;
use crate::io::header::{Header, HeaderFault, LENGTH_BYTES, StoredTensor, header_length};
use crate::io::shards::{INDEX_SUFFIX, is_shard_of};
use crate::io::source::{OpenFiles, SourceFile};
use crate::model::layout::TensorSpec;
use crate::model::sparsity::Sparsity;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Most bytes of a shard index that is read.
const MAX_INDEX_BYTES: u64 = 100_000_000;

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
    #[error("shard index is not understood: {why}")]
    BadIndex { why: String },
    #[error(
        "shard index names `{shard}`, expected a file beside it called {stem}-NNNNN-of-NNNNN.safetensors"
    )]
    ForeignShard { shard: String, stem: String },
    #[error("tensor `{tensor}`: the index places it in {shard}, which does not hold it")]
    NotInShard { tensor: String, shard: String },
    #[error("tensor `{tensor}`: {shard} holds it, but the index does not place it there")]
    NotInIndex { tensor: String, shard: String },
    #[error("update is encoded, but {why}")]
    BadEncoding { why: String },
    #[error("file is an encoded update, expected a plain model")]
    Encoded,
    #[error("metadata `{key}` is `{one}` in one shard and `{other}` in another")]
    ConflictingMetadata { key: String, one: String, other: String },
}

/// The messages of faults, joined.
pub fn list<T: ToString>(faults: &[T]) -> String {
    faults.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

impl OpenFault {
    /// The remedy, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Encoded => Some("run `fedmill decompress` on it first"),
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
    /// First byte of its values in that file; for an encoded tensor its number in the model.
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
    pub fn open(path: &Path, files: &OpenFiles, tables: &TablePool) -> Result<Self, Vec<OpenFault>> {
        let is_index = path.to_string_lossy().ends_with(INDEX_SUFFIX);
        let (files, places, metadata) =
            if is_index { open_shards(path, files)? } else { open_single(path, files)? };
        Ok(Self { path: path.to_owned(), files, table: tables.share(places), metadata, decoder: None })
    }

    /// Bytes in all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(SourceFile::bytes).sum()
    }
}

type ModelParts = (Vec<SourceFile>, TensorTable, BTreeMap<String, String>);

fn open_single(path: &Path, files: &OpenFiles) -> Result<ModelParts, Vec<OpenFault>> {
    let (source, header, data_start) = open_file(path, files)?;
    let place =
        |stored: StoredTensor| TensorPlace { offset: data_start + stored.offset, spec: stored.spec, file: 0 };
    Ok((vec![source], header.tensors.into_iter().map(place).collect(), header.metadata))
}

/// Opens one safetensors file. Also returns where its data starts.
fn open_file(path: &Path, files: &OpenFiles) -> Result<(SourceFile, Header, u64), Vec<OpenFault>> {
    let unreadable = |why| vec![OpenFault::Unreadable(why)];
    let headers = |faults: Vec<HeaderFault>| faults.into_iter().map(OpenFault::from).collect();
    let source = SourceFile::open(path, files).map_err(unreadable)?;
    let bytes = source.bytes();
    if bytes < LENGTH_BYTES {
        return Err(headers(vec![HeaderFault::NoLength { bytes }]));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_exact_at(&mut length, 0).map_err(unreadable)?;
    let length = header_length(length, bytes).map_err(|fault| headers(vec![fault]))?;
    let mut json = vec![0; length];
    source.read_exact_at(&mut json, LENGTH_BYTES).map_err(unreadable)?;
    let data_start = LENGTH_BYTES + length as u64;
    let header = Header::parse(&json, bytes - data_start).map_err(headers)?;
    Ok((source, header, data_start))
}

/// The content of a shard index.
#[derive(Deserialize, Debug)]
struct ShardIndex {
    /// The file that holds each tensor.
    weight_map: BTreeMap<String, String>,
    /// Free-form metadata.
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

fn read_index(path: &Path) -> Result<ShardIndex, OpenFault> {
    let meta = fs::metadata(path).map_err(OpenFault::Unreadable)?;
    if !meta.is_file() || meta.len() > MAX_INDEX_BYTES {
        let why = format!("expected a regular file of at most {MAX_INDEX_BYTES} bytes");
        return Err(OpenFault::BadIndex { why });
    }
    let text = fs::read_to_string(path).map_err(OpenFault::Unreadable)?;
    serde_json::from_str(&text).map_err(|why| OpenFault::BadIndex { why: why.to_string() })
}

fn open_shards(index_path: &Path, files: &OpenFiles) -> Result<ModelParts, Vec<OpenFault>> {
    let stem = stem(index_path);
    let index = read_index(index_path).map_err(|fault| vec![fault])?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let mut metadata: BTreeMap<String, String> = index
        .metadata
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    let (mut sources, mut table, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        if !is_shard_of(&stem, name) {
            faults.push(OpenFault::ForeignShard { shard: name.clone(), stem: stem.clone() });
            continue;
        }
        match open_file(&index_path.with_file_name(name), files) {
            Ok((source, header, data_start)) => {
                faults.extend(index_faults(&index, name, &header));
                faults.extend(merge_metadata(&mut metadata, header.metadata));
                table.extend(header.tensors.into_iter().map(|stored| TensorPlace {
                    offset: data_start + stored.offset,
                    spec: stored.spec,
                    file: sources.len(),
                }));
                sources.push(source);
            }
            Err(found) => faults.extend(
                found
                    .into_iter()
                    .map(|fault| OpenFault::Shard { shard: name.clone(), fault: Box::new(fault) }),
            ),
        }
    }
    if faults.is_empty() { Ok((sources, table, metadata)) } else { Err(faults) }
}

/// The faults where an index and the header of a shard disagree.
fn index_faults(index: &ShardIndex, shard: &str, header: &Header) -> Vec<OpenFault> {
    let held: HashSet<&str> = header.tensors.iter().map(|stored| stored.spec.name.as_str()).collect();
    let placed = |tensor: &str| index.weight_map.get(tensor).is_some_and(|file| file == shard);
    let missing = index
        .weight_map
        .iter()
        .filter(|(tensor, file)| *file == shard && !held.contains(tensor.as_str()))
        .map(|(tensor, _)| OpenFault::NotInShard { tensor: tensor.clone(), shard: shard.to_owned() });
    let extra =
        header.tensors.iter().filter(|stored| !placed(&stored.spec.name)).map(|stored| {
            OpenFault::NotInIndex { tensor: stored.spec.name.clone(), shard: shard.to_owned() }
        });
    missing.chain(extra).collect()
}

fn merge_metadata(all: &mut BTreeMap<String, String>, shard: BTreeMap<String, String>) -> Vec<OpenFault> {
    let mut faults = Vec::new();
    for (key, value) in shard {
        let known = all.entry(key.clone()).or_insert_with(|| value.clone());
        if *known != value {
            faults.push(OpenFault::ConflictingMetadata { key, one: known.clone(), other: value });
        }
    }
    faults
}
