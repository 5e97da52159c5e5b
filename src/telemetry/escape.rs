//! Text of others as it may reach a terminal, a table or a log line.
//!
//! Names, ids, paths and metadata come from clients. Control characters could clear the screen, forge a line or hide
//! one; bidirectional controls show text in another order; invisible characters make two names look the same.

use crate::model::client_id::forbidden;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The most characters of a line of a message.
const LONGEST: usize = 4000;

/// Whether a character does other than show itself.
fn is_control(c: char) -> bool {
    forbidden(c.encode_utf8(&mut [0; 4])).is_some()
}

/// The text with every control as its escape, such as `\n` or `\u{1b}`. Line breaks are controls too.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_control(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe.into()
}

/// The text as one line of a message: escaped, and cut where it is longer than any message of ours.
pub fn line(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        None => escaped(text),
        Some((end, _)) => format!("{} ... ({} bytes more)", escaped(&text[..end]), text.len() - end).into(),
    }
}

/// JSON text with every control that JSON leaves alone as its escape. It stays the same JSON.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_left = |c: char| !c.is_ascii() && is_control(c) || c == '\u{7f}';
    if !text.contains(is_left) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_left(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            }
            false => safe.push(c),
        }
    }
    safe.into()
}

/// XML with every character as its escape that no XML may have, such as `\u{fffe}`.
pub fn xml(text: &str) -> Cow<'_, str> {
    let is_barred =
        |c: char| matches!(c, '\u{fffe}' | '\u{ffff}') || c < ' ' && !matches!(c, '\t' | '\n' | '\r');
    if !text.contains(is_barred) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_barred(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_become_their_escapes() {
        let hostile = "a\u{1b}]0;P\u{7}\r\nb\u{9b}2J\u{202e}c\u{2066}\u{2028}d\u{7f}";
        let safe = escaped(hostile);
        assert_eq!(safe, "a\\u{1b}]0;P\\u{7}\\r\\nb\\u{9b}2J\\u{202e}c\\u{2066}\\u{2028}d\\u{7f}");
        assert!(matches!(escaped("größe 模型"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "id": "a\u{9b}b\u{202e}\u{7f}\u{e0061}\n" });
        let safe = json(&value.to_string()).into_owned();
        assert!(safe.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn long_lines_are_cut() {
        let cut = line(&"ä".repeat(5000)).into_owned();
        assert!(cut.ends_with("ä ... (2000 bytes more)"), "{}", &cut[cut.len() - 40..]);
    }
}
