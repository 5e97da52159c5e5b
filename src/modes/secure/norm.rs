//! Bounds the norm of one client's integers, for sessions under a privacy budget.
//!
//! The values are multiplied by one factor, so that their norm is at most S in units of the update, and truncated towards
//! zero, which never raises a magnitude. Then the sum of squares of the integers is computed exactly. Where floating-point
//! numbers made it larger than the bound, a smaller factor is tried.

use crate::engine::passes::machine::Machine;
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::{self, Level};
use crate::kernels::lanes::Isa;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::privacy::PrivacyTerms;
use crate::parties::error::SecureError;
use crate::parties::identity::derived;
use crate::parties::reading::{each_finite_value, each_value};
use crate::parties::tensors::LaneTensor;
use crate::privacy::ledger::record::NoiseFrom;
use crate::updates::set::UpdateSet;
use zeroize::Zeroizing;

/// By what a factor shrinks whose integers exceed the bound.
const SHRINK: f64 = 1.0 - 1.0 / (1 << 20) as f64;

/// The integers of a client whose norm is bounded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BoundedNorm {
    /// The factor from values to integers.
    factor: f64,
    /// The largest integer of a value.
    most: f64,
    /// The norm of the values, and whether it exceeds the bound S.
    pub norm: (f64, bool),
}

impl BoundedNorm {
    /// The factor for the first update of a set, and integers up to `levels`.
    ///
    /// # Errors
    ///
    /// When a value is not finite, or the update cannot be read.
    pub fn of(
        machine: &Machine,
        set: &UpdateSet,
        tensors: &[LaneTensor],
        (terms, levels): (&PrivacyTerms, u32),
    ) -> Result<Self, SecureError> {
        let mut squares = 0.0;
        each_finite_value(machine, set, tensors, |values| {
            squares += values.iter().map(|value| value * value).sum::<f64>();
        })?;
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Err(SecureError::terms(
                "UPDATE",
                "the squares of its values overflow, expected smaller ones",
            ));
        }
        let unit = terms.norm_bound as f64 / terms.clip_norm;
        let factor = if norm > terms.clip_norm { unit * (terms.clip_norm / norm) } else { unit };
        let mut bounded = Self { factor, most: f64::from(levels), norm: (norm, norm > terms.clip_norm) };
        while bounded.squares(machine, set, tensors)? > u128::from(terms.norm_bound).pow(2) {
            bounded.factor *= SHRINK;
        }
        Ok(bounded)
    }

    /// The exact sum of squares of the integers.
    fn squares(
        self,
        machine: &Machine,
        set: &UpdateSet,
        tensors: &[LaneTensor],
    ) -> Result<u128, SecureError> {
        let (mut squares, mut integers) = (0_u128, Vec::new());
        each_value(machine, set, tensors, &mut |_, values| {
            integers.resize(values.len(), 0);
            self.integers(values, &mut integers);
            squares += integers.iter().map(|integer| u128::from(integer.unsigned_abs()).pow(2)).sum::<u128>();
            Ok(())
        })?;
        Ok(squares)
    }

    /// The integers of values. Returns the number of values beyond the largest integer.
    pub fn integers(self, values: &[f64], integers: &mut [i32]) -> u64 {
        let mut clipped = 0;
        for (value, integer) in values.iter().zip(integers) {
            let scaled = value * self.factor;
            clipped += u64::from(scaled.abs() > self.most);
            *integer = scaled.clamp(-self.most, self.most) as i32;
        }
        clipped
    }
}

/// The integers of a session under a budget: bounded, and with noise if clients add it.
pub struct PrivateIntegers {
    /// The bound of the client.
    pub bounded: BoundedNorm,
    /// The width and the key of its noise; `None` if it adds none.
    pub noise: Option<(Level, Zeroizing<[u8; 32]>)>,
}

/// The width and the key of the client's noise; `None` if it adds none.
pub fn noise_of(manifest: &Manifest, secret: &[u8; 32]) -> Option<(Level, Zeroizing<[u8; 32]>)> {
    let privacy = manifest.terms.privacy.as_ref()?;
    let key = || Zeroizing::new(derived(secret, "noise"));
    (privacy.mode == NoiseFrom::Distributed).then(|| (privacy.level, key()))
}

impl PrivateIntegers {
    /// The integers of the values from number `first` on. Returns the number of values beyond the clip. The field has room
    /// for integers and noise.
    pub fn integers(&self, isa: Isa, first: u64, values: &[f64], integers: &mut [i32]) -> u64 {
        let clipped = self.bounded.integers(values, integers);
        if let Some((level, key)) = &self.noise {
            let mut noise = Zeroizing::new(vec![0; integers.len()]);
            let stream = Stream { key, domain: 0, segment: 0 };
            discrete_gaussian::noise(isa, stream, *level, first, &mut noise);
            integers.iter_mut().zip(noise.iter()).for_each(|(integer, noise)| *integer += *noise as i32);
        }
        clipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_truncated_and_clipped() {
        let bounded = BoundedNorm { factor: 10.0, most: 25.0, norm: (1.0, false) };
        let mut integers = [9; 5];
        assert_eq!(bounded.integers(&[0.19, -0.19, 2.5, 2.61, -9e9], &mut integers), 2);
        assert_eq!(integers, [1, -1, 25, 25, -25]);
    }
}
