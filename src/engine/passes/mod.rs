//! Streams the tiles of all updates through the worker threads or the GPU.
//!
//! A [`pass`] is work on every tile of a [`plan`]. The [`machine`] runs it: [`drive`] hands tiles to threads, which read
//! rows by a [`reader`], one read for each of its `runs`, and adds the parts in the order of tiles. Sums of [`sections`]
//! have the same shape in a sharded run. [`geometry`] measures updates for a decision, [`combine`] merges them, and
//! [`survey`] measures each alone and [`angles`] each against the median, all by [`blocks`] of rows. [`kind_sample`] compares a sample of them with the base,
//! and [`overflow`] finds those that the server's step takes too far; [`reach`] is how far. [`overlap`] compares where
//! their largest values lie. [`kept`] checks the state's values, [`row_limits`] those that the model cannot hold, and
//! [`variances`] those that cannot be negative. [`gpu_ring`] is the GPU's share of a pass, and [`error`] says why a pass
//! stopped.

pub mod angles;
pub mod blocks;
pub mod combine;
pub mod drive;
pub mod error;
pub mod geometry;
pub mod gpu_ring;
pub mod kept;
pub mod kind_sample;
pub mod machine;
pub mod overflow;
pub mod overlap;
pub mod pass;
pub mod plan;
pub mod reach;
pub mod reader;
pub mod row_limits;
mod runs;
pub mod sections;
pub mod survey;
pub mod variances;
