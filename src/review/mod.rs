//! Looks at plans without running them.
//!
//! [`lint`] finds what the reader of plans does not see, and [`types`] checks conditions before any value is known.
//! [`show`] draws a plan, [`diff`] compares two, and [`render`] writes one for Slurm or Snakemake.

pub mod diff;
pub mod lint;
pub mod render;
pub mod show;
pub mod types;
