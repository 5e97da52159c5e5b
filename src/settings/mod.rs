//! How users write a rule or a step and its settings: `name` or `name:key=value,key=value`.

pub mod numbers;
pub mod share;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

/// Why a text does not name a rule.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SpecError {
    #[error("found {kind} `{found}`, expected one of {known}")]
    UnknownName { kind: &'static str, found: String, known: String },
    #[error("{rule}: setting `{key}` is missing, expected {rule}:{key}={example}")]
    Missing { rule: String, key: &'static str, example: &'static str },
    #[error("{rule}: found setting `{found}`, expected key=value")]
    NotASetting { rule: String, found: String },
    #[error("{rule}: setting `{key}` is given twice")]
    GivenTwice { rule: String, key: String },
    #[error("{rule} has no setting `{key}`; it has {}", if known.is_empty() { "none" } else { known.as_str() })]
    UnknownSetting { rule: String, key: String, known: String },
    #[error("{rule}: {key}: {why}")]
    BadValue { rule: String, key: String, why: String },
}

/// Whose definition of a rule runs, where definitions differ.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Definition {
    /// That of its paper.
    #[default]
    Paper,
    /// That of the library ByzFL.
    Byzfl,
    /// That of Flower.
    Flower,
    /// That of TensorFlow Federated, whose server optimisers are its own; it has none of the rules.
    Tff,
}

impl Definition {
    /// Whether it is the paper's.
    pub fn is_paper(self) -> bool {
        self == Self::Paper
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Byzfl => "byzfl",
            Self::Flower => "flower",
            Self::Tff => "tff",
        })
    }
}

/// The settings of a rule as written, taken out one by one.
#[derive(Debug)]
pub struct Settings {
    name: String,
    definition: Definition,
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Settings {
    fn parse(text: &str, definition: Definition) -> Result<Self, SpecError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let rule = || name.to_owned();
        let mut values = BTreeMap::new();
        for setting in rest.split(',').filter(|setting| !setting.is_empty()) {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(SpecError::NotASetting { rule: rule(), found: setting.to_owned() });
            };
            if values.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(SpecError::GivenTwice { rule: rule(), key: key.to_owned() });
            }
        }
        Ok(Self { name: rule(), definition, values, known: Vec::new() })
    }

    /// Whose definition is asked for.
    pub fn definition(&self) -> Definition {
        self.definition
    }

    /// The value of a setting, if it was given.
    ///
    /// # Errors
    ///
    /// When it does not parse.
    pub fn take<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Result<Option<T>, SpecError> {
        self.known.push(key);
        let Some(value) = self.values.remove(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|why: T::Err| SpecError::BadValue {
            rule: self.name.clone(),
            key: key.to_owned(),
            why: why.to_string(),
        })
    }

    /// The value of a setting that has to be given.
    ///
    /// # Errors
    ///
    /// When it is not, or does not parse.
    pub fn require<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        example: &'static str,
    ) -> Result<T, SpecError> {
        let value = self.take(key)?;
        value.ok_or_else(|| SpecError::Missing { rule: self.name.clone(), key, example })
    }

    /// The error that the value of a setting makes no sense.
    pub fn bad(&self, key: &str, why: impl Into<String>) -> SpecError {
        SpecError::BadValue { rule: self.name.clone(), key: key.to_owned(), why: why.into() }
    }

    /// Checks that every setting was taken.
    fn finish(self) -> Result<(), SpecError> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(key) => {
                Err(SpecError::UnknownSetting { rule: self.name, key, known: self.known.join(", ") })
            }
        }
    }
}

/// Makes something of its settings.
pub type Parse<T> = fn(&mut Settings) -> Result<T, SpecError>;

/// Reads a text by the table of the names it may use.
///
/// # Errors
///
/// When the table has no such name, or the name has no such setting or value.
pub fn parse<T>(kind: &'static str, text: &str, table: &[(&str, Parse<T>)]) -> Result<T, SpecError> {
    parse_as(kind, text, Definition::Paper, table)
}

/// Reads a text by the table of the names it may use, with the definition of a library.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_as<T>(
    kind: &'static str,
    text: &str,
    definition: Definition,
    table: &[(&str, Parse<T>)],
) -> Result<T, SpecError> {
    let mut settings = Settings::parse(text, definition)?;
    let (_, parse) = table.iter().find(|(name, _)| *name == settings.name).ok_or_else(|| {
        let known = table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        SpecError::UnknownName { kind, found: settings.name.clone(), known }
    })?;
    let parsed = parse(&mut settings)?;
    settings.finish()?;
    Ok(parsed)
}

/// Splits a list of rules at its commas, those between the settings of one rule left alone: a part with `=` but
/// without a name of its own goes on with the settings before it.
pub fn split_list(text: &str) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    for part in text.split(',') {
        match rules.last_mut() {
            Some(last) if part.contains('=') && !part.contains(':') => *last = format!("{last},{part}"),
            _ => rules.push(part.to_owned()),
        }
    }
    rules
}

/// A number above zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Positive(pub f64);

impl FromStr for Positive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
        number.map(Self).ok_or_else(|| format!("found `{text}`, expected a number above zero"))
    }
}

impl Display for Positive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text of a rule with those of its settings that were given.
pub(crate) fn written(name: &str, settings: &[(&str, Option<&dyn Display>)]) -> String {
    let given = settings.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}")));
    let given = given.collect::<Vec<_>>().join(",");
    if given.is_empty() { name.to_owned() } else { format!("{name}:{given}") }
}
