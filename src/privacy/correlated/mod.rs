//! Noise that is correlated across rounds, so that what it adds to the model cancels in part: DP-FTRL.
//!
//! Nothing is assumed of who takes part, but for how often: rounds on a schedule need no sampling. The rounds of a run are
//! one release, x_t + n_t with n = C^-1 z, where z is independent noise and C a lower triangular matrix (Choquette-Choo et
//! al., "Multi-epoch matrix factorization mechanisms for private machine learning", 2023). Its cost is that of one
//! Gaussian, C x + z, of which all rounds are a function. How far C x moves with one client is the [`sensitivity`] of C,
//! which depends on the [`Schedule`]. The model is a sum over rounds, so the noise that counts is that of prefix sums,
//! which [`error`] tells.
//!
//! - [`banded`]: C is Toeplitz, with few bands.
//! - [`tree`]: C has a row for each node of a binary tree over the rounds.
//!
//! **Exact on integers.** Both keep to the grid of [`clipping`](super::clipping), with no float between a client's integers
//! and what is released. In `banded` C has multiples of 1/256 as entries, and with w = 256 C, which is of integers,
//! y = w x + z is the discrete Gaussian mechanism: one client changes w x by at most 256 sens(C) B. What is released is a
//! function of y and of what was released before:
//!
//! ```text
//! r_t = x_t + n_t,   n_t = floor((z_t - w_1 n_(t-1) - w_2 n_(t-2) - ...) / 256 + 1/2)
//!     = floor((256 x_t + z_t - w_1 n_(t-1) - ...) / 256 + 1/2)                  for x_t is an integer
//!     = floor((y_t - w_1 (x_(t-1) + n_(t-1)) - ...) / 256 + 1/2)               by y_t = 256 x_t + w_1 x_(t-1) + ... + z_t
//!     = floor((y_t - w_1 r_(t-1) - w_2 r_(t-2) - ...) / 256 + 1/2)
//! ```
//!
//! So rounding costs nothing of the guarantee, whatever it does to the noise: at most half a unit a round. In other words,
//! with a client's integers d_t added to x_t and w d taken from z, what is released is the same, to the bit. That x_t may
//! hang on what was released before changes nothing: each y_t is a Gaussian mechanism of its own, and the squares of how
//! far they move add up to the same bound (Denisov et al., "Improved differential privacy for SGD via optimal private
//! linear operators on adaptive streams", 2022).

pub mod banded;
pub mod error;
pub mod sensitivity;
pub mod tree;

use banded::Banded;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A run has no more rounds.
pub const MOST_ROUNDS: u64 = 1 << 20;
/// A matrix has no more bands: all but one of them are kept from round to round.
pub const MOST_BANDS: u32 = 256;

/// How many rounds there are, and how often a client takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Rounds of the run, T.
    pub rounds: u64,
    /// Rounds that a client takes part in at most, k.
    pub participations: u64,
    /// Rounds from one of them to the next at least, b.
    pub separation: u64,
}

impl Schedule {
    /// Rounds that a client can take part in.
    pub fn most(&self) -> u64 {
        self.participations.min(self.rounds.div_ceil(self.separation.max(1)))
    }
}

/// How noise is correlated: which matrix C is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Factor {
    /// A row for each node of a binary tree.
    Tree,
    /// Toeplitz, with so many bands.
    Banded {
        /// The bands, with the diagonal.
        bands: u32,
    },
}

impl Factor {
    /// How far C x moves at most with one client, by how far one x_t does.
    pub fn sensitivity(self, schedule: &Schedule) -> f64 {
        match self {
            Self::Tree => tree::sensitivity(schedule),
            Self::Banded { bands } => Banded::new(bands).sensitivity(schedule),
        }
    }

    /// What one unit of x_t is in y_t: noise on the sums of clients is by so much narrower than what is drawn.
    pub fn unit(self) -> f64 {
        match self {
            Self::Tree => 1.0,
            Self::Banded { .. } => f64::from(banded::ONE),
        }
    }

    /// Integers that are drawn for each coordinate in all rounds of a run, or more.
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
