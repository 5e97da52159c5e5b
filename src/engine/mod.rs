//! One aggregate run, in the order of the data.
//!
//! `intake` admits updates, `passes` stream their tiles, and `decide` judges them. `aggregate` runs these steps and
//! publishes. `backend` chooses the CPU or the GPU.

pub mod aggregate;
pub mod backend;
pub mod decide;
pub mod intake;
pub mod passes;
