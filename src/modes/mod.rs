//! Modes: variants of an aggregate run. `tiers` merges each tier of clients by its rule, `tree` merges sums of
//! aggregators, `shards` cuts a run into processes, `dp` makes it private. No mode knows another.

pub mod dp;
pub mod shards;
pub mod tiers;
pub mod tree;
