//! `fedmill gram`, `decide`, `combine` and `merge`: one run in shards, on several machines.

pub(super) mod combine;
pub(super) mod decide;
pub(super) mod gram;
pub(super) mod merge;
