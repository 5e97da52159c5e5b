//! One aggregate run, from a [`request`] to a published model.
//!
//! [`run`] is the story: a [`session`] takes updates in, judges them by their [`geometry`] and merges them; [`controls`] is
//! SCAFFOLD's second merge. A [`mode`] is where a run may differ. `outputs` and `publish` write model, [`state`] and
//! [`report`] with their [`metadata`]; `work` is what a backend's forecast needs; [`error`] says why a run failed.

pub mod controls;
pub mod error;
pub mod geometry;
pub mod metadata;
pub mod mode;
mod outputs;
pub mod publish;
pub mod report;
pub mod request;
pub mod run;
pub mod session;
pub mod state;
mod work;
