//! The kernels' shaders on a GPU: adapters, pipelines, and the slots that tiles pass through. Knows kernels, nothing of
//! federated learning.
//!
//! [`job`] says what may be asked of a tile, [`step`] what the server's step is there. [`shaders`] holds the WGSL that is embedded in the program and puts a
//! kernel's text together; [`variants`] lists all that is ever asked for. `adapter` finds devices, `device` opens one
//! and compiles, `program` turns a job into steps, `slot` is one place of the ring: it takes a tile in, runs a program
//! on it and hands the results back. `vector` runs the kernels of codecs over flat vectors. `measure` finds what a device can do at most, `selftest` runs all kernels on a
//! little data. Without the `gpu` feature `disabled` stands in their place and has nothing to offer.

pub mod job;
pub mod step;

#[cfg(feature = "gpu")]
mod adapter;
#[cfg(feature = "gpu")]
mod device;
#[cfg(feature = "gpu")]
mod measure;
#[cfg(feature = "gpu")]
mod memory;
#[cfg(feature = "gpu")]
mod program;
#[cfg(feature = "gpu")]
mod selftest;
#[cfg(feature = "gpu")]
pub mod shaders;
#[cfg(feature = "gpu")]
mod slot;
#[cfg(feature = "gpu")]
pub mod variants;
#[cfg(feature = "gpu")]
mod vector;

#[cfg(feature = "gpu")]
pub use {
    adapter::adapters,
    device::Gpu,
    program::{CombineProgram, PairsProgram},
    selftest::self_test,
    slot::{ResidentTile, RingSlot},
    vector::Vectors,
};

#[cfg(not(feature = "gpu"))]
mod disabled;
#[cfg(not(feature = "gpu"))]
pub use disabled::{CombineProgram, Gpu, PairsProgram, ResidentTile, RingSlot, Vectors, adapters, self_test};
