//! One aggregate run, from a [`request`] to a published model.
//!
//! [`run`] holds the order of the steps. A [`session`] opens updates, judges them by their [`geometry`] and merges
//! them. [`culprits`] finds the updates that stopped a pass, and [`kinds`] stops a run that would take deltas for
//! weights. [`trusted`] says why the client that a rule trusts is missing. [`controls`] is SCAFFOLD's second merge. A
//! [`mode`] replaces single steps. [`outputs`] checks the paths and `publish` writes the model, its [`metadata`], the
//! [`state`] and the [`report`]. `work` is the input of a backend's forecast, `notices` warns before values are read,
//! [`finite`] checks a model that later runs merge onto, and [`error`] says why a run failed.

pub mod controls;
pub mod culprits;
pub mod error;
pub mod finite;
pub mod geometry;
pub mod kinds;
pub mod metadata;
pub mod mode;
mod notices;
pub mod outputs;
pub mod publish;
pub mod report;
pub mod request;
pub mod run;
pub mod session;
pub mod state;
pub mod trusted;
mod work;
