//! The output of a run besides its model.
//!
//! [`report`] is the JSON report, [`progress`] the progress bar, [`console`] prints messages, [`cells`] has tables and
//! texts of a terminal, [`warnings`] keeps those that are warnings, [`escape`] keeps the text of others from acting on
//! a terminal, and [`explain`] adds a remedy and a signal to an error. [`manual`] has completions and
//! pages of `man`. [`axis`] is an axis of a chart.
//!
//! Rounds of a federation: [`metrics`] is the record of a round, [`derived`] what follows from several records,
//! [`figures`] the table of what is exported, [`prometheus`] and [`tensorboard`] export it,
//! [`html`] is the report page.

pub mod axis;
pub mod cells;
pub mod console;
pub mod derived;
pub mod escape;
pub mod explain;
pub mod figures;
pub mod html;
pub mod manual;
pub mod metrics;
pub mod progress;
pub mod prometheus;
pub mod report;
pub mod tensorboard;
pub mod warnings;
