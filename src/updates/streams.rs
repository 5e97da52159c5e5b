//! Where the streams of an encoded update are in its file: in tensors, or in a bundle.

use crate::codecs::Invalid;
use crate::codecs::directory::{BUNDLE, Directory, Most};
use crate::io::model_file::TensorPlace;
use crate::io::source::SourceFile;
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use std::collections::HashMap;
use std::io;

/// Finds the bytes of one stream after another, and checks that no others are left.
pub(crate) trait StreamLayout {
    /// The file and first byte of a stream that would be the tensor `spec`.
    fn place(&mut self, spec: &TensorSpec) -> Result<(usize, u64), Invalid>;
    /// Checks that every byte belongs to a stream.
    fn finish(self) -> Result<(), Invalid>;
}

/// The plain layout: every stream is a tensor.
pub(crate) struct Plain<'a> {
    /// The tensors that belong to no stream found so far.
    pub(crate) stored: HashMap<&'a str, &'a TensorPlace>,
}

impl StreamLayout for Plain<'_> {
    fn place(&mut self, spec: &TensorSpec) -> Result<(usize, u64), Invalid> {
        let name = &spec.name;
        let place = self
            .stored
            .remove(name.as_str())
            .ok_or_else(|| Invalid(format!("tensor `{name}` is missing")))?;
        if (place.spec.dtype, &place.spec.shape) != (spec.dtype, &spec.shape) {
            let (found, shape) = (place.spec.dtype, &place.spec.shape);
            return Err(Invalid(format!(
                "tensor `{name}` is {found} {shape:?}, expected {} {:?}",
                spec.dtype, spec.shape
            )));
        }
        Ok((place.file, place.offset))
    }

    fn finish(self) -> Result<(), Invalid> {
        match self.stored.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Invalid(format!("tensor `{name}` belongs to none of its vectors"))),
        }
    }
}

/// The bundle: one tensor has all streams, one after another.
pub(crate) struct Bundle {
    /// First byte of the next stream.
    pub(crate) next: u64,
    /// End of the last stream.
    pub(crate) end: u64,
}

impl StreamLayout for Bundle {
    fn place(&mut self, spec: &TensorSpec) -> Result<(usize, u64), Invalid> {
        let offset = self.next;
        let end = offset.checked_add(spec.bytes() as u64).filter(|end| *end <= self.end);
        self.next = end.ok_or_else(|| Invalid(format!("the bytes of `{}` are missing", spec.name)))?;
        Ok((0, offset))
    }

    fn finish(self) -> Result<(), Invalid> {
        match self.end - self.next {
            0 => Ok(()),
            rest => Err(Invalid(format!("{rest} bytes belong to none of its vectors"))),
        }
    }
}

/// Reads the directory at the end of a bundle, if it has at most `most_bytes`. Returns it with the end of the streams.
pub(crate) fn read_directory(
    bundle: &TensorPlace,
    files: &[SourceFile],
    most_bytes: u64,
    most: Most,
) -> Result<(Directory, u64), Invalid> {
    let unreadable = |why: io::Error| Invalid(format!("its directory cannot be read: {why}"));
    if (bundle.spec.name.as_str(), bundle.spec.dtype) != (BUNDLE, Dtype::U8) {
        return Err(Invalid(format!("its tensor is `{}`, expected `{BUNDLE}`", bundle.spec.name)));
    }
    let bytes = bundle.spec.len as u64;
    let mut length = [0; 4];
    let end = bytes.checked_sub(4).ok_or_else(|| Invalid(format!("its bundle has {bytes} bytes")))?;
    files[bundle.file].read_values_at(&mut length, bundle.offset + end).map_err(unreadable)?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > most_bytes {
        return Err(Invalid(format!("its directory claims {length} bytes, expected at most {most_bytes}")));
    }
    let start = end.checked_sub(length);
    let start = start.ok_or_else(|| {
        Invalid(format!("its directory claims {length} bytes, but its bundle has {bytes} in all"))
    })?;
    let mut text = vec![0; length as usize];
    files[bundle.file].read_values_at(&mut text, bundle.offset + start).map_err(unreadable)?;
    Ok((Directory::from_bytes(&text, most)?, bundle.offset + start))
}
