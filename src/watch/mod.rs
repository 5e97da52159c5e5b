//! Looks at the directories of runs, and ends runs.
//!
//! [`status`] says where a run is, [`rest`] how long it may still take, [`series`] what it
//! measured, [`history`] what happened, and [`cancel`] ends it.

pub mod cancel;
pub mod history;
pub mod rest;
pub mod series;
pub mod status;
