//! The measured kernels, and the amount of work of each.

use half::{bf16, f16};
use serde::{Serialize, Serializer};

use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::Scale;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::element::Element;
use crate::model::dtype::Dtype;

/// A kernel, or kernels that a pass runs together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// The weighted sum of all rows.
    WeightedSum,
    /// The median.
    Median,
    /// The trimmed mean without a fifth at each end.
    TrimmedMean,
    /// The mean of the four fifths nearest to the median.
    MeanNearMedian,
    /// The median, then the products of all pairs of rows and the origin, less the median.
    Pairs,
    /// The weighted sum and the squared norm of every row, as in a pass that reports norms.
    Norms,
    /// The median of mixtures. There is one mixture for each row.
    MixingMedian,
    /// The integers of rows on a grid, added up, and the sum of the squares of every row.
    Integers,
    /// Discrete Gaussian noise on integers, one row of them for each row.
    Noise,
    /// The masks of secure aggregation, one seed for each row, added up.
    Masks,
    /// The sum of rows modulo a prime, their bits read as integers.
    Elements,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 11] = [
        Self::WeightedSum,
        Self::Median,
        Self::TrimmedMean,
        Self::MeanNearMedian,
        Self::Pairs,
        Self::Norms,
        Self::MixingMedian,
        Self::Integers,
        Self::Noise,
        Self::Masks,
        Self::Elements,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::WeightedSum => "weighted-sum",
            Self::Median => "median",
            Self::TrimmedMean => "trimmed-mean",
            Self::MeanNearMedian => "mean-near-median",
            Self::Pairs => "pairs",
            Self::Norms => "norms",
            Self::MixingMedian => "mixing-median",
            Self::Integers => "integers",
            Self::Noise => "noise",
            Self::Masks => "masks",
            Self::Elements => "elements",
        }
    }

    /// The kernel of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.name() == name)
    }

    /// Multiply-adds of f32 that the result needs; zero for kernels that wait for memory or compare.
    pub fn multiply_adds(self, clients: usize, parameters: usize) -> f64 {
        let (n, d) = (clients as f64, parameters as f64);
        match self {
            Self::Pairs => (n + 1.0) * (n + 2.0) / 2.0 * d,
            Self::MixingMedian => n * n * d,
            _ => 0.0,
        }
    }

    /// Number of values left out: at each end, or as the farthest.
    pub(super) fn left_out(clients: usize) -> usize {
        clients / 5
    }
}

impl Serialize for Kernel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The level of measured noise.
pub(super) const LEVEL: Level = Level::L2;

/// The stream of measured noise. Nothing is released with it.
pub(super) const STREAM: Stream = Stream { key: &[7; 32], domain: 0, segment: 0 };

/// The seeds of measured masks. Nothing is masked with them.
pub(super) fn seeds(count: usize) -> Vec<[u8; 32]> {
    (0..count as u64).map(|seed| [seed; 4].map(u64::to_le_bytes)).map(bytemuck::cast).collect()
}

/// The scale of measured integers.
pub(super) fn scale() -> Scale {
    Scale::rounded_down(1.37, 20)
}

/// The coefficient of client `i` in mixture `k`. All differ, and those of a mixture sum to one.
pub(super) fn coefficient(k: usize, i: usize, clients: usize) -> f64 {
    let n = clients as f64;
    (1.0 + ((k + i) % clients) as f64) / (n * (n + 1.0) / 2.0)
}

/// A float of measured updates.
pub(super) trait Value: Element {
    /// The value nearest to `x`.
    fn nearest(x: f32) -> Self;
}

impl Value for f32 {
    fn nearest(x: f32) -> Self {
        x
    }
}

impl Value for bf16 {
    fn nearest(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl Value for f16 {
    fn nearest(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// The measured dtypes.
pub const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::BF16, Dtype::F16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_kernels() {
        for kernel in Kernel::ALL {
            assert_eq!(Kernel::named(kernel.name()), Some(kernel));
        }
        assert_eq!(Kernel::named("sum"), None);
    }

    #[test]
    fn coefficients_of_a_mixture_add_up_to_one() {
        for k in 0..5 {
            let sum: f64 = (0..5).map(|i| coefficient(k, i, 5)).sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
    }
}
