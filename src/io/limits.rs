//! How much a file may ask for before anything is read or built for it.
//!
//! The sender of an update may be hostile: a few megabytes of header can describe millions of tensors, and 300 bytes
//! can encode 2^59 values. So each file is held against the layout that it should have.

use crate::model::layout::TensorSpec;
use std::fmt;

/// Bytes of a header or directory that every file may have.
const LEAST_BYTES: u64 = 64 << 10;
/// Further bytes for each tensor of the layout.
const BYTES_PER_TENSOR: u64 = 512;
/// Further bytes for each chunk of values: a directory lists the bytes of each chunk.
const BYTES_PER_CHUNK: u64 = 16;
/// Values of a chunk.
const CHUNK: usize = 1 << 16;
/// Tensors of a file for each tensor of the layout: an encoded tensor has several streams.
const TENSORS_PER_TENSOR: usize = 8;
/// Tensors of the layout up to which that holds. For each tensor beyond those, a file may have half of it.
const FULL_TENSORS: usize = 1 << 15;
/// Tensors that every file may have beyond those.
const LEAST_TENSORS: usize = 64;
/// Tensors of the largest layout of a run without a base.
const UNKNOWN_TENSORS: usize = 8192;
/// Decoded values for each value of the layout: control variates are as many.
const VALUES_PER_VALUE: usize = 2;
/// Decoded values that every update may have beyond those.
const LEAST_VALUES: usize = 1 << 16;
/// Decoded bytes for each byte of an update whose layout is not known.
const DECODED_PER_BYTE: u64 = 1024;
/// Decoded bytes that every such update may have.
const LEAST_DECODED: u64 = 64 << 20;

/// The most keys of a file's metadata.
pub const MAX_METADATA_KEYS: usize = 1024;
/// Bytes of the longest name of a tensor.
pub const MAX_NAME: usize = 1024;
/// The most axes of a tensor.
pub const MAX_AXES: usize = 64;

/// How much a file may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of its headers together, of its index, or of its directory.
    pub header_bytes: u64,
    /// Tensors that its headers or its directory list.
    pub tensors: usize,
    /// What an encoded update may decode to.
    pub decoded: Decoded,
}

/// The most that an encoded update may decode to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// This many values.
    Values(usize),
    /// This many bytes.
    Bytes(u64),
    /// A multiple of the file's bytes.
    OfFile,
}

impl Limits {
    /// For a file of the operator, such as a base. The `safetensors` crate has the same limit on headers.
    pub const TRUSTED: Self =
        Self { header_bytes: 100_000_000, tensors: usize::MAX, decoded: Decoded::Bytes(u64::MAX) };

    /// For a partial of a tree: its header names every client, and several sums of each tensor.
    pub const PARTIAL: Self = Self { header_bytes: 32 << 20, tensors: 1 << 18, decoded: Decoded::OfFile };

    /// For an update to compress: no layout bounds it, and a run keeps the list of its tensors several times.
    pub const TO_COMPRESS: Self =
        Self { header_bytes: 20 << 20, tensors: 1 << 17, decoded: Decoded::Bytes(u64::MAX) };

    /// For an update whose layout is not known before it is read.
    pub const UNKNOWN: Self = Self { decoded: Decoded::OfFile, ..Self::of(UNKNOWN_TENSORS, 0) };

    /// For an update that should have these tensors.
    pub fn of_layout<'a>(tensors: impl IntoIterator<Item = &'a TensorSpec>) -> Self {
        let lens = tensors.into_iter().map(|spec| spec.len);
        let (count, values) = lens.fold((0, 0usize), |(n, sum), len| (n + 1, sum.saturating_add(len)));
        Self::of(count, values)
    }

    /// Whether the file is the operator's.
    pub fn is_trusted(&self) -> bool {
        // The shards of a model use up its limits.
        self.tensors > Self::TRUSTED.tensors / 2
    }

    const fn of(tensors: usize, values: usize) -> Self {
        let chunks = (values / CHUNK) as u64;
        Self {
            header_bytes: LEAST_BYTES + BYTES_PER_TENSOR * tensors as u64 + BYTES_PER_CHUNK * chunks,
            tensors: LEAST_TENSORS
                + TENSORS_PER_TENSOR * (if tensors < FULL_TENSORS { tensors } else { FULL_TENSORS })
                + TENSORS_PER_TENSOR / 2 * tensors.saturating_sub(FULL_TENSORS),
            decoded: Decoded::Values(LEAST_VALUES.saturating_add(values.saturating_mul(VALUES_PER_VALUE))),
        }
    }
}

impl Decoded {
    /// Whether tensors may be decoded from a file of `file_bytes`.
    ///
    /// # Errors
    ///
    /// When they are too large together.
    pub fn check(self, tensors: &[TensorSpec], file_bytes: u64) -> Result<(), TooLarge> {
        let sum = |size: fn(&TensorSpec) -> usize| {
            tensors.iter().fold(0u64, |sum, spec| sum.saturating_add(size(spec) as u64))
        };
        let (found, most, unit) = match self {
            Self::Values(most) => (sum(|spec| spec.len), most as u64, "values"),
            Self::Bytes(most) => (sum(TensorSpec::bytes), most, "bytes"),
            Self::OfFile => {
                let most = LEAST_DECODED.max(file_bytes.saturating_mul(DECODED_PER_BYTE));
                (sum(TensorSpec::bytes), most, "bytes without its base")
            }
        };
        if found > most { Err(TooLarge { found, most, unit }) } else { Ok(()) }
    }
}

/// An update that would decode to too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge {
    found: u64,
    most: u64,
    unit: &'static str,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, most, unit } = self;
        write!(f, "it decodes to {found}, expected at most {most} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dtype::Dtype;

    #[test]
    fn limits_follow_the_layout() {
        let spec = |len: usize| TensorSpec { name: "w".to_owned(), dtype: Dtype::F32, shape: vec![len], len };
        let limits = Limits::of_layout(&[spec(64), spec(64)]);
        assert_eq!(limits.header_bytes, (64 << 10) + 2 * 512);
        assert!(limits.decoded.check(&[spec(128)], 0).is_ok());
        assert!(limits.decoded.check(&[spec(1 << 28)], 0).is_err());
        let why = Limits::UNKNOWN.decoded.check(&[spec(1 << 28)], 306).unwrap_err();
        assert_eq!(
            why.to_string(),
            "it decodes to 1073741824, expected at most 67108864 bytes without its base"
        );
        assert!(Limits::UNKNOWN.decoded.check(&[spec(1 << 28)], 1 << 20).is_ok());
        assert!(Limits::TRUSTED.decoded.check(&[spec(1 << 40)], 0).is_ok());
    }
}
