//! Client ids as text: in Unicode NFC, without characters that forge lines or that no one sees.

use unicode_normalization::UnicodeNormalization;

/// The text in Unicode NFC. Two ids that look the same are then the same.
pub fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// What a client id must be, for messages.
pub const EXPECTED: &str = "a name without control or invisible characters, of at most 1024 bytes";

/// Bytes of the longest id.
const LONGEST: usize = 1024;

/// Whether an id may name a client.
pub fn is_sound(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST && forbidden(id).is_none()
}

/// The first character that no client id may hold; `None` if there is none. These are control characters, separators of
/// lines, and characters that change the direction of text or that no one sees.
pub fn forbidden(id: &str) -> Option<char> {
    id.chars().find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_invisible(*c))
}

/// Whether text looks the same without a character: `Default_Ignorable_Code_Point` of Unicode 16.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// What names the client of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdSource {
    /// `client_id` in its metadata.
    Metadata,
    /// The name of its file without the ending.
    Stem,
    /// The name of its folder.
    Parent,
    /// Its path as the operator wrote it.
    Path,
}

impl IdSource {
    /// The name of the source, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Stem => "stem",
            Self::Parent => "parent",
            Self::Path => "path",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_decomposed_letters_are_the_same() {
        assert_eq!(nfc("Universita\u{300}"), "Universit\u{e0}");
        assert_eq!(nfc("site-3"), "site-3");
    }

    #[test]
    fn characters_that_forge_lines_or_hide_are_found() {
        let lines =
            ['\0', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}'];
        let hidden =
            ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{2060}', '\u{feff}', '\u{e0041}'];
        for c in lines.into_iter().chain(hidden) {
            assert_eq!(forbidden(&format!("site{c}3")), Some(c));
        }
        for sound in ["site-3", "Universit\u{e0} di Pisa", "\u{5d0}\u{5d1}", "a/b.c"] {
            assert_eq!(forbidden(sound), None, "{sound}");
        }
    }
}
