//! Encodings of updates, one file each: a vector of f32 to fewer bytes, and back.
//!
//! A codec has two halves. The encoding half knows the vector. A [`Codec`] makes an [`Encoder`], which looks at the values
//! as often as it needs (a [`Tally`] has the sums of a look), and then encodes them chunk by chunk. The decoding half knows
//! only the file. The [`Coding`] travels with the update; its [`Scheme`] names the streams of bytes and decodes a run of
//! values from its bytes of each. A chunk has [`CHUNK`] values and shares no byte with another chunk, so any thread can
//! decode any tile in place.
//!
//! The bytes come from clients, and some clients are hostile. A decoder checks everything, and never allocates memory that only
//! a claim in the file asks for.
//!
//! | where | what |
//! |---|---|
//! | [`codec`], [`tally`] | the encoding half: the traits [`Codec`] and [`Encoder`] |
//! | [`scheme`], [`coding`], [`wire`] | the decoding half: the trait [`Scheme`], and what travels |
//! | [`directory`] | the table of contents of an encoded file |
//! | [`device`] | what a GPU may compute for an encoder |
//! | [`compressed_tensors`] | the configuration for the library compressed-tensors |
//! | [`quantize`] | every value to a code of few bits |
//! | [`sparse`] | few values, and where they are |
//! | [`ecsq`] | entropy-coded integers |
//! | [`lowrank`], [`sketch`] | products of thin matrices, and sums of values |
//! | [`constant`], [`integers`] | chosen by the data, never by name |
//! | `packing` | codes to bytes, shared by codecs |
//! | `trial` | what the tests of codecs share |
//!
//! To add a codec: its file, a line in `CODECS`, a variant of [`Coding`].

pub mod codec;
pub mod coding;
pub mod compressed_tensors;
pub mod constant;
pub mod device;
pub mod directory;
pub mod ecsq;
pub mod integers;
pub mod lowrank;
pub mod scheme;
pub mod sketch;
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
mod packing {
    pub(crate) mod bit_stream;
    pub(crate) mod bits;
    pub(crate) mod floats;
    pub(crate) mod rans;
    pub(crate) mod rice;
}

pub use codec::{CHUNK, Codec, Encoder, ModelGoal, Seeds, Vector, chunks, settle};
pub use coding::Coding;
pub use device::Device;
pub use scheme::{Extent, Invalid, Scheme, Stream};
pub use tally::Tally;

use crate::settings::{self, Parse, SpecError};
use quantize::{eden, fp8, half, mxfp8, sign, symmetric, uniform};
use scheme::check_lengths;
use sparse::{randk, topk};

/// The codecs that can be named, and how each is made from its settings.
const CODECS: &[(&str, Parse<Box<dyn Codec>>)] = &[
    ("f16", half::f16),
    ("bf16", half::bf16),
    ("ecsq", ecsq::parse),
    ("lowrank", lowrank::parse),
    ("randk", randk::parse),
    ("sign", sign::parse),
    ("sketch", sketch::parse),
    ("topk", topk::parse),
    ("u1", uniform::parse::<1>),
    ("u2", uniform::parse::<2>),
    ("u3", uniform::parse::<3>),
    ("u4", uniform::parse::<4>),
    ("u5", uniform::parse::<5>),
    ("u6", uniform::parse::<6>),
    ("u7", uniform::parse::<7>),
    ("u8", uniform::parse::<8>),
    ("i2", symmetric::parse::<2>),
    ("i3", symmetric::parse::<3>),
    ("i4", symmetric::parse::<4>),
    ("i5", symmetric::parse::<5>),
    ("i6", symmetric::parse::<6>),
    ("i7", symmetric::parse::<7>),
    ("i8", symmetric::parse::<8>),
    ("e4m3", fp8::parse),
    ("mxfp8", mxfp8::parse),
    ("eden1", eden::parse::<1>),
    ("eden2", eden::parse::<2>),
    ("eden3", eden::parse::<3>),
    ("eden4", eden::parse::<4>),
    ("eden5", eden::parse::<5>),
    ("eden6", eden::parse::<6>),
    ("eden7", eden::parse::<7>),
    ("eden8", eden::parse::<8>),
];

/// The codec that a text like `u8:block=128` names.
///
/// # Errors
///
/// When it names none, or a setting makes no sense.
pub fn parse(text: &str) -> Result<Box<dyn Codec>, SpecError> {
    settings::parse("codec", text, CODECS)
}

/// The names that can be given.
pub fn names() -> impl Iterator<Item = &'static str> {
    CODECS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_codecs_and_back() {
        for text in [
            "f16",
            "bf16",
            "u8:block=128",
            "u4:block=64",
            "u8:block=0,rounding=stochastic",
            "u2:per=channel",
            "i8:block=128",
            "i4:per=channel,rounding=stochastic",
            "e4m3:block=0",
            "e4m3:per=channel,as=f8",
            "mxfp8",
            "mxfp8:scale=floor",
            "eden1:block=4096,scale=unbiased",
            "eden8:block=256,scale=min-error",
        ] {
            let codec = parse(text).unwrap();
            assert_eq!(codec.to_string(), text);
        }
        for text in [
            "topk:k=100,values=u8",
            "randk:fraction=0.1,scale=inverse,values=f16",
            "sign",
            "sketch:rows=3,columns=100,k=7",
            "lowrank:rank=2",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert!(parse("u9").is_err());
        assert!(parse("u8:block=100").is_err());
        assert!(parse("f16:block=1").is_err());
        assert!(parse("i1").is_err());
        assert!(parse("i4:block=64,per=channel").is_err());
    }
}
