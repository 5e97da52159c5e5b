//! Privacy loss distributions: the whole distribution of the log-likelihood ratio between neighbours, which says epsilon
//! at any delta without loss. Never below the truth, and less than 0.05 % above it.
//!
//! One run of a mechanism is told by its hockey-stick curve, delta at every epsilon (`hockey_stick`). Connecting dots of
//! that curve gives a distribution on a grid that dominates it (`grid`; Doroshenko et al. 2022, arXiv 2207.04380). The
//! distribution of many runs is a convolution, by Fourier transform (`compose`). The grid is made finer until epsilon
//! does not change (`search`).
//!
//! All transforms are of tilted distributions, with masses times exp(lambda loss) as in Chernoff's bound: so the tail that
//! makes delta is where most of the mass is, rounding in the transform is relative to delta, and the window need only
//! be as wide as what matters there.

mod compose;
mod grid;
mod hockey_stick;
mod search;

pub use search::{LEAST_DELTA, delta, epsilon, rough_epsilon};
