//! Small text files that a user names, and JSON objects with possible duplicate keys.

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// The whole text of a file; `-` is standard input.
///
/// # Errors
///
/// When it cannot be read or is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) }
}

/// The entries of a JSON object in order, with duplicate keys.
///
/// # Errors
///
/// When the text is not a JSON object.
pub fn object_entries(json: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    let entries = parser.deserialize_map(Entries)?;
    parser.end()?;
    Ok(entries)
}
