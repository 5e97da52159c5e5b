//! The remedy and the signal of an error, beyond its message.

use std::error::Error;

/// An error that ends a command.
pub trait Explain: Error + Send + Sync + 'static {
    /// The remedy, if there is one.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The lines of a message with a line for each of several faults; empty for a message of one line.
    fn lines(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the operator's policy refused valid input: the exit status is then 1.
    fn is_refusal(&self) -> bool {
        false
    }

    /// The signal that ended the run, if one did.
    fn signal(&self) -> Option<i32> {
        None
    }
}
