//! The choice of the matrix C that correlates the noise.

use super::banded::{self, Banded};
use super::{MOST_BANDS, Schedule, tree};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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
