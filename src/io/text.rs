//! Small text files that a user names, and JSON objects with possible duplicate keys.

use crate::io::interrupt;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// The whole text of a file; `-` is standard input. A signal ends the wait for a pipe or terminal that stays silent.
///
/// # Errors
///
/// When it cannot be read or is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    interrupt::wait_for(move || match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(path),
    })
}

/// The entries of a JSON object in order, with duplicate keys.
///
/// # Errors
///
/// When the text is not a JSON object.
pub fn object_entries(json: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let mut entries = Vec::new();
    each_entry(json, |key, value| entries.push((key, value)))?;
    Ok(entries)
}

/// Calls `take` with each entry of a JSON object in order, duplicate keys too. Keeps none of them in memory.
///
/// # Errors
///
/// When the text is not a JSON object. Entries before the fault are taken.
pub fn each_entry<'j>(json: &'j str, take: impl FnMut(String, &'j RawValue)) -> serde_json::Result<()> {
    struct Entries<F>(F);
    impl<'de, F: FnMut(String, &'de RawValue)> Visitor<'de> for Entries<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
            while let Some((key, value)) = map.next_entry()? {
                (self.0)(key, value);
            }
            Ok(())
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_map(Entries(take))?;
    parser.end()
}
