//! The kernels' shaders on a GPU: adapters, and the slots that tiles pass through. Knows nothing of federated learning.
//!
//! [`job`] and [`step`] are plain data: what a device computes on a tile, and its results. [`device`] says what an open
//! device does. `vulkan` opens devices and does it. [`shaders`] embeds the WGSL in the program and assembles the text of
//! a kernel; [`variants`] lists every text that is ever compiled; `shape` is the struct that all kernels read.
//! `selftest` compares all kernels with the CPU's. Without the `gpu` feature `disabled` stands in for `vulkan`.

pub mod device;
pub mod job;
mod selftest;
pub mod step;

#[cfg(not(feature = "gpu"))]
mod disabled;
#[cfg(feature = "gpu")]
pub mod shaders;
#[cfg(feature = "gpu")]
mod shape;
#[cfg(feature = "gpu")]
pub mod variants;
#[cfg(feature = "gpu")]
mod vulkan;

#[cfg(not(feature = "gpu"))]
pub use disabled::adapters;
#[cfg(feature = "gpu")]
pub use vulkan::adapters;

pub use device::{CombineProgram, Gpu, PairsProgram, ResidentTile, RingSlot};
pub use selftest::self_test;
