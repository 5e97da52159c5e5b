//! What events cost: an epsilon at a delta.

pub mod steps;
