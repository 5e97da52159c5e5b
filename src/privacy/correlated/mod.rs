//! Noise that is correlated across rounds, so that it cancels in part in the model: DP-FTRL.
//!
//! The only assumption about clients is how often each takes part; rounds need no sampling. The rounds of a series are one
//! release, x_t + n_t with n = C^-1 z, where z is independent noise and C a lower triangular matrix (Choquette-Choo et al.,
//! "Multi-epoch matrix factorization mechanisms for private machine learning", 2023). The cost is that of one Gaussian,
//! C x + z, because all rounds are a function of it. One client moves C x by at most the [`sensitivity`] of C, which depends
//! on the [`Schedule`]. The model is a sum over rounds, so the noise of prefix sums counts; [`error`] computes it.
//!
//! - [`banded`]: C is Toeplitz, with few bands.
//! - [`tree`]: C has a row for each node of a binary tree over the rounds.
//!
//! **Exact on integers.** Both use the grid of [`clipping`](super::clipping), with no float between a client's integers and
//! the release. In `banded` the entries of C are multiples of 1/256. With the integer matrix w = 256 C, y = w x + z is the
//! discrete Gaussian mechanism: one client changes w x by at most 256 sens(C) B. The release r_t is a function of y and of
//! earlier releases:
//!
//! ```text
//! r_t = x_t + n_t,   n_t = floor((z_t - w_1 n_(t-1) - w_2 n_(t-2) - ...) / 256 + 1/2)
//!     = floor((256 x_t + z_t - w_1 n_(t-1) - ...) / 256 + 1/2)                  for x_t is an integer
//!     = floor((y_t - w_1 (x_(t-1) + n_(t-1)) - ...) / 256 + 1/2)               by y_t = 256 x_t + w_1 x_(t-1) + ... + z_t
//!     = floor((y_t - w_1 r_(t-1) - w_2 r_(t-2) - ...) / 256 + 1/2)
//! ```
//!
//! So rounding does not weaken the guarantee; it changes the noise by at most half a unit a round. In other words: if a
//! client's integers d_t are added to x_t and w d is subtracted from z, the release is the same, to the bit. x_t may depend
//! on earlier releases: each y_t is a separate Gaussian mechanism, and the squared sensitivities add up to the same bound
//! (Denisov et al., "Improved differential privacy for SGD via optimal private linear operators on adaptive streams",
//! 2022).

pub mod banded;
pub mod error;
pub mod sensitivity;
pub mod tree;

use banded::Banded;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Largest number of rounds of a series.
pub const MOST_ROUNDS: u64 = 1 << 20;
/// Largest number of bands of a matrix. All but one of the bands are kept on disk from round to round.
pub const MOST_BANDS: u32 = 256;

/// The number of rounds, and how often a client takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Number of rounds of the series, T.
    pub rounds: u64,
    /// Largest number of rounds of a client, k.
    pub participations: u64,
    /// Least number of rounds from one round of a client to the next, b.
    pub separation: u64,
}

impl Schedule {
    /// Largest number of rounds that a client can take part in, given the separation.
    pub fn most(&self) -> u64 {
        self.participations.min(self.rounds.div_ceil(self.separation.max(1)))
    }
}

/// The matrix C that correlates the noise.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Factor {
    /// A row for each node of a binary tree.
    Tree,
    /// A Toeplitz matrix with few bands.
    Banded {
        /// Number of bands, the diagonal included.
        bands: u32,
    },
}

impl Factor {
    /// Largest distance that one client moves C x, divided by the largest distance that it moves one x_t.
    pub fn sensitivity(self, schedule: &Schedule) -> f64 {
        match self {
            Self::Tree => tree::sensitivity(schedule),
            Self::Banded { bands } => Banded::new(bands).sensitivity(schedule),
        }
    }

    /// Factor of x_t in y_t. Noise on the sums of clients is narrower than the drawn noise by this factor.
    pub fn unit(self) -> f64 {
        match self {
            Self::Tree => 1.0,
            Self::Banded { .. } => f64::from(banded::ONE),
        }
    }

    /// Upper bound of the number of integers drawn for each coordinate in all rounds of a series.
    pub fn draws(self, rounds: u64) -> u64 {
        match self {
            Self::Tree => 2 * rounds,
            Self::Banded { .. } => rounds,
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree => write!(f, "tree"),
            Self::Banded { bands } => write!(f, "bands={bands}"),
        }
    }
}

impl FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "tree" {
            return Ok(Self::Tree);
        }
        let bands = text.strip_prefix("bands=").and_then(|bands| bands.parse().ok());
        let bands = bands.filter(|bands| (1..=MOST_BANDS).contains(bands));
        bands.map(|bands| Self::Banded { bands }).ok_or_else(|| {
            format!("found `{text}`, expected `tree` or `bands=N` with N from 1 to {MOST_BANDS}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_read_as_they_are_written() {
        for factor in [Factor::Tree, Factor::Banded { bands: 1 }, Factor::Banded { bands: 256 }] {
            assert_eq!(factor.to_string().parse(), Ok(factor));
        }
        for bad in ["", "trees", "bands", "bands=", "bands=0", "bands=257", "bands=-1", "bands=1.5"] {
            assert!(bad.parse::<Factor>().is_err(), "{bad}");
        }
    }
}
