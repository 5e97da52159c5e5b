//! Forecasts the bytes of an update by a codec, from the layout of the model alone.
//!
//! Most codecs need the same bytes whatever the values are. Two need a forecast: `topk` depends on where the largest
//! values are, and `ecsq` aims at bits a value or at an error, which a Gaussian needs about
//! `log2(1 / nmse) / 2 + 1/4` bits for (Gish and Pierce, 1968).

use crate::codecs::{Codec, Coding, Extent, ModelGoal, Seeds, Vector};
use crate::compress::auto::{HEADER_BYTES, PART_BYTES};
use crate::compress::parts;
use crate::kernels::lanes::Isa;
use crate::model::layout::TensorSpec;
use crate::model::sparsity::Sparsity;
use std::sync::Arc;

/// Bits a value by which the entropy of an even grid exceeds the least rate of a Gaussian.
const GRID_BITS: f64 = 0.254;

/// The bytes that an update by a codec needs, and which values it sends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Forecast {
    /// Bytes of the file; `None` if they depend on the values alone.
    pub bytes: Option<u64>,
    /// Which values of the update are sent.
    pub sparsity: Sparsity,
}

/// The forecast for an update with these tensors by a codec.
pub fn of(codec: &Arc<dyn Codec>, tensors: &[TensorSpec]) -> Forecast {
    let parts = parts::by_tensor(tensors, codec);
    let beside = HEADER_BYTES + PART_BYTES * parts.len() as u64;
    let (mut bytes, mut choices) = (Some(beside), Vec::new());
    for part in &parts {
        let more = match &part.codec {
            None => Some(part.tensors.iter().map(|tensor| tensors[*tensor].bytes() as u64).sum()),
            Some(codec) => {
                let (more, sparsity) = of_vector(codec.as_ref(), &part.vector);
                choices.push(sparsity);
                more
            }
        };
        bytes = bytes.zip(more).map(|(bytes, more)| bytes + more);
    }
    Forecast { bytes, sparsity: Sparsity::of_vectors(choices.into_iter()) }
}

/// The bytes of all streams of a vector, and which of its values are sent.
fn of_vector(codec: &dyn Codec, vector: &Vector) -> (Option<u64>, Sparsity) {
    let bits = match codec.model_goal() {
        Some(ModelGoal::Bits(bits)) => Some(bits),
        Some(ModelGoal::Nmse(nmse)) => Some((0.5 * (1.0 / nmse).log2()).max(0.0) + GRID_BITS),
        None => None,
    };
    if let Some(bits) = bits {
        return (Some((bits * vector.len as f64 / 8.0) as u64), Sparsity::Dense);
    }
    let encoder = codec.encoder(Isa::detect(), vector, Seeds { own: 0, shared: 0 });
    let coding: Coding = encoder.coding();
    let Some(scheme) = coding.scheme() else { return (None, Sparsity::Dense) };
    let bytes = scheme.streams(vector).ok().and_then(|streams| {
        let of = |extent: &Extent, width: usize| match extent {
            Extent::Known(shape) => Some((shape.iter().product::<usize>() * width) as u64),
            Extent::Chunks => Some(encoder.expected_bytes()).filter(|bytes| *bytes > 0),
        };
        streams.iter().map(|stream| of(&stream.extent, stream.dtype.bytes())).sum()
    });
    (bytes, scheme.sparsity(vector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs;
    use crate::model::dtype::Dtype;

    fn tensor(name: &str, shape: &[usize]) -> TensorSpec {
        let len = shape.iter().product();
        TensorSpec { name: name.to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), len }
    }

    fn forecast(codec: &str) -> Forecast {
        let tensors = [tensor("weight", &[200, 500]), tensor("bias", &[100])];
        of(&codecs::parse(codec).unwrap().into(), &tensors)
    }

    #[test]
    fn sizes_follow_from_the_layout() {
        let beside = HEADER_BYTES + 2 * PART_BYTES + 400;
        assert_eq!(forecast("f16").bytes, Some(200_000 + beside));
        assert_eq!(forecast("sign").bytes, Some(12_500 + beside));
        assert_eq!(forecast("ecsq:bits=2").bytes, Some(25_000 + beside));
        // A value of the least error that one bit of a Gaussian can have needs a quarter of a bit more.
        assert_eq!(forecast("ecsq:nmse=0.25").bytes, Some(15_675 + beside));
        assert_eq!(forecast("ecsq:step=0.1").bytes, None, "the step alone says nothing");
        let order =
            ["f16", "u8", "u4", "u2", "topk:fraction=0.01"].map(|codec| forecast(codec).bytes.unwrap());
        assert!(order.is_sorted_by(|more, less| more > less), "{order:?}");
    }

    #[test]
    fn choices_of_values_are_known() {
        assert_eq!(forecast("u8").sparsity, Sparsity::Dense);
        assert!(
            matches!(forecast("topk:fraction=0.1").sparsity, Sparsity::Own { codec: "topk", fraction } if fraction < 0.11)
        );
        assert!(matches!(forecast("randk:fraction=0.1").sparsity, Sparsity::Shared { codec: "randk", .. }));
    }
}
