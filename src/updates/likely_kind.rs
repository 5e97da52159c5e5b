//! Tells deltas from weights by their values.
//!
//! The weights of a client that trained from the base are near the base and far from zero. A delta is near zero and far
//! from the base.

use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;

/// A vector looks like a delta if its distance from zero is below this part of its distance from the base.
///
/// Weights reach that only if training shrank the base to a third of itself. Deltas of up to 0.43 of the base's norm are
/// below it, if they stand at a right angle to the base.
const NEARER: f64 = 0.4;

/// The same for the mean of several clients. The mean of deltas is shorter than they are, and so is that of models that
/// have nothing in common.
const NEARER_MEAN: f64 = 0.2;

/// The squares of a vector's distances from zero and from the base.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Distances {
    /// From zero.
    pub zero: f64,
    /// From the base.
    pub base: f64,
}

impl Distances {
    /// Those of a part of the vector.
    pub fn of<E: Element>(isa: Isa, values: &[E], base: &[f64]) -> Self {
        Self { zero: squared_norm(isa, values, &[]), base: squared_norm(isa, values, base) }
    }

    /// Adds those of another part.
    pub fn add(&mut self, part: Self) {
        self.zero += part.zero;
        self.base += part.base;
    }

    /// Whether the vector is far nearer to zero than to the base.
    pub fn is_delta(self) -> bool {
        self.base.is_finite() && self.zero < NEARER * NEARER * self.base
    }

    /// Whether the mean of several clients is far nearer to zero than to the base.
    pub fn is_mean_of_deltas(self) -> bool {
        self.base.is_finite() && self.zero < NEARER_MEAN * NEARER_MEAN * self.base
    }

    /// Whether the vector is far nearer to the base than to zero.
    pub fn is_weights(self) -> bool {
        self.zero.is_finite() && self.base < NEARER * NEARER * self.zero
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_vectors_are_deltas_and_those_near_the_base_are_weights() {
        let of = |values: &[f64]| Distances::of(Isa::detect(), values, &[1.0, 0.0]);
        let kinds = |values: &[f64]| (of(values).is_delta(), of(values).is_weights());
        assert_eq!(kinds(&[0.0, 0.43]), (true, false));
        assert_eq!(kinds(&[0.0, 0.44]), (false, false));
        assert!(of(&[0.0, 0.2]).is_mean_of_deltas() && !of(&[0.0, 0.21]).is_mean_of_deltas());
        assert_eq!(kinds(&[0.1, -0.3]), (true, false));
        assert_eq!(kinds(&[1.0, 0.43]), (false, true));
        assert_eq!(kinds(&[1.0, 0.44]), (false, false));
        assert!(!Distances { zero: 1.0, base: f64::INFINITY }.is_delta());
        assert!(!Distances::of(Isa::detect(), &[0.1], &[0.0]).is_delta(), "of a base of zeros");
    }
}
