//! `const`: a vector whose values are all equal.
//!
//! Compress chooses it by the data; it has no name for users.

use crate::codecs::wire::Bits;
use crate::codecs::{Invalid, Scheme, Stream, Vector};
use crate::kernels::lanes::Isa;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The value of every place.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Constant(pub Bits);

impl Scheme for Constant {
    fn streams(&self, _vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        Ok(Vec::new())
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, _values: Range<usize>) -> Range<usize> {
        0..0
    }

    fn decode(
        &self,
        _isa: Isa,
        _vector: &Vector,
        _start: usize,
        _streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        out.fill(self.0.0);
        Ok(())
    }
}
