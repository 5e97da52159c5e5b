//! Which tensors become which vectors, and by which codec.

use crate::codecs::{Codec, Vector};
use crate::model::dtype::Kind;
use crate::model::layout::{Piece, TensorSpec};
use std::sync::Arc;

/// Tensors of fewer values are sent as they are: what a codec would need to say of them is as long.
const LEAST_ENCODED: usize = 256;

/// A vector that is to be encoded.
#[derive(Clone, Debug)]
pub(crate) struct PartPlan {
    /// The tensors that it is made of, by their number, ascending.
    pub(crate) tensors: Vec<usize>,
    /// The vector.
    pub(crate) vector: Vector,
    /// How; as it is if none.
    pub(crate) codec: Option<Arc<dyn Codec>>,
}

impl PartPlan {
    /// A vector of these tensors.
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
    /// The pieces of tensors that `len` values from `start` on are, in order, given how many values each tensor has.
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

/// Every tensor by itself, by one codec where that belongs.
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

/// Whether a tensor is encoded at all: not if it is of integers, so small that it makes no difference, or holds
/// variances, which must never become negative.
pub(crate) fn is_encoded(spec: &TensorSpec) -> bool {
    spec.dtype.kind() == Kind::Float
        && spec.len >= LEAST_ENCODED
        && !spec.shape.is_empty()
        && !is_variance(spec)
}

/// Whether a tensor holds running variances, as far as its name tells.
pub(crate) fn is_variance(spec: &TensorSpec) -> bool {
    ["running_var", "num_batches_tracked"].iter().any(|name| spec.name.contains(name))
}
