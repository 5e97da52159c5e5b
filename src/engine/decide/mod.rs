//! Decides from the geometry of the updates how to combine them, without files: [`judge`].

pub mod judge;
