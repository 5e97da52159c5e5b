//! Clips updates to integers of a bounded norm, so that the sensitivity of their sum is known.
//!
//! Each update is clipped to the norm S and rounded toward zero to multiples of a unit g, which all clients share. Its
//! integers have a norm of at most B, and that is verified exactly for each client. So one client more or less changes
//! the sum of integers by at most B, for any update and in spite of float rounding. Discrete Gaussian noise of standard
//! deviation sigma is added to the sum, so the noise multiplier is sigma / B.
//!
//! B is floor(sigma / z), so the noise is never narrower than the plan's z. The unit g is S / B, rounded up to the
//! inverse of a [`Scale`]. An update of norm S or less is not scaled: its values are divided by g and rounded toward
//! zero.
//!
//! The norm is the L2 norm of all values of an update together (McMahan et al., "Learning differentially private
//! recurrent language models", 2018, section 3.1, flat clipping).

use crate::kernels::clip_integers::{Scale, Squares};
use crate::kernels::discrete_gaussian::Level;
use thiserror::Error;

/// The largest bound. With it, the sum of four million clients and the noise fits i64.
const LARGEST_BOUND: u64 = 1 << 40;
/// Clip norms that the arithmetic can represent.
pub const NORMS: std::ops::RangeInclusive<f64> = 1e-60..=1e60;

/// Why a grid cannot be made.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
pub enum NoGrid {
    /// The clip norm is out of range.
    #[error("the norm to clip to is {0:e}, expected a number from 1e-60 to 1e60")]
    ClipNorm(f64),
    /// The noise multiplier is out of range.
    #[error("the noise multiplier is {0:e}, expected a number from 0.000002 to 2000000")]
    NoiseMultiplier(f64),
}

/// The grid of the integers of all clients. It follows from public settings alone.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Grid {
    level: Level,
    bound: u64,
    scale: Scale,
}

impl Grid {
    /// The grid for updates clipped to `clip_norm`, with noise of this level. The noise is at least `noise_multiplier`
    /// times as wide as that norm.
    ///
    /// # Errors
    ///
    /// When a setting is out of range.
    pub fn at(level: Level, clip_norm: f64, noise_multiplier: f64) -> Result<Self, NoGrid> {
        if !NORMS.contains(&clip_norm) {
            return Err(NoGrid::ClipNorm(clip_norm));
        }
        // Rounds down in each step, so that the bound times the multiplier is at most sigma.
        let bound = (level.sigma().next_down() / noise_multiplier).next_down();
        if !(1.0..=LARGEST_BOUND as f64).contains(&bound) {
            return Err(NoGrid::NoiseMultiplier(noise_multiplier));
        }
        let bound = bound as u64;
        let scale = Scale::rounded_down((bound as f64 / clip_norm).next_down(), 0);
        Ok(Self { level, bound, scale })
    }

    /// The level of the noise.
    pub fn level(&self) -> Level {
        self.level
    }

    /// B: the largest norm of a client's integers, and the largest of those integers.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// g: the value of the integer 1, in the unit of the updates.
    pub fn unit(&self) -> f64 {
        self.scale.unit()
    }

    /// Number of clients whose sum, with the noise, always fits i64.
    pub fn most_clients(&self) -> u64 {
        (1 << 62) / self.bound
    }

    /// Whether integers with this sum of squares have a norm of at most the bound.
    pub fn admits(&self, sum_of_squares: u128) -> bool {
        sum_of_squares <= u128::from(self.bound).pow(2)
    }

    /// How to clip an update, given the squares of all its values and a weight from 0 to 1. The caller must check the
    /// integers with [`admits`](Self::admits).
    pub fn clip(&self, squares: &Squares, weight: f64) -> Clip {
        if !squares.is_finite() {
            return Clip::VOID;
        }
        self.at_most(squares.scale_to(self.bound as f64).unwrap_or(self.scale), weight)
    }

    /// How to clip an update, given an upper bound of the norm of its values. If `norm` is not finite, the update
    /// counts as zero. The integers are admitted: rounded toward zero at the scale B / `norm`, they have a norm of at
    /// most B. `norm` may leave out values that are zero at the grid's own scale.
    pub fn clip_of_norm(&self, norm: f64, weight: f64) -> Clip {
        if !norm.is_finite() {
            return Clip::VOID;
        }
        let ratio = (self.bound as f64 / norm).next_down();
        self.at_most(Scale::rounded_down(ratio.min(f64::MAX), 0), weight)
    }

    fn at_most(&self, scale: Scale, weight: f64) -> Clip {
        let treatment = if scale < self.scale { Treatment::Clipped } else { Treatment::Whole };
        Clip { scale: scale.min(self.scale).weighted(weight), treatment }
    }
}

/// How an update is clipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clip {
    /// Factor of its values.
    pub scale: Scale,
    /// The meaning of that factor.
    pub treatment: Treatment,
}

impl Clip {
    /// The update counts as zero: it has values that are not finite, cannot be read, or does not fit the round.
    pub const VOID: Self = Self { scale: Scale::ZERO, treatment: Treatment::Void };
}

/// How an update is treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// Its norm is within the bound: it is only rounded and weighted.
    Whole,
    /// Its norm is scaled down to the bound.
    Clipped,
    /// The update counts as zero.
    Void,
}

#[cfg(test)]
mod tests;
