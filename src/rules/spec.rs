//! How users write a rule and its settings: `name` or `name:key=value,key=value`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// Why a text does not name a rule.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SpecError {
    #[error("found rule `{found}`, expected one of {known}")]
    UnknownRule { found: String, known: String },
    #[error("{rule}: found setting `{found}`, expected key=value")]
    NotASetting { rule: String, found: String },
    #[error("{rule}: setting `{key}` is given twice")]
    GivenTwice { rule: String, key: String },
    #[error("{rule} has no setting `{key}`; it has {}", if known.is_empty() { "none" } else { known.as_str() })]
    UnknownSetting { rule: String, key: String, known: String },
    #[error("{rule}: {key}: {why}")]
    BadValue { rule: String, key: String, why: String },
}

/// The settings of a rule as written, taken out one by one.
#[derive(Debug)]
pub struct Settings {
    name: String,
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Settings {
    pub(super) fn parse(text: &str) -> Result<Self, SpecError> {
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
        Ok(Self { name: rule(), values, known: Vec::new() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
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

    /// Checks that every setting was taken.
    pub(super) fn finish(self) -> Result<(), SpecError> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(key) => {
                Err(SpecError::UnknownSetting { rule: self.name, key, known: self.known.join(", ") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::parse;

    #[test]
    fn a_rule_displays_as_it_parses() {
        for text in ["mean", "median", "trimmed-mean", "trimmed-mean:cut=3", "trimmed-mean:cut=0.25"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("medain", "expected one of mean, median, trimmed-mean"),
            ("median:cut=1", "median has no setting `cut`; it has none"),
            ("trimmed-mean:cut", "expected key=value"),
            ("trimmed-mean:cut=1,cut=2", "given twice"),
            ("trimmed-mean:cut=x", "found `x`, expected a count"),
            ("trimmed-mean:trim=1", "it has cut"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
