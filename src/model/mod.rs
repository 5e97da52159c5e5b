//! Models without their files: [`dtype`] of values, [`layout`] of tensors, [`sparsity`] of updates, [`tile`]s, tensors
//! of the [`state`]. Knows neither files nor devices.

pub mod dtype;
pub mod layout;
pub mod sparsity;
pub mod state;
pub mod tile;

#[cfg(target_endian = "big")]
compile_error!("safetensors data is little endian and read in place: big-endian targets are not supported");
