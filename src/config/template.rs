//! The `fedmill.toml` that `round init` writes: keys as comments, with descriptions and defaults.

use crate::config::keys::{self, Key, toml_text};
use serde_json::Value;

/// The longest line of a comment.
const WIDTH: usize = 100;

/// The text of a file with all keys as comments, except for the seed. Without its first `#`, a line `#key = value` sets
/// the default.
pub fn template(seed: u64) -> String {
    commented().replace("\n#seed = 0\n", &format!("\nseed = {seed}\n"))
}

/// The text of a file with all keys as comments.
pub(super) fn commented() -> String {
    let mut text = "\
# The settings of a federation. Every key is optional: a line `#key = value` has its default.
# docs/configuration.md has the same keys as tables. `fedmill round check` reads this file.
"
    .to_owned();
    for section in keys::sections() {
        text += &format!("\n[{}]\n{}", section.name, comment(&section.description));
        for key in &section.keys {
            text += &format!("\n{}{}", comment(&key.description), line(key));
        }
    }
    text
}

/// The line of a key: its default, or an example in a comment that stays one.
fn line(key: &Key) -> String {
    match &key.default {
        Value::Null => format!("# For example: {} = {}\n", key.name, toml_text(&key.example)),
        default => format!("#{} = {}\n", key.name, toml_text(default)),
    }
}

/// A text as lines of comments.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.split("\n\n") {
        let mut line = "#".to_owned();
        for word in paragraph.split(' ') {
            if line.len() + word.len() >= WIDTH {
                lines += &format!("{line}\n");
                line = "#".to_owned();
            }
            line += &format!(" {word}");
        }
        lines += &format!("{line}\n");
    }
    lines
}
