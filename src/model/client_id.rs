//! Client ids as text: in Unicode NFC, and without characters that forge lines.

use unicode_normalization::UnicodeNormalization;

/// The text in Unicode NFC. Two ids that look the same are then the same.
pub fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// The first character that no client id may hold; `None` if there is none. These are control characters, separators of
/// lines, and characters that change the direction of text.
pub fn forbidden(id: &str) -> Option<char> {
    id.chars().find(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
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
    fn characters_that_forge_lines_are_found() {
        for c in
            ['\0', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}']
        {
            assert_eq!(forbidden(&format!("site{c}3")), Some(c));
        }
        for sound in ["site-3", "Universit\u{e0} di Pisa", "\u{5d0}\u{5d1}", "a/b.c"] {
            assert_eq!(forbidden(sound), None, "{sound}");
        }
    }
}
