//! Small integers without loss: zigzag, then seven bits per byte.
//!
//! Compress chooses them for counters of batches in small files; they have no name for users.

use crate::codecs::packing::bit_stream::{folded, unfolded};
use crate::codecs::{Codec, Coding, Encoder, Extent, Invalid, Scheme, Seeds, Stream, Vector};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Integers from `-LARGEST` to `LARGEST`; f32 holds each of them exactly.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Integers {}

/// The largest magnitude.
pub const LARGEST: f32 = 16_777_215.0;

/// Bytes of an integer, at most.
const MOST_BYTES: u32 = 4;

impl fmt::Display for Integers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("integers")
    }
}

impl Codec for Integers {
    fn encoder(&self, _isa: Isa, _vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn is_unbiased(&self) -> bool {
        true
    }
}

impl Encoder for Integers {
    fn coding(&self) -> Coding {
        Coding::Integers(self.clone())
    }

    fn encode(&self, _start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let mut bytes = Vec::with_capacity(values.len());
        for x in values {
            let mut zigzag = folded(*x as i32);
            while zigzag > 0x7f {
                bytes.push(zigzag as u8 | 0x80);
                zigzag >>= 7;
            }
            bytes.push(zigzag as u8);
        }
        vec![bytes]
    }
}

impl Scheme for Integers {
    fn streams(&self, _vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        Ok(vec![Stream { suffix: "_stream", dtype: Dtype::U8, extent: Extent::Chunks }])
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, _values: Range<usize>) -> Range<usize> {
        0..0
    }

    fn decode(
        &self,
        _isa: Isa,
        _vector: &Vector,
        _start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let mut bytes = streams[0].iter();
        for x in out {
            let mut zigzag = 0u32;
            for place in 0..=MOST_BYTES {
                let byte = *bytes.next().ok_or_else(|| Invalid::new("integers end too early"))?;
                if place == MOST_BYTES {
                    return Err(Invalid::new("found an integer of more than 24 bits"));
                }
                zigzag |= u32::from(byte & 0x7f) << (7 * place);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            *x = unfolded(zigzag) as f32;
            if x.abs() > LARGEST {
                return Err(Invalid::new("found an integer of more than 24 bits"));
            }
        }
        match bytes.len() {
            0 => Ok(()),
            rest => Err(Invalid(format!("{rest} bytes follow the integers"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(bytes: &[u8], len: usize) -> Result<Vec<f32>, Invalid> {
        let mut out = vec![f32::NAN; len];
        let vector = Vector { len, shape: vec![len] };
        Integers {}.decode(Isa::detect(), &vector, 0, &[bytes], &mut out)?;
        Ok(out)
    }

    #[test]
    fn integers_come_back() {
        let values = [0.0, 1.0, -1.0, 63.0, 64.0, -64.0, -65.0, 48.0, LARGEST, -LARGEST];
        let bytes = Integers {}.encode(0, &values).remove(0);
        assert_eq!(back(&bytes, values.len()).unwrap(), values);
        for cut in 0..bytes.len() {
            assert!(back(&bytes[..cut], values.len()).is_err());
        }
        assert!(back(&bytes, values.len() - 1).is_err());
        assert!(back(&[0x80, 0x80, 0x80, 0x80, 0x01], 1).is_err());
        assert!(back(&[0xff, 0xff, 0xff, 0x7f], 1).is_err());
    }
}
