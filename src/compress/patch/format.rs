//! The layout of a patch file.
//!
//! | tensor | content |
//! |---|---|
//! | `blocks`, U32 | the coded bytes of each block of the new model, in the order of its data |
//! | `header`, U8 | the part of the new header's JSON between what it shares with the old one's start and end |
//! | `data`, U8 | the coded blocks, one after the other |
//!
//! The metadata names both models, with their sizes.

use crate::codecs::Invalid;
use crate::compress::patch::error::PatchError;
use crate::compress::patch::side::{self, Side};
use crate::io::digest::seal;
use crate::io::header::{Header, LENGTH_BYTES};
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, OpenFault, TensorPlace};
use crate::io::model_writer::header_bytes;
use crate::io::source::{OpenFiles, SourceFile};
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use std::collections::BTreeMap;
use std::path::Path;

/// The value of [`FORMAT_KEY`].
pub(super) const FORMAT: &str = "fedmill.patch/1";
/// The metadata key of the format.
const FORMAT_KEY: &str = "fedmill.patch";
/// The metadata keys of the digests and the sizes in bytes of the old and the new model.
const DIGEST_KEYS: [&str; 2] = ["fedmill.patch.base", "fedmill.patch.model"];
const BYTES_KEYS: [&str; 2] = ["fedmill.patch.base_bytes", "fedmill.patch.model_bytes"];
/// The metadata key of the bytes that the new header shares with the start and the end of the old one.
const SHARED_KEYS: [&str; 2] = ["fedmill.patch.header_start", "fedmill.patch.header_end"];

/// Bytes of a patch's own header, at most.
const HEADER_BYTES: u64 = 64 << 10;

/// Whether the file at `path` says that it is a patch.
pub fn is_patch(path: &Path) -> bool {
    let opened = side::open(path, &OpenFiles::raise_limit(), &LIMITS);
    opened.is_ok_and(|model| model.metadata.contains_key(FORMAT_KEY))
}

/// How much a patch may ask for before it is read.
const LIMITS: Limits = Limits { header_bytes: HEADER_BYTES, tensors: 3, ..Limits::UNKNOWN };

/// What a patch says of the two models.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    /// BLAKE3 digests of the old and the new model, in hex.
    pub(super) digests: [String; 2],
    /// Bytes of the old and the new model.
    pub(super) bytes: [u64; 2],
    /// Bytes that the new header shares with the start and the end of the old one.
    pub(super) shared: [u64; 2],
}

impl Terms {
    /// The header of a patch, with room for its digest.
    pub(super) fn header(&self, blocks: u64, header: u64, data: u64) -> Vec<u8> {
        let mut metadata = BTreeMap::from([(FORMAT_KEY.to_owned(), FORMAT.to_owned())]);
        let digests = DIGEST_KEYS.into_iter().zip(self.digests.iter().map(|hex| format!("blake3:{hex}")));
        let numbers = BYTES_KEYS.into_iter().zip(self.bytes).chain(SHARED_KEYS.into_iter().zip(self.shared));
        let numbers = numbers.map(|(key, number)| (key, number.to_string()));
        metadata.extend(digests.chain(numbers).map(|(key, value)| (key.to_owned(), value)));
        let spec = |name: &str, dtype, len: u64| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            TensorSpec { name: name.to_owned(), dtype, shape: vec![len], len }
        };
        let tensors = [
            spec("blocks", Dtype::U32, blocks),
            spec("header", Dtype::U8, header),
            spec("data", Dtype::U8, data),
        ];
        header_bytes(&tensors, &seal::with_room(metadata))
    }

    fn of(metadata: &BTreeMap<String, String>) -> Result<Self, Invalid> {
        let text =
            |key: &str| metadata.get(key).ok_or_else(|| Invalid(format!("metadata `{key}` is missing")));
        let number = |key: &str| {
            let found = text(key)?;
            found
                .parse::<u64>()
                .map_err(|_| Invalid(format!("metadata `{key}` is `{found}`, expected a number")))
        };
        let digest = |key: &str| {
            let found = text(key)?;
            let is_hex = |hex: &&str| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            let hex = found.strip_prefix("blake3:").filter(is_hex);
            hex.map(str::to_owned)
                .ok_or_else(|| Invalid(format!("metadata `{key}` is `{found}`, expected a digest by blake3")))
        };
        Ok(Self {
            digests: [digest(DIGEST_KEYS[0])?, digest(DIGEST_KEYS[1])?],
            bytes: [number(BYTES_KEYS[0])?, number(BYTES_KEYS[1])?],
            shared: [number(SHARED_KEYS[0])?, number(SHARED_KEYS[1])?],
        })
    }
}

/// A patch whose header is read, and whose digest is checked.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) file: SourceFile,
    pub(super) terms: Terms,
    /// The places of `blocks`, `header` and `data`.
    pub(super) blocks: Place,
    header: Place,
    pub(super) data: Place,
}

/// A tensor of a patch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// First byte, counted from the end of the file's header.
    pub(super) start: u64,
    /// Bytes of its values.
    pub(super) bytes: u64,
}

impl Patch {
    /// Opens a patch and checks its digest.
    ///
    /// # Errors
    ///
    /// When it is none, or damaged.
    pub(super) fn open(path: &Path, files: &OpenFiles) -> Result<Self, PatchError> {
        let model = side::open(path, files, &LIMITS)?;
        match model.metadata.get(FORMAT_KEY) {
            None => return Err(PatchError::NotAPatch { path: path.to_owned() }),
            Some(found) if found != FORMAT => {
                let (path, found) = (path.to_owned(), found.clone());
                return Err(PatchError::OtherFormat { path, found, expected: FORMAT });
            }
            Some(_) => {}
        }
        let damaged = |fault: OpenFault| PatchError::Open { path: path.to_owned(), faults: fault.into() };
        if !seal::check(&model).map_err(damaged)? {
            return Err(damaged(OpenFault::NoDigest));
        }
        Self::of(model).map_err(PatchError::invalid(path))
    }

    fn of(mut model: ModelFile) -> Result<Self, Invalid> {
        let place = |name: &str, dtype| {
            let is_it = |place: &&TensorPlace| {
                place.spec.name == name && place.spec.dtype == dtype && place.spec.shape.len() == 1
            };
            let found = model.table.iter().find(is_it);
            let found = found.ok_or_else(|| Invalid(format!("tensor `{name}` of {dtype} is missing")))?;
            Ok(Place { start: found.offset, bytes: found.spec.bytes() as u64 })
        };
        let (blocks, header) = (place("blocks", Dtype::U32)?, place("header", Dtype::U8)?);
        let data = place("data", Dtype::U8)?;
        let terms = Terms::of(&model.metadata)?;
        Ok(Self { file: model.files.swap_remove(0), terms, blocks, header, data })
    }

    /// The header of the new model: its JSON, and what that says.
    ///
    /// # Errors
    ///
    /// When the patch cannot be read, or names no header that the base and the patch hold.
    pub(super) fn new_header(&self, old: &Side) -> Result<(Vec<u8>, Header), PatchError> {
        let path = self.file.path();
        let [start, end] = self.terms.shared.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let len = old.json.len();
        if start.checked_add(end).is_none_or(|shared| shared > len) {
            let why = format!("header shares {start} and {end} bytes with one of {len}");
            return Err(PatchError::invalid(path)(Invalid(why)));
        }
        let mut json = old.json[..start].to_vec();
        json.resize(start + self.header.bytes as usize, 0);
        let read = self.file.read_values_at(&mut json[start..], self.header.start);
        read.map_err(PatchError::reading(path))?;
        json.extend_from_slice(&old.json[len - end..]);
        let data = self.terms.bytes[1].checked_sub(LENGTH_BYTES + json.len() as u64);
        let data = data.ok_or_else(|| Invalid::new("the new model has fewer bytes than its header"));
        let header = Header::parse(&json, data.map_err(PatchError::invalid(path))?, &Limits::TRUSTED);
        let header = header.map_err(|faults| Invalid(format!("header of the new model: {faults}")));
        Ok((json, header.map_err(PatchError::invalid(path))?))
    }

    /// Reads the coded bytes of `count` blocks from number `first` on, which start at byte `place`.
    ///
    /// # Errors
    ///
    /// When the patch cannot be read, or holds fewer.
    pub(super) fn coded(&self, count: usize, first: u64, place: u64) -> Result<Coded, PatchError> {
        let path = self.file.path();
        let end = 4 * (first + count as u64);
        if end > self.blocks.bytes {
            let why = format!("found {} blocks, expected more", self.blocks.bytes / 4);
            return Err(PatchError::invalid(path)(Invalid(why)));
        }
        let mut lens = vec![0; 4 * count];
        let read = self.file.read_values_at(&mut lens, self.blocks.start + 4 * first);
        read.map_err(PatchError::reading(path))?;
        let lens: Vec<usize> =
            lens.as_chunks().0.iter().map(|len| u32::from_le_bytes(*len) as usize).collect();
        let total = lens.iter().map(|len| *len as u64).sum::<u64>();
        if total > self.data.bytes - place {
            let why =
                format!("blocks have {total} bytes, but the patch has only {} more", self.data.bytes - place);
            return Err(PatchError::invalid(path)(Invalid(why)));
        }
        let mut bytes = vec![0; total as usize];
        let read = self.file.read_values_at(&mut bytes, self.data.start + place);
        read.map_err(PatchError::reading(path))?;
        Ok(Coded { lens, bytes })
    }
}

/// The coded bytes of a batch of blocks.
#[derive(Debug)]
pub(super) struct Coded {
    /// Bytes of each block.
    pub(super) lens: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}
