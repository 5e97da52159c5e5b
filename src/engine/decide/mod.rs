//! Decides how to combine updates, without access to files.
//!
//! [`judge`] applies a [`method`] to the geometry that a [`source`] measures.

pub mod judge;
pub mod method;
pub mod source;
