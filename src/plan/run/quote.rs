//! Texts of files in prompts and bodies.
//!
//! A model cannot open a path: where a reference stands for a file, the request has the text of the file. The work of an
//! instance is known without a look at files, so the text comes in when the request is made. Until then the path stands
//! between two NUL characters, which no other part of a text may have.

use super::event::Failure;
use super::world::{Job, Task};
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

/// A job with the texts of files in its request.
///
/// # Errors
///
/// When a file cannot be read, is no UTF-8, or is too large.
pub fn with_texts(job: &Job) -> Result<Job, Failure> {
    let mut job = job.clone();
    match &mut job.task {
        Task::Command { .. } | Task::Plan { .. } | Task::Reduce { .. } => {}
        Task::Http { body, .. } => body.iter_mut().try_for_each(fill_json)?,
        Task::Ollama { prompt, .. } => *prompt = fill(prompt)?,
    }
    Ok(job)
}

fn fill_json(value: &mut Value) -> Result<(), Failure> {
    match value {
        Value::String(text) => *text = fill(text)?,
        Value::Array(list) => list.iter_mut().try_for_each(fill_json)?,
        Value::Object(object) => object.values_mut().try_for_each(fill_json)?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn fill(quoted: &str) -> Result<String, Failure> {
    let mut filled = String::new();
    for (place, part) in quoted.split(MARK).enumerate() {
        match place % 2 {
            0 => filled.push_str(part),
            _ => filled.push_str(&read(Path::new(part))?),
        }
    }
    Ok(filled)
}

fn read(path: &Path) -> Result<String, Failure> {
    let fault = |why: String| Failure::Start(format!("{}: {why}", path.display()));
    text::read_at_most(path, MOST_BYTES).map_err(|why| fault(format!("cannot be part of a request: {why}")))
}
