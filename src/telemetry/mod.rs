//! The output of a run besides its model: the [`report`], the [`progress`] bar, messages on the [`console`], and
//! the hints of errors ([`explain`]).

pub mod console;
pub mod explain;
pub mod progress;
pub mod report;
