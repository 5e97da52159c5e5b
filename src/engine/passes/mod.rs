//! Streams the tiles of all updates through the worker threads or the GPU.
//!
//! A [`pass`] is work on every tile of a [`plan`]. The [`machine`] runs it: [`drive`] hands tiles to threads, each of which
//! reads rows by its [`reader`], and adds the parts in the order of tiles; sums of [`sections`] have one shape wherever a
//! run is cut. [`geometry`] measures updates for a decision, [`combine`] merges them, [`survey`] measures each by itself;
//! [`blocks`] is what they do to rows. [`gpu_ring`] is the GPU's share of a pass, and [`error`] says why a pass stopped.

pub mod blocks;
pub mod combine;
pub mod drive;
pub mod error;
pub mod geometry;
pub mod gpu_ring;
pub mod machine;
pub mod pass;
pub mod plan;
pub mod reader;
pub mod sections;
pub mod survey;
