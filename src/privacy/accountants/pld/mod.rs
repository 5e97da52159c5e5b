//! Privacy loss distributions: the distribution of the log-likelihood ratio between neighbours.
//!
//! The distribution gives epsilon at any delta without loss. The result is never below the true epsilon, and less than
//! 0.05 % above it.
//!
//! 1. `hockey_stick`: the curve of one release, delta at every epsilon.
//! 2. `grid`: points of that curve, connected, give a distribution on a grid that dominates the release (Doroshenko et
//!    al. 2022, arXiv 2207.04380).
//! 3. `compose`: the distribution of many releases is a convolution, by Fourier transform.
//! 4. `search`: the grid is refined until epsilon does not change.
//!
//! All transforms use tilted distributions, with masses times exp(lambda loss) as in Chernoff's bound. So most of the
//! mass is in the tail that determines delta. Rounding in the transform is then relative to delta, and the window can
//! be narrow.

mod compose;
mod grid;
mod hockey_stick;
mod search;

pub use search::{Effort, LEAST_DELTA, delta, epsilon};
