//! How updates come to lie on one grid, none longer than a bound: what makes the sensitivity of their sum a number.
//!
//! Each update is clipped to the norm S and rounded toward zero to multiples of a unit g, the same for all. Its integers
//! have a norm of at most B, which is verified exactly, client by client; so one client more or less changes the sum of
//! integers by at most B, whatever its update was and whatever floats did on the way. To the sum come discrete Gaussians
//! of standard deviation sigma, so that the noise multiplier is sigma / B.
//!
//! B is floor(sigma / z), so the noise is never narrower than asked for. The unit is S / B, rounded up to the inverse of a
//! [`Scale`]: an update of norm S or less is not scaled, but comes to its values over g, each rounded toward zero.
//!
//! The norm is that of all values of an update together (McMahan et al., "Learning differentially private recurrent
//! language models", 2018, section 3.1, flat clipping).

use crate::kernels::clip_integers::{Scale, Squares};
use crate::kernels::discrete_gaussian::Level;
use thiserror::Error;

/// The largest bound: with it, four million clients and the noise fit the sum in i64.
const LARGEST_BOUND: u64 = 1 << 40;
/// Units that the root mean square of a client's integers is to be, or more: below it, noise of a larger level is taken.
const FINE: f64 = 256.0;
/// Norms to clip to that the arithmetic has room for.
const NORMS: std::ops::RangeInclusive<f64> = 1e-60..=1e60;
/// How often a scale is made smaller. Once is enough, for a scale is off by its last bits at most.
const ATTEMPTS: usize = 4;

/// Why there is no grid.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
pub enum NoGrid {
    /// The norm to clip to is not a number above zero, or out of range.
    #[error("the norm to clip to is {0}, expected a number from 1e-60 to 1e60")]
    ClipNorm(f64),
    /// The noise multiplier is not a number above zero, or out of range.
    #[error("the noise multiplier is {0}, expected a number from 0.000002 to 2000000")]
    NoiseMultiplier(f64),
}

/// The grid that the integers of all clients lie on. It follows from public settings alone.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Grid {
    level: Level,
    bound: u64,
    scale: Scale,
}

impl Grid {
    /// The grid for updates of so many coordinates, clipped to a norm, and noise of at least `noise_multiplier` times that
    /// norm. The level is the narrowest at which rounding is a small part of what a client sends.
    ///
    /// # Errors
    ///
    /// [`NoGrid`], where a setting is out of range.
    pub fn new(clip_norm: f64, noise_multiplier: f64, coordinates: u64) -> Result<Self, NoGrid> {
        let narrow = Self::at(Level::L2, clip_norm, noise_multiplier)?;
        let is_fine = narrow.bound as f64 >= FINE * (coordinates as f64).sqrt();
        if is_fine { Ok(narrow) } else { Self::at(Level::L3, clip_norm, noise_multiplier) }
    }

    /// The same at a level.
    ///
    /// # Errors
    ///
    /// [`NoGrid`], where a setting is out of range.
    pub fn at(level: Level, clip_norm: f64, noise_multiplier: f64) -> Result<Self, NoGrid> {
        if !NORMS.contains(&clip_norm) {
            return Err(NoGrid::ClipNorm(clip_norm));
        }
        // Downward in each step: the bound times the multiplier is no more than sigma.
        let bound = (level.sigma().next_down() / noise_multiplier).next_down();
        if !(1.0..=LARGEST_BOUND as f64).contains(&bound) {
            return Err(NoGrid::NoiseMultiplier(noise_multiplier));
        }
        let bound = bound as u64;
        let scale = Scale::rounded_down((bound as f64 / clip_norm).next_down(), 0);
        Ok(Self { level, bound, scale })
    }

    /// How wide the noise is.
    pub fn level(&self) -> Level {
        self.level
    }

    /// B: no client's integers have a larger norm, nor is any of them larger.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// g: what an integer stands for, in the unit of the updates.
    pub fn unit(&self) -> f64 {
        self.scale.unit()
    }

    /// Sigma over B: at least what was asked for.
    pub fn noise_multiplier(&self) -> f64 {
        self.level.sigma() / self.bound as f64
    }

    /// Clients whose sum, with the noise, is sure to be within i64.
    pub fn most_clients(&self) -> u64 {
        (1 << 62) / self.bound
    }

    /// Whether integers whose squares add up to this have a norm of at most the bound.
    pub fn admits(&self, sum_of_squares: u128) -> bool {
        sum_of_squares <= u128::from(self.bound).pow(2)
    }

    /// What is done to an update, given the squares of all its values and a weight from zero to one. What
    /// [`admits`](Self::admits) says of its integers is still to be asked.
    pub fn clip(&self, squares: &Squares, weight: f64) -> Clip {
        if !squares.is_finite() {
            return Clip::VOID;
        }
        self.at_most(squares.scale_to(self.bound as f64).unwrap_or(self.scale), weight)
    }

    /// The same, given a number that the norm of its values is not above; what is not finite counts as zero. That its
    /// integers are admitted is known before they are made: rounded toward zero at a scale of B over the norm, they have a
    /// norm of at most B. Values that come to zero at the grid's own scale need not be part of the norm.
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

    /// The clip at which the integers are admitted, given how their squares add up at a scale. Nearly always it is the one
    /// given; else its scale is made smaller.
    ///
    /// # Errors
    ///
    /// Those of `sum_of_squares`.
    pub fn verified<E>(
        &self,
        clip: Clip,
        mut sum_of_squares: impl FnMut(Scale) -> Result<u128, E>,
    ) -> Result<Clip, E> {
        let mut tried = clip;
        for _ in 0..ATTEMPTS {
            if self.admits(sum_of_squares(tried.scale)?) {
                return Ok(tried);
            }
            tried = Clip { scale: tried.scale.shrunk(), treatment: Treatment::Clipped };
        }
        Ok(Clip::VOID)
    }
}

/// What is done to an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clip {
    /// What its values are multiplied by.
    pub scale: Scale,
    /// What that means.
    pub treatment: Treatment,
}

impl Clip {
    /// The update counts as zero: it has values that are not finite, or could not be read, or is not what was asked for.
    pub const VOID: Self = Self { scale: Scale::ZERO, treatment: Treatment::Void };
}

/// What becomes of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// Its norm is within the bound, so it is only rounded and weighted.
    Whole,
    /// It is scaled down to the bound.
    Clipped,
    /// It counts as zero.
    Void,
}

#[cfg(test)]
mod tests;
