//! Streams tiles of all updates through the worker threads or the GPU.

pub mod blocks;
pub mod combine;
pub mod drive;
pub mod geometry;
pub mod gpu_ring;
pub mod plan;
pub mod reader;
pub mod sections;
pub mod survey;
