//! The files by which a person answers a gate.
//!
//! `gates/STAGE.question` says what a stage waits for, `gates/STAGE` is the answer, and `gates/STAGE.1` is the first
//! answer once the run took it.

use super::error::RunError;
use crate::io::{folder, text};
use crate::schema::policy::{Answer, Gate};
use crate::telemetry::console::QUESTION;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most bytes of an answer.
const MOST_OF_AN_ANSWER: u64 = 4 << 10;

/// What stands in files of gates and is no answer: the text, and how often it was read.
#[derive(Default)]
pub struct Answers {
    strange: BTreeMap<String, (String, u32)>,
}

/// The file with the answer to a gate, in the directory of a run.
fn path_of(root: &Path, name: &str) -> PathBuf {
    root.join("gates").join(name)
}

/// The file with the answer of this number, once the run took it.
fn taken(root: &Path, name: &str, number: u32) -> PathBuf {
    path_of(root, &format!("{name}.{number}"))
}

/// Whether a file cannot be read because it holds no text of a person.
fn is_no_text(why: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput};
    matches!(why.kind(), FileTooLarge | InvalidData | InvalidInput)
}

impl Answers {
    /// The answer of a person; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// When its file cannot be read.
    pub fn read(&mut self, root: &Path, name: &str) -> Result<Option<Answer>, RunError> {
        let path = path_of(root, name);
        if !folder::exists(&path) {
            return Ok(None);
        }
        let text = match text::read_at_most(&path, MOST_OF_AN_ANSWER) {
            Ok(text) => text,
            // A pipe, a long file or bytes that are no text are no answer: the timeout of the gate holds.
            Err(why) if is_no_text(&why) => return Ok(None),
            Err(source) => return Err(RunError::Read { path, source }),
        };
        match text.trim_start_matches('\u{feff}').trim() {
            "approve" => Ok(Some(Answer::Approve)),
            "reject" => Ok(Some(Answer::Reject)),
            "" => Ok(None),
            found => {
                let (before, times) = self.strange.entry(name.to_owned()).or_default();
                if before == found {
                    *times += 1;
                } else {
                    (*before, *times) = (found.to_owned(), 1);
                }
                // At the first look a person may still be writing.
                if *times == 2 {
                    let shown: String = found.chars().take(40).collect();
                    tracing::warn!(
                        "{}: found `{}`, which is no answer: expected approve or reject",
                        path.display(),
                        shown.escape_debug()
                    );
                }
                Ok(None)
            }
        }
    }
}

/// Says that a stage waits for a person, on standard error and in a file beside that of the answer.
///
/// # Errors
///
/// When the file cannot be written.
pub fn ask(root: &Path, name: &str, gate: &Gate, until: f64) -> Result<(), RunError> {
    let answer = word(&path_of(root, name).to_string_lossy());
    let until = Timestamp::from_second(until as i64).map_or_else(|_| String::new(), |time| time.to_string());
    let question = if gate.question.is_empty() { String::new() } else { format!(": {}", gate.question) };
    let default = match gate.default {
        Answer::Approve => "approve",
        Answer::Reject => "reject",
    };
    let waits = format!("stage `{name}` waits for an answer until {until}{question}");
    let how = format!(
        "`echo approve > {answer}` lets it go on, `echo reject > {answer}` ends it; without an answer it is {default}"
    );
    let path = path_of(root, &format!("{name}.question"));
    let written = folder::write_file_on_disk(&path, format!("{waits}\n{how}\n").as_bytes());
    written.map_err(|source| RunError::Write { path, source })?;
    tracing::warn!(target: QUESTION, hint = how.as_str(), "{waits}");
    Ok(())
}

/// Moves the answer aside that is the one of this number, if that did not happen yet.
///
/// # Errors
///
/// When it cannot be moved.
pub fn put_aside(root: &Path, name: &str, number: u32) -> Result<(), RunError> {
    let (from, to) = (path_of(root, name), taken(root, name, number));
    if !folder::exists(&from) || folder::exists(&to) {
        return Ok(());
    }
    folder::rename(&from, &to).map_err(|source| RunError::Write { path: to, source })
}

/// A path as a shell takes it.
fn word(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./@+".contains(c);
    if path.chars().all(is_plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
