//! `const`: vectors of which all values are the same. Chosen where it belongs, never by name.

use crate::codecs::wire::Bits;
use crate::codecs::{Invalid, Scheme, Stream, Vector};
use crate::kernels::lanes::Isa;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The value.
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
