//! The mode of a run that is released under a privacy budget: clip, charge, add up with noise, publish, record.
//!
//! [`release`] is the run; [`clips`] measures and clips each client, [`clipped`] is the run whose clients are clipped, [`noised_sum`] adds the clipped integers and the
//! [`noise`], [`series_noise`] keeps noise that is correlated across rounds, [`adaptive_clip`] moves the clip bound. Edges
//! hand up their sums in files ([`sum_file`], [`sums`]); [`error`] says why a run was not released.

pub mod adaptive_clip;
pub mod clipped;
pub mod clips;
pub mod error;
pub mod noise;
pub mod noised_sum;
pub mod release;
pub mod series_noise;
pub mod sum_file;
pub mod sums;

/// Columns of a tile: its sums, the base's values and a client's stay in the second-level cache together.
pub const COLUMNS: usize = 1 << 15;

/// Why releases run on the CPU.
const CPU_ONLY: &str = "sums that are released are of integers";
