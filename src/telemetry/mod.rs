//! The output of a run besides its model.
//!
//! [`report`] is the JSON report, [`progress`] the progress bar, [`console`] prints messages, [`warnings`] keeps those
//! that are warnings, [`escape`] keeps the text of others from acting on a terminal, and [`explain`] adds a remedy and a
//! signal to an error.

pub mod console;
pub mod escape;
pub mod explain;
pub mod progress;
pub mod report;
pub mod warnings;
