//! Numerics that several rules share: symmetric matrices, their spectra, and sums.
//!
//! [`triangle`] holds a symmetric matrix. [`eigen`] computes its whole spectrum, with `tridiagonal` if the eigenvalues are
//! enough, and `lanczos` the leading pair of a large one. `sum` adds up with twice the digits of f64.

pub mod eigen;
pub(super) mod lanczos;
pub(super) mod sum;
pub mod triangle;
mod tridiagonal;
