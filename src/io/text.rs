//! Small text files that a user names.

use std::fs;
use std::io;
use std::path::Path;

/// The whole text of a file; `-` is standard input.
///
/// # Errors
///
/// When it cannot be read or is no text.
pub fn read(path: &Path) -> io::Result<String> {
    if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) }
}
