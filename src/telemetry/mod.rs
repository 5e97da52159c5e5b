//! What a run tells: the report file, progress on a terminal, messages.

pub mod console;
pub mod explain;
pub mod progress;
pub mod report;
