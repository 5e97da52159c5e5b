//! The mode of a run that is released under a privacy budget.

pub mod adaptive_clip;
pub mod clips;
pub mod noise;
pub mod noised_sum;
pub mod release;
pub mod series_noise;
pub mod sum_file;
pub mod sums;
