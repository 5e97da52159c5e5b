//! `sign`: one bit per value, and one magnitude for all: the mean magnitude.
//!
//! Decoded as `sign(x) mean|x|`; zero counts as positive. Among all magnitudes the mean has the least error
//! (Karimireddy et al., Error feedback fixes SignSGD, 2019). The NMSE is `1 - (mean|x|)^2 / mean x^2`, which is `1 - 2
//! / pi` for normal values.

use crate::codecs::packing::bits;
use crate::codecs::wire::Bits;
use crate::codecs::{Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Tally, Vector};
use crate::kernels::lanes::Isa;
use crate::kernels::pack_bits::packed_len;
use crate::kernels::select_largest;
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "one bit per value, and one mean magnitude",
    settings: &[],
    tried: &[],
    codecs: &[("sign", parse)],
};

/// The codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sign;

fn parse(_: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    Ok(Box::new(Sign))
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sign")
    }
}

impl Codec for Sign {
    fn shrinks(&self) -> bool {
        true
    }

    fn encoder(&self, isa: Isa, vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        Box::new(SignEncoder { isa, len: vector.len, magnitude: None })
    }
}

/// The coding: the magnitude of all values, at least zero.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub struct Magnitude(pub Bits);

/// One bit per value, set for a negative value.
pub(crate) fn pack(isa: Isa, values: &[f32]) -> Vec<u8> {
    bits::pack(isa, 1, values.iter().map(|x| u8::from(*x < 0.0)).collect())
}

impl Magnitude {
    /// Checks that the magnitude is not below zero.
    pub(crate) fn check(self) -> Result<(), Invalid> {
        match self.0.0 {
            below if below < 0.0 => {
                Err(Invalid(format!("magnitude of all values is {below}, expected none below zero")))
            }
            _ => Ok(()),
        }
    }

    /// Fills `out` with the magnitude and the packed signs.
    ///
    /// # Errors
    ///
    /// When the bytes are not those of [`pack`].
    pub(crate) fn signed(self, isa: Isa, signs: &[u8], out: &mut [f32]) -> Result<(), Invalid> {
        let negative = bits::unpack(isa, 1, signs, out.len())?;
        let magnitude = self.0.0.to_bits();
        out.iter_mut()
            .zip(negative)
            .for_each(|(x, bit)| *x = f32::from_bits(magnitude | u32::from(bit) << 31));
        Ok(())
    }
}

#[derive(Debug)]
struct SignEncoder {
    isa: Isa,
    len: usize,
    magnitude: Option<f32>,
}

impl Encoder for SignEncoder {
    fn wants_look(&self) -> bool {
        self.magnitude.is_none()
    }

    fn look(&self, _start: usize, values: &[f32]) -> Tally {
        let sum = select_largest::beyond(self.isa, values, 0).sum;
        Tally { sums: vec![sum], ..Tally::default() }
    }

    fn learn(&mut self, tally: Tally) {
        let sum = tally.sums.first().copied().unwrap_or(0.0);
        self.magnitude = Some((sum / self.len as f64) as f32);
    }

    fn coding(&self) -> Coding {
        Coding::Sign(Magnitude(Bits(self.magnitude.unwrap_or(0.0))))
    }

    fn encode(&self, _start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        vec![pack(self.isa, values)]
    }
}

impl Scheme for Magnitude {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        self.check()?;
        let extent = Extent::Known(vec![packed_len(vector.len, 1)]);
        Ok(vec![Stream { suffix: "_signs", dtype: Dtype::U8, extent }])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        8
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, values: Range<usize>) -> Range<usize> {
        bits::range(1, values)
    }

    fn decode(
        &self,
        isa: Isa,
        _vector: &Vector,
        _start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        self.signed(isa, streams[0], out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{SIZES, encode, hard, normal};
    use std::iter;

    #[test]
    fn signs_times_the_mean_magnitude() {
        for len in SIZES {
            for values in iter::once(normal(len, 1)).chain(hard(len).map(|(_, values)| values)) {
                let mean = values.iter().map(|x| f64::from(x.abs())).sum::<f64>() / len as f64;
                for (x, y) in values.iter().zip(encode(&Sign, &[len], &values).decode()) {
                    assert_eq!(*x < 0.0, y < 0.0);
                    assert!((f64::from(y.abs()) - mean).abs() <= 1e-6 * mean + 1e-45, "{y}, mean {mean}");
                }
            }
        }
    }

    #[test]
    fn normal_values_keep_two_over_pi() {
        let values = normal(1 << 17, 6);
        let found = encode(&Sign, &[values.len()], &values).nmse(&values);
        assert!((found - (1.0 - 2.0 / std::f64::consts::PI)).abs() < 0.005, "{found}");
    }

    // GRACE's one-bit decoder inverts whole bytes of its mask, and gives 760 and 765 for these.
    #[test]
    fn negative_values_are_decoded_as_negative() {
        assert_eq!(encode(&Sign, &[4], &[-1.0, 2.0, -3.0, 4.0]).decode(), [-2.5, 2.5, -2.5, 2.5]);
        assert_eq!(encode(&Sign, &[3], &[0.0, -6.0, 0.0]).decode(), [2.0, -2.0, 2.0]);
    }

    #[test]
    fn broken_streams_are_refused() {
        let values = normal(1003, 4);
        encode(&Sign, &[1003], &values).assert_total(0);
        let vector = Vector { len: 3, shape: vec![3] };
        assert!(Magnitude(Bits(-1.0)).streams(&vector).is_err());
        assert!(Magnitude(Bits(1.0)).decode(Isa::detect(), &vector, 0, &[&[0b1000]], &mut [0.0; 3]).is_err());
    }
}
