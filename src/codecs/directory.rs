//! What an encoded update says of itself: its tensors, which vectors they were joined to, how each was encoded.
//!
//! The same in both layouts of the file: as JSON in the metadata of a plain one, as postcard at the end of a bundle,
//! where names may be left to the base.

use crate::codecs::coding::Coding;
use crate::codecs::{CHUNK, Extent, Invalid, Stream, Vector};
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// What `fedmill.format` says of an encoded update.
pub const FORMAT: &str = "fedmill-update/1";

/// The metadata key of the format.
pub const FORMAT_KEY: &str = "fedmill.format";

/// The metadata key of a plain file's directory.
pub const CODEC_KEY: &str = "fedmill.codec";

/// The one tensor of a bundle.
pub const BUNDLE: &str = "fedmill.bundle";

/// What an encoded update says of itself.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Directory {
    /// Its tensors, in the order of the model.
    pub tensors: Tensors,
    /// Its vectors. Each tensor is in one; all that no other names, in one that names none.
    pub parts: Vec<Part>,
    /// Metadata that is not in the header: all of a bundle's.
    pub metadata: Vec<(Key, String)>,
    /// How the BLAKE3 digest of the base begins, if the metadata does not say.
    pub base: Option<[u8; BASE_BYTES]>,
}

/// Bytes of the base's digest that a directory names it by.
pub const BASE_BYTES: usize = 16;

/// A metadata key: a word that is known by its number, or any other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// One of `KNOWN_KEYS`.
    Known(u8),
    /// Another.
    Named(String),
}

/// Keys that go by their number in a bundle. Appended to, never changed.
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
    /// The key of that name.
    pub fn of(name: &str) -> Self {
        match KNOWN_KEYS.iter().position(|known| *known == name) {
            Some(number) => Self::Known(number as u8),
            None => Self::Named(name.to_owned()),
        }
    }

    /// Its name.
    ///
    /// # Errors
    ///
    /// When it has a number that no word has.
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
    /// Name, dtype, shape.
    Here(Vec<(String, String, Vec<u64>)>),
    /// Those of the base, whose layout has this check sum.
    OfBase([u8; 4]),
}

/// A vector of an encoded update.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Part {
    /// How it is encoded.
    pub coding: Coding,
    /// The tensors that it is made of, by their number, ascending; none for all that are in no other part.
    pub tensors: Vec<u32>,
    /// Bytes that each chunk has in the stream of no known extent, if it has one.
    pub chunks: Vec<u32>,
}

/// A check sum of a layout.
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
    /// Those of a layout, written out.
    pub fn here(tensors: &[TensorSpec]) -> Self {
        let tensor = |spec: &TensorSpec| {
            let shape = spec.shape.iter().map(|extent| *extent as u64).collect();
            (spec.name.clone(), spec.dtype.to_string(), shape)
        };
        Self::Here(tensors.iter().map(tensor).collect())
    }

    /// The tensors that are meant.
    ///
    /// # Errors
    ///
    /// When one makes no sense, or it is the base's that are meant and `base` is another or none.
    pub fn resolve(&self, base: Option<&[TensorSpec]>) -> Result<Vec<TensorSpec>, Invalid> {
        match (self, base) {
            (Self::Here(tensors), _) => {
                let mut names = HashSet::new();
                if let Some((name, ..)) = tensors.iter().find(|(name, ..)| !names.insert(name)) {
                    return Err(Invalid(format!("tensor `{name}` stands twice in the directory")));
                }
                tensors.iter().map(resolve).collect()
            }
            (Self::OfBase(check), Some(base)) if layout_check(base) == *check => Ok(base.to_vec()),
            (Self::OfBase(_), Some(_)) => Err(Invalid::new(
                "it leaves the names of its tensors to its base, expected the base that it was made with",
            )),
            (Self::OfBase(_), None) => {
                Err(Invalid::new("it leaves the names of its tensors to its base, expected --base"))
            }
        }
    }
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

/// Where a stream begins among those of its kind, and how long it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartStreams {
    /// The vector.
    pub vector: Vector,
    /// Its streams.
    pub streams: Vec<Stream>,
}

impl Part {
    /// The vector and its streams, given the tensors of the update.
    ///
    /// # Errors
    ///
    /// When they cannot be encoded so.
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

    /// Bytes of its stream of no known extent.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunks.iter().map(|bytes| u64::from(*bytes)).sum()
    }
}

impl Stream {
    /// The tensor that it is in a file, behind a name.
    ///
    /// # Errors
    ///
    /// When it is too long.
    pub fn spec(&self, name: &str, chunk_bytes: u64) -> Result<TensorSpec, Invalid> {
        let name = format!("{name}{}", self.suffix);
        let shape = match &self.extent {
            Extent::Known(shape) => shape.clone(),
            Extent::Chunks => vec![usize::try_from(chunk_bytes).unwrap_or(usize::MAX)],
        };
        let len = shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
        let len = len.filter(|len| len.checked_mul(self.dtype.bytes()).is_some());
        let len = len.ok_or_else(|| Invalid(format!("stream `{name}` is too long")))?;
        Ok(TensorSpec { name, dtype: self.dtype, shape, len })
    }
}

impl Directory {
    /// Names the tensors of the part that names none, and checks that every tensor is in one part.
    ///
    /// # Errors
    ///
    /// When one is in none, or in two.
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

    /// As it stands at the end of a bundle: itself, and its length in four bytes.
    ///
    /// # Errors
    ///
    /// When it is longer than those can say.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Invalid> {
        let mut bytes = postcard::to_allocvec(self).map_err(|why| Invalid(why.to_string()))?;
        let len = u32::try_from(bytes.len()).map_err(|_| Invalid::new("directory is too long"))?;
        bytes.extend(len.to_le_bytes());
        Ok(bytes)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, without the length.
    ///
    /// # Errors
    ///
    /// When it is no directory, or something follows it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let not = |why: postcard::Error| Invalid(format!("directory is not understood: {why}"));
        let (directory, rest) = postcard::take_from_bytes(bytes).map_err(not)?;
        match rest {
            [] => Ok(directory),
            rest => Err(Invalid(format!("{} bytes follow the directory", rest.len()))),
        }
    }

    /// As it stands in the metadata of a plain file.
    ///
    /// # Errors
    ///
    /// When JSON cannot say it.
    pub fn to_json(&self) -> Result<String, Invalid> {
        serde_json::to_string(self).map_err(|why| Invalid(why.to_string()))
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    ///
    /// When it is no directory.
    pub fn from_json(text: &str) -> Result<Self, Invalid> {
        serde_json::from_str(text).map_err(|why| Invalid(format!("directory is not understood: {why}")))
    }
}
