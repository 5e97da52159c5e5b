//! Maps the tensors of an update to vectors, and each vector to a codec.

use crate::codecs::{Codec, Vector};
use crate::model::class::is_variance_or_counter;
use crate::model::dtype::Kind;
use crate::model::layout::{Piece, TensorSpec};
use std::sync::Arc;

/// Tensors of fewer values are sent as they are: a codec's own bytes would outweigh the savings.
const LEAST_ENCODED: usize = 256;

/// A vector to encode, and its codec.
#[derive(Clone, Debug)]
pub(crate) struct PartPlan {
    /// The numbers of its tensors, ascending.
    pub(crate) tensors: Vec<usize>,
    /// The vector.
    pub(crate) vector: Vector,
    /// The codec; `None` sends the vector as it is.
    pub(crate) codec: Option<Arc<dyn Codec>>,
}

impl PartPlan {
    /// The vector of these tensors.
    pub(crate) fn new(tensors: Vec<usize>, all: &[TensorSpec], codec: Option<Arc<dyn Codec>>) -> Self {
        let len = tensors.iter().map(|tensor| all[*tensor].len).sum();
        let shape = match tensors[..] {
            [only] => all[only].shape.clone(),
            _ => vec![len],
        };
        Self { tensors, vector: Vector { len, shape }, codec }
    }
}

impl PartPlan {
    /// The pieces of tensors that make up `len` values from `start` on, in order. `len_of` has the values of each
    /// tensor.
    pub(crate) fn pieces<'a>(
        &'a self,
        start: usize,
        len: usize,
        len_of: impl Fn(usize) -> usize + 'a,
    ) -> impl Iterator<Item = Piece> + 'a {
        let mut first = 0;
        self.tensors.iter().filter_map(move |tensor| {
            let of = first..first + len_of(*tensor);
            first = of.end;
            let within = start.max(of.start)..(start + len).min(of.end);
            let piece = || Piece { tensor: *tensor, start: within.start - of.start, len: within.len() };
            (!within.is_empty()).then(piece)
        })
    }
}

/// Every tensor by itself, by one codec where it is worth it.
pub(crate) fn by_tensor(tensors: &[TensorSpec], codec: &Arc<dyn Codec>) -> Vec<PartPlan> {
    let part = |(number, spec): (usize, &TensorSpec)| {
        let codec = is_encoded(spec).then(|| Arc::clone(codec));
        PartPlan::new(vec![number], tensors, codec)
    };
    tensors.iter().enumerate().map(part).collect()
}

/// Every tensor by itself, as it is.
pub(crate) fn raw(tensors: &[TensorSpec]) -> Vec<PartPlan> {
    (0..tensors.len()).map(|number| PartPlan::new(vec![number], tensors, None)).collect()
}

/// Whether a named codec encodes a tensor. Integers, small tensors and variances are sent without loss; a variance must
/// never become negative.
pub(crate) fn is_encoded(spec: &TensorSpec) -> bool {
    spec.dtype.kind() == Kind::Float
        && spec.len >= LEAST_ENCODED
        && !spec.shape.is_empty()
        && !is_variance(spec)
}

/// Whether the name of a tensor is that of running variances or of a counter of batches.
pub(crate) fn is_variance(spec: &TensorSpec) -> bool {
    is_variance_or_counter(&spec.name)
}
