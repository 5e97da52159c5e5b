//! The directory of an encoded update: its tensors, its vectors, and the encoding of each.
//!
//! A plain file has it as JSON in the metadata. A bundle has it as postcard at its end, and may leave the names of its
//! tensors to the base.

use crate::codecs::coding::Coding;
use crate::codecs::count::Count;
use crate::codecs::{CHUNK, Extent, Invalid, Stream, Vector};
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The value of `fedmill.format` in an encoded update.
pub const FORMAT: &str = "fedmill-update/1";

/// The metadata key of the format.
pub const FORMAT_KEY: &str = "fedmill.format";

/// The metadata key of a plain file's directory.
pub const CODEC_KEY: &str = "fedmill.codec";

/// The name of a bundle's tensor.
pub const BUNDLE: &str = "fedmill.bundle";

/// The table of contents of an encoded update.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Directory {
    /// The tensors, in the order of the model.
    pub tensors: Tensors,
    /// The vectors. Each tensor is in one vector; one vector may list no tensors and has those that no other vector
    /// lists.
    pub parts: Vec<Part>,
    /// Metadata that the header does not have: all metadata of a bundle.
    pub metadata: Vec<(Key, String)>,
    /// The first bytes of the base's BLAKE3 digest; `None` if the metadata names the base, or without a base.
    pub base: Option<[u8; BASE_BYTES]>,
}

/// The most entries of a directory of metadata.
const MAX_METADATA: usize = 1024;

/// How much a directory may list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Most {
    /// Tensors that it lists itself.
    pub tensors: usize,
    /// Tensors of the base, for a directory that lists none; `None` without a base.
    pub of_base: Option<usize>,
}

/// A directory of which only the entries are counted.
#[derive(Deserialize)]
struct Counted {
    tensors: CountedTensors,
    parts: Count<Part>,
    metadata: Count<(Key, String)>,
    #[serde(rename = "base")]
    _base: Option<[u8; BASE_BYTES]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum CountedTensors {
    Here(Count<(String, String, Vec<u64>)>),
    OfBase(#[expect(dead_code, reason = "only lists are counted")] [u8; 4]),
}

impl Counted {
    fn check(&self, most: Most) -> Result<(), Invalid> {
        let tensors = match &self.tensors {
            CountedTensors::Here(count) => count.0,
            CountedTensors::OfBase(_) => most.of_base.ok_or_else(without_base)?,
        };
        let at_most = |found: usize, most: usize, what: &str| match found > most {
            true => Err(Invalid(format!("its directory lists {found} {what}, expected at most {most}"))),
            false => Ok(()),
        };
        at_most(tensors, most.tensors, "tensors")?;
        // Each part has at least one tensor, and no two share one.
        at_most(self.parts.0, tensors.max(1), "parts")?;
        at_most(self.metadata.0, MAX_METADATA, "metadata keys")
    }
}

/// Bytes of the base's digest in a directory.
pub const BASE_BYTES: usize = 16;

/// A metadata key: the number of a known key, or a name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The number of a key in `KNOWN_KEYS`.
    Known(u8),
    /// Any other key.
    Named(String),
}

/// Keys that a bundle replaces by their number. Append keys, never move one.
const KNOWN_KEYS: [&str; 9] = [
    "client_id",
    "num_examples",
    "local_steps",
    "round",
    "kind",
    "momentum",
    "proximal_mu",
    "local_lr",
    "loss",
];

impl Key {
    /// The key with a name.
    pub fn of(name: &str) -> Self {
        match KNOWN_KEYS.iter().position(|known| *known == name) {
            Some(number) => Self::Known(number as u8),
            None => Self::Named(name.to_owned()),
        }
    }

    /// The name of the key.
    ///
    /// # Errors
    ///
    /// When no key has the number.
    pub fn name(&self) -> Result<&str, Invalid> {
        match self {
            Self::Named(name) => Ok(name),
            Self::Known(number) => KNOWN_KEYS
                .get(usize::from(*number))
                .copied()
                .ok_or_else(|| Invalid(format!("metadata has a key of number {number}"))),
        }
    }
}

/// The tensors of an encoded update.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Tensors {
    /// Name, dtype and shape of each.
    Here(Vec<(String, String, Vec<u64>)>),
    /// The tensors of the base with this checksum of its layout.
    OfBase([u8; 4]),
}

/// A vector of an encoded update.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Part {
    /// The encoding.
    pub coding: Coding,
    /// The numbers of its tensors, ascending; empty for all tensors that no other vector lists.
    pub tensors: Vec<u32>,
    /// Bytes of each chunk in the stream of unknown extent; empty without such a stream.
    pub chunks: Vec<u32>,
}

/// A checksum of a layout: 4 bytes over names, dtypes and shapes.
pub fn layout_check(tensors: &[TensorSpec]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors {
        hasher.update(format!("{} {} {:?}\n", tensor.name, tensor.dtype, tensor.shape).as_bytes());
    }
    let mut check = [0; 4];
    hasher.finalize_xof().fill(&mut check);
    check
}

impl Tensors {
    /// The tensors of a layout, with their names.
    pub fn here(tensors: &[TensorSpec]) -> Self {
        let tensor = |spec: &TensorSpec| {
            let shape = spec.shape.iter().map(|extent| *extent as u64).collect();
            (spec.name.clone(), spec.dtype.to_string(), shape)
        };
        Self::Here(tensors.iter().map(tensor).collect())
    }

    /// The tensors, where `base` has those of the base.
    ///
    /// # Errors
    ///
    /// When a name, dtype or shape is invalid, or the layout of `base` has another checksum or is missing.
    pub fn resolve(&self, base: Option<&[TensorSpec]>) -> Result<Vec<TensorSpec>, Invalid> {
        match (self, base) {
            (Self::Here(tensors), _) => {
                let mut names = HashSet::new();
                if let Some((name, ..)) = tensors.iter().find(|(name, ..)| !names.insert(name)) {
                    return Err(Invalid(format!("tensor `{name}` appears twice in the directory")));
                }
                tensors.iter().map(resolve).collect()
            }
            (Self::OfBase(check), Some(base)) if layout_check(base) == *check => Ok(base.to_vec()),
            (Self::OfBase(_), Some(_)) => Err(Invalid::new(
                "it leaves the names of its tensors to its base, expected the base that it was made with",
            )),
            (Self::OfBase(_), None) => Err(without_base()),
        }
    }
}

fn without_base() -> Invalid {
    Invalid::new("it leaves the names of its tensors to its base, expected --base")
}

fn resolve((name, dtype, shape): &(String, String, Vec<u64>)) -> Result<TensorSpec, Invalid> {
    let known = Dtype::ALL.into_iter().find(|known| known.to_string() == *dtype);
    let dtype = known.ok_or_else(|| Invalid(format!("tensor `{name}`: dtype `{dtype}` is not known")))?;
    let too_large = || Invalid(format!("tensor `{name}`: shape {shape:?} has too many values"));
    let shape: Vec<usize> = shape
        .iter()
        .map(|extent| usize::try_from(*extent).map_err(|_| too_large()))
        .collect::<Result<_, _>>()?;
    let len = shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
    let len = len.filter(|len| len.checked_mul(8).is_some()).ok_or_else(too_large)?;
    Ok(TensorSpec { name: name.clone(), dtype, shape, len })
}

/// A vector of the update, and its streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartStreams {
    /// The vector.
    pub vector: Vector,
    /// Its streams.
    pub streams: Vec<Stream>,
}

impl Part {
    /// The vector and its streams, where `tensors` has all tensors of the update.
    ///
    /// # Errors
    ///
    /// When no encoder makes such a vector.
    pub fn streams(&self, tensors: &[TensorSpec]) -> Result<PartStreams, Invalid> {
        let mut len = 0usize;
        let mut last = None;
        for number in &self.tensors {
            let spec = tensors.get(*number as usize).ok_or_else(|| Invalid(format!("no tensor {number}")))?;
            if last.is_some_and(|last| last >= *number) {
                return Err(Invalid::new("tensors of a part are not in ascending order"));
            }
            last = Some(*number);
            len = len.checked_add(spec.len).ok_or_else(|| Invalid::new("part has too many values"))?;
        }
        let only = match self.tensors[..] {
            [] => return Err(Invalid::new("part without a tensor")),
            [only] => Some(&tensors[only as usize]),
            _ => None,
        };
        let vector = Vector { len, shape: only.map_or(vec![len], |spec| spec.shape.clone()) };
        let streams = match (self.coding.scheme(), only) {
            (None, Some(spec)) => {
                vec![Stream { suffix: "", dtype: spec.dtype, extent: Extent::Known(spec.shape.clone()) }]
            }
            (None, None) => return Err(Invalid::new("several tensors stand raw in one part")),
            (Some(_), _) if len == 0 => return Err(Invalid::new("part without values is encoded")),
            (Some(scheme), _) => scheme.streams(&vector)?,
        };
        let of_chunks = streams.iter().any(|stream| stream.extent == Extent::Chunks);
        let expected = if of_chunks { len.div_ceil(CHUNK) } else { 0 };
        match self.chunks.len() == expected {
            true => Ok(PartStreams { vector, streams }),
            false => Err(Invalid(format!("directory has {} chunks, expected {expected}", self.chunks.len()))),
        }
    }

    /// Bytes of the stream of unknown extent.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunks.iter().map(|bytes| u64::from(*bytes)).sum()
    }
}

impl Directory {
    /// Lists the tensors of the vector that lists none, and checks that every tensor is in one vector.
    ///
    /// # Errors
    ///
    /// When a tensor is in no vector, or in two.
    pub fn name_the_rest(&mut self, tensors: usize) -> Result<(), Invalid> {
        let mut seen = vec![false; tensors];
        for number in self.parts.iter().flat_map(|part| &part.tensors) {
            match seen.get_mut(*number as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(Invalid(format!("tensor {number} is in two parts, or in none of the model")));
                }
            }
        }
        let rest: Vec<u32> =
            (0u32..).zip(&seen).filter(|(_, seen)| !**seen).map(|(number, _)| number).collect();
        match (self.parts.iter_mut().find(|part| part.tensors.is_empty()), rest.first()) {
            (Some(part), Some(_)) => part.tensors = rest,
            (None, Some(missing)) => return Err(Invalid(format!("tensor {missing} is in no part"))),
            (_, None) => {}
        }
        Ok(())
    }

    /// The bytes at the end of a bundle: the directory, and its length in four bytes.
    ///
    /// # Errors
    ///
    /// When the length does not fit four bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Invalid> {
        let mut bytes = postcard::to_allocvec(self).map_err(|why| Invalid(why.to_string()))?;
        let len = u32::try_from(bytes.len()).map_err(|_| Invalid::new("directory is too long"))?;
        bytes.extend(len.to_le_bytes());
        Ok(bytes)
    }

    /// Reads the bytes of [`to_bytes`](Self::to_bytes), without the length.
    ///
    /// # Errors
    ///
    /// When the bytes are not a directory, list more than allowed, or more bytes follow them.
    pub fn from_bytes(bytes: &[u8], most: Most) -> Result<Self, Invalid> {
        let not = |why: postcard::Error| Invalid(format!("directory is not understood: {why}"));
        let (counted, _) = postcard::take_from_bytes::<Counted>(bytes).map_err(not)?;
        counted.check(most)?;
        let (directory, rest) = postcard::take_from_bytes(bytes).map_err(not)?;
        match rest {
            [] => Ok(directory),
            rest => Err(Invalid(format!("{} bytes follow the directory", rest.len()))),
        }
    }

    /// The text in the metadata of a plain file.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, Invalid> {
        serde_json::to_string(self).map_err(|why| Invalid(why.to_string()))
    }

    /// Reads the text of [`to_json`](Self::to_json).
    ///
    /// # Errors
    ///
    /// When the text is not a directory, or lists more than allowed.
    pub fn from_json(text: &str, most: Most) -> Result<Self, Invalid> {
        let not = |why: serde_json::Error| Invalid(format!("directory is not understood: {why}"));
        serde_json::from_str::<Counted>(text).map_err(not)?.check(most)?;
        serde_json::from_str(text).map_err(not)
    }
}
