//! The mode of a release under a privacy budget: clip, charge, add up with noise, publish, record.
//!
//! [`release`] holds the order of the steps. [`clips`] measures each client, and [`clipped`] holds the clipped clients
//! of a run. [`sum_pass`] adds the clipped integers, and [`noised_sum`] the [`noise`] of its `streams`; `sum_on_gpu` and
//! `noise_on_gpu` do so on a GPU. `drawing` draws noise on a GPU or the CPU. [`series_noise`] keeps noise that is
//! correlated across rounds, and [`adaptive_clip`] moves the clip bound. Before the charge, `checks` looks at the base
//! and the number of clients, and `range` at values that leave the base's dtype. `reports` ends a run whose release
//! exists. Edges hand up their sums in files ([`sum_file`], [`sums`]). [`statistics`] says what the clipped vector
//! holds, and [`error`] why a run was not released.

pub mod adaptive_clip;
mod checks;
pub mod clipped;
pub mod clips;
mod drawing;
pub mod error;
pub mod noise;
mod noise_on_gpu;
pub mod noised_sum;
mod range;
pub mod release;
mod reports;
pub mod series_noise;
pub mod statistics;
mod streams;
pub mod sum_file;
mod sum_on_gpu;
pub mod sum_pass;
pub mod sums;

/// The number of columns of a tile. Its sums, the base's row and a client's row fit the second-level cache.
pub const COLUMNS: usize = 1 << 15;
