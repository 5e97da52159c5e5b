//! Modes: ways in which one aggregate run may differ from the plain run. No mode knows another.

pub mod dp;
pub mod shards;
pub mod tiers;
pub mod tree;
