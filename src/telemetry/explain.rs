//! What an error tells the operator beyond its message.

use std::error::Error;

/// An error that a command ends in.
pub trait Explain: Error + Send + Sync + 'static {
    /// The remedy, where there is one.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The signal that ended the run, if one did.
    fn signal(&self) -> Option<i32> {
        None
    }
}
