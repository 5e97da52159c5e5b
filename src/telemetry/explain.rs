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

/// What the standard library says of text that is no number, and what fedmill says.
const NUMBERS: [(&str, &str); 5] = [
    ("invalid digit found in string", "expected a whole number such as 10"),
    ("cannot parse integer from empty string", "expected a whole number such as 10"),
    ("number too large to fit in target type", "expected a smaller number"),
    ("number would be zero for non-zero type", "expected a number above 0"),
    ("invalid float literal", "expected a number such as 0.5"),
];

/// A message about an argument in plain words: it says which number was expected.
pub fn plain(text: String) -> String {
    NUMBERS.iter().fold(text, |text, (found, expected)| text.replace(found, expected))
}
