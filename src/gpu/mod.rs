//! Runs the kernels' shaders on a GPU: adapters, and the slots that tiles pass through.
//!
//! This room knows nothing of federated learning.
//!
//! [`job`] and [`step`] are plain data: what a device computes on a tile, and its results; [`run`] and [`shape`] are
//! the same for flat vectors and single dispatches, and [`integers`] for private sums. [`device`] says what an open device does, and `vulkan` does it;
//! without the `gpu` feature `disabled` stands in for `vulkan`. [`shaders`] embeds the WGSL in the program and
//! assembles the text of a kernel; [`variants`] makes the variants of a kernel's text. [`selftest`] lists the kernels
//! that have shaders and compares each with the CPU's.

pub mod device;
pub mod integers;
pub mod job;
pub mod run;
pub mod selftest;
pub mod shaders;
pub mod shape;
pub mod step;
pub mod variants;

#[cfg(not(feature = "gpu"))]
mod disabled;
#[cfg(feature = "gpu")]
mod vulkan;

#[cfg(not(feature = "gpu"))]
pub use disabled::adapters;
#[cfg(feature = "gpu")]
pub use vulkan::adapters;

pub use device::{CombineProgram, Gpu, IntegersProgram, NoiseProgram, PairsProgram, ResidentTile, RingSlot};
pub use selftest::self_test;
