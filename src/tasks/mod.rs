//! Plans in tasks: each process does one task, and files say what came of it.
//!
//! Another program schedules the tasks. [`units`] cuts a plan into them, [`folder`] has the files that tasks share, and
//! [`work`] runs one.

pub mod folder;
pub mod units;
pub mod work;
