//! The places of a model's tensors in its files.

use crate::io::model_file::{ENCODED, ModelFile, TensorPlace};
use crate::model::dtype::Dtype;
use std::sync::Arc;

/// A model and the places of a layout's tensors in it: a client, the base, a state tensor, the sums of a partial.
#[derive(Clone, Debug)]
pub struct Source {
    /// The model's files.
    pub model: Arc<ModelFile>,
    /// The place of each tensor, in the order of the layout.
    pub placement: Arc<Placement>,
}

/// The place of each tensor of a layout in one model's files, in the order of the layout.
pub type Placement = Vec<Place>;

/// The place of one tensor's values.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// First byte in it, behind the header.
    pub offset: u64,
    /// Dtype in the file.
    pub dtype: Dtype,
}

/// The index of the file of a tensor that an update lacks. [`ENCODED`] is another index of no file.
const ABSENT: usize = ENCODED - 1;

impl Place {
    /// The place of a tensor that the model does not hold and no pass reads.
    pub const NONE: Self = Self { file: ENCODED - 2, offset: 0, dtype: Dtype::F64 };

    /// The place of a tensor that an update lacks: it reads as the base's values, a delta as zeros.
    pub fn absent(dtype: Dtype) -> Self {
        Self { file: ABSENT, offset: 0, dtype }
    }

    /// Whether it is [`NONE`](Self::NONE): nothing may read it.
    pub fn is_none(&self) -> bool {
        self.file == Self::NONE.file
    }

    /// Whether the update lacks the tensor.
    pub fn is_absent(&self) -> bool {
        self.file == ABSENT
    }
}

impl From<&TensorPlace> for Place {
    fn from(place: &TensorPlace) -> Self {
        Self { file: place.file, offset: place.offset, dtype: place.spec.dtype }
    }
}
