//! The text of `fedmill.toml` to a [`Config`], with every fault at once.

use crate::config::Config;
use crate::config::error::Fault;
use crate::config::keys;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads a text.
///
/// # Errors
///
/// All faults, in the order of their lines. Text that is not TOML has the faults of TOML alone.
pub(super) fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    let (mut table, not_toml) = DeTable::parse_recoverable(text);
    let faults = |mut faults: Vec<Fault>| {
        faults.sort();
        Err(faults)
    };
    if !not_toml.is_empty() {
        let fault = |why: &toml::de::Error| Fault {
            line: why.span().map(|span| line(text, span.start)),
            what: format!("not TOML: {}", why.message()),
        };
        return faults(not_toml.iter().map(fault).collect());
    }
    let places = Places::of(text, table.get_ref());
    let mut found = Vec::new();
    // A value of a wrong type ends the parser: it is taken out, and the parser starts again.
    let config = loop {
        let mut unknown = Vec::new();
        let parser = toml::Deserializer::from(table.clone());
        match serde_ignored::deserialize::<_, _, Config>(parser, |path| unknown.push(path.to_string())) {
            Ok(config) => {
                found.extend(unknown.iter().map(|key| places.fault(key, unknown_key(key))));
                break config;
            }
            Err(why) => {
                let key = why.span().and_then(|span| places.key_at(&span)).unwrap_or_default().to_owned();
                let what = format!("{key}: {}", in_words(why.message()));
                found.push(places.fault(&key, what));
                if !remove(table.get_mut(), &key) {
                    return faults(found);
                }
            }
        }
    };
    let bad = config.bad_values();
    found.extend(bad.into_iter().map(|bad| places.fault(&bad.key, format!("{}: {}", bad.key, bad.why))));
    if found.is_empty() { Ok(config) } else { faults(found) }
}

/// The line of a byte, from 1.
fn line(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Where the keys stand in the text.
struct Places<'t> {
    text: &'t str,
    /// Each section and each `section.key`, with the range from its name to the end of its value.
    keys: Vec<(String, Range<usize>)>,
}

impl<'t> Places<'t> {
    fn of(text: &'t str, table: &DeTable<'t>) -> Self {
        let mut keys = Vec::new();
        for (section, value) in table {
            keys.push((section.get_ref().to_string(), section.span().start..value.span().end));
            for (key, value) in value.get_ref().as_table().into_iter().flatten() {
                let path = format!("{}.{}", section.get_ref(), key.get_ref());
                keys.push((path, key.span().start..value.span().end));
            }
        }
        Self { text, keys }
    }

    /// The key whose value a range is in; the narrowest, if several are.
    fn key_at(&self, span: &Range<usize>) -> Option<&str> {
        let around = self.keys.iter().filter(|(_, key)| key.start <= span.start && span.end <= key.end);
        around.min_by_key(|(_, key)| key.len()).map(|(key, _)| key.as_str())
    }

    /// A fault of a key.
    fn fault(&self, key: &str, what: String) -> Fault {
        let place = self.keys.iter().find(|(name, _)| name == key);
        Fault { line: place.map(|(_, place)| line(self.text, place.start)), what }
    }
}

/// Takes a section or a key out of the table. Whether it was there.
fn remove(table: &mut DeTable, path: &str) -> bool {
    let (section, key) = path.split_once('.').map_or((path, None), |(section, key)| (section, Some(key)));
    match key {
        None => table.remove(section).is_some(),
        Some(key) => match table.get_mut(section).map(Spanned::get_mut) {
            Some(DeValue::Table(keys)) => keys.remove(key).is_some(),
            _ => false,
        },
    }
}

/// The fault of a key that does not exist.
fn unknown_key(path: &str) -> String {
    let what = if path.contains('.') { "key" } else { "section or key" };
    format!("unknown {what} `{path}`, the nearest is `{}`", keys::nearest(path))
}

/// The parser's message in the words of the other messages.
fn in_words(message: &str) -> String {
    const STARTS: [(&str, &str); 4] = [
        ("invalid type: ", "found "),
        ("invalid value: ", "found "),
        ("invalid length ", "found a list of length "),
        ("unknown variant ", "found "),
    ];
    let start = STARTS.iter().find_map(|(start, ours)| Some((message.strip_prefix(start)?, ours)));
    let message = start.map_or_else(|| message.to_owned(), |(rest, ours)| format!("{ours}{rest}"));
    let Some((found, expected)) = message.split_once(", expected ") else { return message };
    let expected = match expected {
        "u64" => "a whole number that is not negative",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "an array of length 2" => "two values",
        "path string" => "a path",
        expected if expected.starts_with("struct ") => "a section with keys",
        expected => expected,
    };
    format!("{found}, expected {expected}")
}
