//! One of the two models: its header as text, and its values in blocks.

use crate::codecs::CHUNK;
use crate::compress::patch::error::PatchError;
use crate::io::header::{Header, LENGTH_BYTES, StoredTensor};
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, TablePool, TensorPlace};
use crate::io::shard_index::is_index;
use crate::io::source::{OpenFiles, SourceFile};
use crate::model::dtype::Dtype;
use std::collections::HashMap;
use std::path::Path;

/// Bytes of values of a batch, at most, unless it is a single block.
const BATCH_BYTES: usize = 16 << 20;

/// A model in a file.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) file: SourceFile,
    /// The JSON of its header.
    pub(super) json: Vec<u8>,
    pub(super) header: Header,
}

/// A run of values of the new model that is coded alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) dtype: Dtype,
    /// First byte, counted from the end of the header.
    pub(super) start: u64,
    /// Bytes of its values.
    pub(super) bytes: usize,
    /// First byte of the old values, counted from the end of the old header; `None` stands for zeros.
    pub(super) old: Option<u64>,
}

impl Side {
    /// Opens a model and reads its header.
    ///
    /// # Errors
    ///
    /// When it is no safetensors file.
    pub(super) fn open(path: &Path, files: &OpenFiles) -> Result<Self, PatchError> {
        let mut model = open(path, files, &Limits::TRUSTED)?;
        let file = model.files.swap_remove(0);
        let mut json = vec![0; (file.place_of(0) - LENGTH_BYTES) as usize];
        file.read_exact_at(&mut json, LENGTH_BYTES).map_err(PatchError::reading(path))?;
        let tensor = |place: &TensorPlace| StoredTensor { spec: place.spec.clone(), offset: place.offset };
        let tensors = model.table.iter().map(tensor).collect();
        Ok(Self { file, json, header: Header { tensors, metadata: model.metadata } })
    }

    /// Reads the old values of a block.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(super) fn old_values(&self, block: &Block) -> Result<Vec<u8>, PatchError> {
        let mut old = vec![0; block.bytes];
        if let Some(offset) = block.old {
            let read = self.file.read_values_at(&mut old, offset);
            read.map_err(PatchError::reading(self.file.path()))?;
        }
        Ok(old)
    }

    /// The blocks of a model with these tensors, against this model, in the order of their data.
    pub(super) fn blocks<'a>(&'a self, new: &'a Header) -> impl Iterator<Item = Block> + 'a {
        let old: HashMap<&str, &StoredTensor> =
            self.header.tensors.iter().map(|tensor| (tensor.spec.name.as_str(), tensor)).collect();
        new.tensors.iter().flat_map(move |tensor| {
            let is_same = |old: &&&StoredTensor| old.spec == tensor.spec;
            let old = old.get(tensor.spec.name.as_str()).filter(is_same).map(|old| old.offset);
            let (dtype, bytes) = (tensor.spec.dtype, tensor.spec.bytes());
            let most = CHUNK * dtype.bytes();
            let offset = tensor.offset;
            (0..bytes).step_by(most).map(move |start| Block {
                dtype,
                start: offset + start as u64,
                bytes: most.min(bytes - start),
                old: old.map(|old| old + start as u64),
            })
        })
    }
}

/// Opens a safetensors file that is no index.
///
/// # Errors
///
/// When it is none.
pub(super) fn open(path: &Path, files: &OpenFiles, limits: &Limits) -> Result<ModelFile, PatchError> {
    if is_index(path) {
        return Err(PatchError::Shards { path: path.to_owned() });
    }
    let opened = ModelFile::open(path, files, &TablePool::default(), limits);
    opened.map_err(|faults| PatchError::Open { path: path.to_owned(), faults })
}

/// Calls `each` with the blocks in batches of about [`BATCH_BYTES`].
///
/// # Errors
///
/// The first error of `each`.
pub(super) fn in_batches<E>(
    blocks: impl Iterator<Item = Block>,
    mut each: impl FnMut(&[Block]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for block in blocks {
        if bytes + block.bytes > BATCH_BYTES && !batch.is_empty() {
            each(&batch)?;
            batch.clear();
            bytes = 0;
        }
        bytes += block.bytes;
        batch.push(block);
    }
    if batch.is_empty() { Ok(()) } else { each(&batch) }
}
