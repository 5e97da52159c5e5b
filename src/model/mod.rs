//! The shape of models. Knows neither files nor devices.
//!
//! [`client_id`] has the text of client ids, [`dtype`] the dtypes of tensors, [`layout`] their order and coordinates,
//! [`tile`] a range of coordinates of every client, [`state`] the tensors kept between rounds, and [`sparsity`] which
//! values of an update were sent. [`shown`] prints numbers. [`class`](mod@class) tells parameters, statistics and
//! opaque bytes apart, and [`faults`] are what is wrong with one file.

pub mod class;
pub mod client_id;
pub mod dtype;
pub mod faults;
pub mod layout;
pub mod shown;
pub mod sparsity;
pub mod state;
pub mod tile;

#[cfg(target_endian = "big")]
compile_error!("safetensors data is little endian and read in place: big-endian targets are not supported");
