//! Sums of integers on all threads, and a file of them.
//!
//! The file has one I64 tensor for each tensor that the lanes of a session hold.

use crate::io::model_writer::ModelWriter;
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::modes::secure::manifest::SessionTerms;
use crate::parties::error::SecureError;
use crate::parties::grid::Grid;
use crate::parties::tensors::Held;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// A file of integers that is being written.
#[derive(Debug)]
pub struct IntegersWriter {
    writer: ModelWriter,
    layout: Layout,
}

impl IntegersWriter {
    /// Starts a file that only its owner may read.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: &Path, terms: &SessionTerms) -> Result<Self, SecureError> {
        let held = terms.tensors.iter().filter(|tensor| tensor.held != Held::Nothing);
        let specs = held.filter_map(|tensor| Some(TensorSpec { dtype: Dtype::I64, ..tensor.spec()? }));
        let layout = Layout::new(specs.collect());
        let writer = ModelWriter::create_private(path, &layout, &BTreeMap::new())?;
        Ok(Self { writer, layout })
    }

    /// Writes the integers of values from `first` on, in the order of lanes.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&self, first: usize, integers: &[i64]) -> Result<(), SecureError> {
        let range = first..first + integers.len();
        Ok(self.writer.write(self.layout.pieces(range), &bytes_of(integers))?)
    }

    /// Gives the file its name, on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish(self) -> Result<(), SecureError> {
        self.writer.sync()?;
        Ok(self.writer.publish()?)
    }
}

/// Integers that a thread converts at once.
const PART: usize = 1 << 15;

/// The sums of integers in lanes; the last lane may hold fewer.
pub fn unpack(grid: Grid, lanes: &[u32], sums: &mut [i64]) {
    let parts = sums.par_chunks_mut(PART * grid.per_lane as usize).zip(lanes.par_chunks(PART));
    parts.for_each(|(sums, lanes)| grid.unpack(lanes, sums));
}

/// The bytes of integers in a file.
pub fn bytes_of(integers: &[i64]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(integers)),
        false => Cow::Owned(integers.iter().flat_map(|integer| integer.to_le_bytes()).collect()),
    }
}

/// The bytes of integers times a factor, as F64 or else as F32.
pub fn values_of(integers: &[i64], factor: f64, dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F64 => encode(integers, |integer| (integer as f64 * factor).to_le_bytes()),
        _ => encode(integers, |integer| ((integer as f64 * factor) as f32).to_le_bytes()),
    }
}

fn encode<const BYTES: usize>(integers: &[i64], encode: impl Fn(i64) -> [u8; BYTES] + Sync) -> Vec<u8> {
    let mut bytes = vec![[0; BYTES]; integers.len()];
    let parts = bytes.par_chunks_mut(PART).zip(integers.par_chunks(PART));
    parts.for_each(|(bytes, integers)| {
        bytes.iter_mut().zip(integers).for_each(|(bytes, integer)| *bytes = encode(*integer));
    });
    bytes.into_flattened()
}
