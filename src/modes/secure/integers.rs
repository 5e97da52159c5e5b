//! A file of integers: one I64 tensor for each tensor that the lanes of a session hold.

use crate::io::model_writer::ModelWriter;
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::modes::secure::manifest::SessionTerms;
use crate::parties::error::SecureError;
use crate::parties::tensors::Held;
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
    pub fn write(&self, first: usize, integers: impl Iterator<Item = i64>) -> Result<(), SecureError> {
        let bytes: Vec<u8> = integers.flat_map(i64::to_le_bytes).collect();
        let range = first..first + bytes.len() / size_of::<i64>();
        Ok(self.writer.write(self.layout.pieces(range), &bytes)?)
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
