//! Texts of files in prompts and bodies.
//!
//! A model cannot open a path: where a reference stands for a file, the request has the text of the file. The work of an
//! instance is known without a look at files, so the text comes in when the request is made. Until then the path stands
//! between two NUL characters, which no other part of a text may have.

use super::event::Failure;
use crate::io::text;
use serde_json::Value;
use std::path::Path;

/// The mark around a path.
pub const MARK: char = '\0';

/// The most bytes of a file in a request.
const MOST_BYTES: u64 = 4 << 20;

/// The place of a file's text.
pub fn quote(path: &str) -> String {
    format!("{MARK}{path}{MARK}")
}

/// A text with those of the files that it quotes.
///
/// # Errors
///
/// When a file cannot be read, is no UTF-8, or is too large.
pub fn in_text(quoted: &str) -> Result<String, Failure> {
    let mut filled = String::new();
    for (place, part) in quoted.split(MARK).enumerate() {
        match place % 2 {
            0 => filled.push_str(part),
            _ => filled.push_str(&read(Path::new(part))?),
        }
    }
    Ok(filled)
}

/// A body, each text of it with those of the files that it quotes.
///
/// # Errors
///
/// As [`in_text`].
pub fn in_body(body: &Value) -> Result<Value, Failure> {
    Ok(match body {
        Value::String(text) => in_text(text)?.into(),
        Value::Array(list) => list.iter().map(in_body).collect::<Result<_, _>>()?,
        Value::Object(object) => {
            let filled = object.iter().map(|(key, value)| Ok((key.clone(), in_body(value)?)));
            Value::Object(filled.collect::<Result<_, Failure>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => body.clone(),
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    let fault = |why: String| Failure::Start(format!("{}: {why}", path.display()));
    text::read_at_most(path, MOST_BYTES).map_err(|why| fault(format!("cannot be part of a request: {why}")))
}
