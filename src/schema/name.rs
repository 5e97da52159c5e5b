//! Names in a plan: those that conditions may read, and those that only people read.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

/// The most characters of a name.
const LONGEST: usize = 64;

/// Words that conditions keep for themselves, so that no stage, parameter, input, output or metric may have them as a
/// name.
const RESERVED: [&str; 22] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "out",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The name of a stage, loop, parameter, input, output, case or metric: a word that a condition can read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// The name of a plan or an agent, which may also have capitals, dots and hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
        if RESERVED.contains(&text.as_str()) {
            return Err(format!("found `{text}`, which conditions reserve, expected another word"));
        }
        if starts && text.chars().all(fits) && text.len() <= LONGEST {
            return Ok(Self(text));
        }
        Err(format!(
            "found `{}`, expected a letter from a to z, then at most 63 of a to z, 0 to 9 and _",
            text.escape_debug()
        ))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && text.chars().all(fits) && text.len() <= LONGEST {
            return Ok(Self(text));
        }
        Err(format!(
            "found `{}`, expected a letter or digit, then at most 63 letters, digits, dots, hyphens and _",
            text.escape_debug()
        ))
    }
}

macro_rules! text {
    ($($name:ident = $pattern:literal),*) => {$(
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::try_from(text.to_owned())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    )*};
}

text! {
    Id = "^[a-z][a-z0-9_]{0,63}$",
    Name = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_condition_cannot_read_is_refused() {
        for good in ["a", "gram_2", "krum"] {
            assert_eq!(Id::from_str(good).unwrap().as_str(), good);
        }
        for bad in ["", "2a", "Gram", "a-b", "a.b", "loop", "in", "é", &"a".repeat(65)] {
            assert!(Id::from_str(bad).is_err(), "{bad}");
        }
        assert!(Name::from_str("agent-1.b_C").is_ok());
        for bad in ["", "-a", "a b", "a/b", "..", "é"] {
            assert!(Name::from_str(bad).is_err(), "{bad}");
        }
    }
}
