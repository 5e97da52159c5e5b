//! Measures the error of decoded values.

use crate::compress::values::Lost;
use crate::kernels::distortion::{Distortion, distortion};
use crate::kernels::lanes::Isa;
use serde::Serialize;

/// Sums over values and their decoded values, added in the order of chunks.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Quality {
    /// Number of values.
    pub values: u64,
    /// Sum of squared values.
    pub squares: f64,
    /// Sum of squared errors.
    pub errors: f64,
    /// Sum of squared decoded values.
    pub decoded: f64,
    /// Sum of products of values and decoded values.
    pub products: f64,
    /// Number of values beyond the range of the codec or the dtype, which decode as its end.
    pub cut: u64,
    /// Number of values that are not zero, and are sent as zero because they are too small for the dtype.
    pub lost: u64,
}

/// The error as users read it.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Measures {
    /// Squared error over squared norm; zero if both are zero.
    pub nmse: f64,
    /// Cosine of the angle between values and decoded values.
    pub cosine: f64,
    /// Norm of the decoded values over the norm of the values.
    pub norm_ratio: f64,
}

impl Quality {
    /// The sums over one chunk.
    pub fn of(isa: Isa, values: &[f32], decoded: &[f32]) -> Self {
        let Distortion { squares, errors, decoded, products } = distortion(isa, values, decoded);
        Self { values: values.len() as u64, squares, errors, decoded, products, cut: 0, lost: 0 }
    }

    /// The sums over values that F32 does not hold.
    pub(crate) fn of_lost(lost: Lost) -> Self {
        let Lost { values, squares } = lost;
        Self { squares, errors: squares, lost: values, ..Self::default() }
    }

    /// Adds the next chunk.
    pub fn add(&mut self, next: &Self) {
        self.values += next.values;
        self.squares += next.squares;
        self.errors += next.errors;
        self.decoded += next.decoded;
        self.products += next.products;
        self.cut += next.cut;
        self.lost += next.lost;
    }

    /// Squared error over squared norm. Lost values whose squares are too small for f64 are an error of everything.
    pub fn nmse(&self) -> f64 {
        match (self.errors == 0.0, self.lost) {
            (true, 0) => 0.0,
            (true, _) if self.squares == 0.0 => 1.0,
            (true, _) => 0.0,
            (false, _) => self.errors / self.squares,
        }
    }

    /// The factor of the decoded values that has the least error, and the NMSE with it.
    pub fn best_scale(&self) -> (f64, f64) {
        let scale = if self.decoded > 0.0 { self.products / self.decoded } else { 0.0 };
        (scale, 1.0 - scale * self.products / self.squares)
    }

    /// The error as users read it.
    pub fn measures(&self) -> Measures {
        let over = |a: f64, b: f64, if_both_zero: f64| if a == b { if_both_zero } else { a / b };
        let norms = (self.squares * self.decoded).sqrt();
        Measures {
            nmse: self.nmse(),
            cosine: if norms == 0.0 {
                over(self.squares, self.decoded, 1.0).min(0.0)
            } else {
                self.products / norms
            },
            norm_ratio: if self.squares == self.decoded && self.lost == 0 {
                1.0
            } else if self.squares == self.decoded {
                0.0
            } else {
                (self.decoded / self.squares).sqrt()
            },
        }
    }
}

/// The least NMSE of any code with this number of bits a value on white Gaussian data, `2^(-2R)` (Shannon, 1959).
pub fn white_bound(bits_per_value: f64) -> f64 {
    (-2.0 * bits_per_value).exp2()
}
