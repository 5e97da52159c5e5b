//! Encodings of updates, one file each: a vector of f32 to fewer bytes, and back.
//!
//! A codec has two halves. The encoding half knows the vector. A [`Codec`] makes an [`Encoder`], which looks at the
//! values as often as it needs (a [`Tally`] has the sums of a look), and then encodes them chunk by chunk. The decoding
//! half knows only the file. The [`Coding`] travels with the update; its [`Scheme`] names the streams of bytes and
//! decodes a run of values from its bytes of each. A chunk has [`CHUNK`] values and shares no byte with another chunk,
//! so any thread can decode any tile in place.
//!
//! The bytes come from clients, and some clients are hostile. A decoder checks everything, and never allocates memory
//! that only a claim in the file asks for.
//!
//! | where | what |
//! |---|---|
//! | [`codec`], [`tally`] | the encoding half: the traits [`Codec`] and [`Encoder`] |
//! | [`scheme`], [`coding`], [`wire`] | the decoding half: the trait [`Scheme`], and what a file holds |
//! | [`family`] | what help, docs and tests know of the codecs in a file |
//! | [`directory`], `count` | the table of contents of an encoded file |
//! | [`device`] | what a GPU may compute for an encoder or a decoder |
//! | [`compressed_tensors`] | the configuration for the library compressed-tensors |
//! | [`quantize`] | every value to a code of few bits |
//! | [`sparse`] | few values, and where they are |
//! | [`ecsq`] | entropy-coded integers |
//! | [`lowrank`], [`sketch`] | products of thin matrices, and sums of values |
//! | [`constant`], [`integers`] | chosen by the data, never by name |
//! | `packing` | codes to bytes, shared by codecs and by patches between models |
//! | `suite`, `trial` | tests of every codec in the registry, and what the tests of codecs share |
//!
//! To add a codec: its file, a line in `CODECS`, a variant of [`Coding`].

pub mod codec;
pub mod coding;
pub mod compressed_tensors;
pub mod constant;
mod count;
pub mod device;
pub mod directory;
pub mod ecsq;
pub mod family;
pub mod integers;
pub mod lowrank;
pub mod scheme;
pub mod sketch;
#[cfg(test)]
mod suite;
pub mod tally;
#[cfg(test)]
mod trial;
pub mod wire;

/// Every value to a code of few bits: 16-bit and 8-bit floats, even grids, signs, rotated blocks.
pub mod quantize {
    pub mod blocks;
    pub mod eden;
    pub mod fp8;
    pub mod half;
    mod lloyd_max;
    pub mod mxfp8;
    pub mod rounding;
    pub mod sign;
    pub mod symmetric;
    pub mod uniform;
}

/// Few values of a vector, and where they are: all others decode as zero.
pub mod sparse {
    pub mod kept_values;
    pub mod portion;
    pub mod randk;
    pub mod topk;
}

/// Codes and numbers as bytes: fixed and variable numbers of bits, entropy coding, checked floats.
pub(crate) mod packing {
    pub(crate) mod bit_stream;
    pub(crate) mod bits;
    pub(crate) mod floats;
    pub(crate) mod rans;
    pub(crate) mod rice;
}

pub use codec::{CHUNK, Codec, Encoder, ModelGoal, Seeds, Vector, chunks, settle};
pub use coding::Coding;
pub use device::Device;
pub use family::Family;
pub use scheme::{Extent, Invalid, Scheme, Stream};
pub use tally::Tally;

use crate::kernels::lanes::Isa;
use crate::settings::{self, SpecError};
use quantize::{eden, fp8, half, mxfp8, sign, symmetric, uniform};
use scheme::check_lengths;
use sparse::{randk, topk};

/// The codecs, a line for each file, in the order of help and messages.
pub const CODECS: &[&Family] = &[
    &half::FAMILY,
    &ecsq::FAMILY,
    &lowrank::FAMILY,
    &randk::FAMILY,
    &sign::FAMILY,
    &sketch::FAMILY,
    &topk::FAMILY,
    &uniform::FAMILY,
    &symmetric::FAMILY,
    &fp8::FAMILY,
    &mxfp8::FAMILY,
    &eden::FAMILY,
];

/// The codec that a text like `u8:block=128` names.
///
/// # Errors
///
/// When no codec has the name, or the codec does not take a setting or its value.
pub fn parse(text: &str) -> Result<Box<dyn Codec>, SpecError> {
    let table: Vec<_> = CODECS.iter().flat_map(|family| family.codecs).copied().collect();
    settings::parse("codec", text, &table)
}

/// The names of all codecs, as a list in a sentence.
pub fn names() -> String {
    CODECS.iter().map(|family| family.title()).collect::<Vec<_>>().join(", ")
}

/// A line for each family of codecs: names, what they send, and examples of settings.
pub fn lines() -> String {
    CODECS.iter().map(|family| format!("- {}", family.help())).collect::<Vec<_>>().join("\n")
}

/// The names of the codecs that a device can help.
pub fn with_shaders() -> String {
    titles(|name| parse(name).is_ok_and(|codec| codec.has_shaders()))
}

/// The families with a codec that suits, as a list in a sentence.
fn titles(suits: impl Fn(&str) -> bool) -> String {
    let families = CODECS.iter().filter(|family| family.names().any(&suits));
    families.map(|family| family.title()).collect::<Vec<_>>().join(", ")
}

/// The names of the codecs that a device decodes, with their default blocks.
pub fn decoded_on_device() -> String {
    titles(|name| parse(name).is_ok_and(|codec| decodes_on_device(&*codec)))
}

/// Whether a device decodes what this codec makes. It encodes it then too.
pub fn decodes_on_device(codec: &dyn Codec) -> bool {
    let (one, seeds) = (Vector { len: 1, shape: vec![1] }, Seeds { own: 0, shared: 0 });
    codec.has_shaders() && codec.encoder(Isa::detect(), &one, seeds).coding().decodes_on_device()
}

/// The codecs as `compress --table` tries them, as text.
pub fn tried() -> impl Iterator<Item = String> {
    CODECS.iter().flat_map(|family| family.tried())
}
