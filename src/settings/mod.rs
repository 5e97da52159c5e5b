//! How an operator writes a rule, step, strategy or codec: `name` or `name:key=value,key=value`.
//!
//! A registry is a slice of [`RegistryEntry`], one for each name. The help, the tables in `docs` and the generic tests
//! read it. [`share`] parses a part of the clients, [`size`] a number of bytes, [`numbers`] checks numbers of
//! strategies, [`duration`] is a duration as text, [`nearest`] finds the name that an operator meant, [`places`] the lines of
//! JSON paths, and [`shard`] is a part of a run.

pub mod duration;
pub mod nearest;
pub mod numbers;
pub mod places;
pub mod shard;
pub mod share;
pub mod size;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

/// Why a text names nothing in a registry.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SpecError {
    #[error("found {kind} `{found}`, expected one of {known}{}", meant(found, known))]
    UnknownName { kind: &'static str, found: String, known: String },
    #[error("{rule}: setting `{key}` is missing, expected {rule}:{key}={example}")]
    Missing { rule: String, key: &'static str, example: &'static str },
    #[error("{rule}: found setting `{found}`, expected key=value")]
    NotASetting { rule: String, found: String },
    #[error("{rule}: setting `{key}` is given twice")]
    GivenTwice { rule: String, key: String },
    #[error("{rule} has no setting `{key}`; it has {}{}", if known.is_empty() { "none" } else { known.as_str() }, meant(key, known))]
    UnknownSetting { rule: String, key: String, known: String },
    #[error("{rule}: {key}: {why}")]
    BadValue { rule: String, key: String, why: String },
}

/// A question for the known name that is much like an unknown one; `known` has the names as a list in a sentence.
pub fn meant(found: &str, known: &str) -> String {
    let name = nearest::nearest(found, known.split(", "));
    name.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// The source of a definition, if sources define one name differently.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Definition {
    /// The paper.
    #[default]
    Paper,
    /// The library ByzFL.
    Byzfl,
    /// Flower's message API, `flwr.serverapp.strategy`, as of version 1.42.
    Flower,
    /// Flower's first API, `flwr.server.strategy`, as of version 1.42.
    FlowerLegacy,
    /// TensorFlow Federated. It defines server optimisers differently, and no rule.
    Tff,
}

impl Definition {
    /// Whether it is the paper's.
    pub fn is_paper(self) -> bool {
        self == Self::Paper
    }
}

impl Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Byzfl => "byzfl",
            Self::Flower => "flower",
            Self::FlowerLegacy => "flower-legacy",
            Self::Tff => "tff",
        })
    }
}

/// A name in a registry and what it stands for.
#[derive(Debug)]
pub struct RegistryEntry<T> {
    /// The name that an operator writes.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Its settings, in the order in which a text displays them. Their examples are sound together.
    pub settings: &'static [Setting],
    /// Makes it from its settings.
    pub parse: Parse<T>,
}

/// Makes a value from its settings.
pub type Parse<T> = fn(&mut Settings) -> Result<T, SpecError>;

/// One setting of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key that an operator writes.
    pub key: &'static str,
    /// A value: the default, if that is a plain value. `ID` stands for the id of a client.
    pub example: &'static str,
    /// What it decides, and its default where `example` is another value.
    pub meaning: &'static str,
    /// Whether an operator has to write it.
    pub is_required: bool,
}

impl Setting {
    /// A setting that has a default.
    pub const fn new(key: &'static str, example: &'static str, meaning: &'static str) -> Self {
        Self { key, example, meaning, is_required: false }
    }

    /// A setting that an operator has to write.
    pub const fn required(key: &'static str, example: &'static str, meaning: &'static str) -> Self {
        Self { key, example, meaning, is_required: true }
    }
}

impl<T> RegistryEntry<T> {
    /// The name with its settings as the help shows them: `name:required=VALUE[,optional=VALUE]`.
    pub fn usage(&self) -> String {
        let (required, optional): (Vec<&Setting>, Vec<&Setting>) =
            self.settings.iter().partition(|setting| setting.is_required);
        let list = |settings: &[&Setting]| {
            let texts: Vec<String> = settings.iter().map(|s| format!("{}={}", s.key, s.example)).collect();
            texts.join(",")
        };
        match (required.is_empty(), optional.is_empty()) {
            (true, true) => self.name.to_owned(),
            (false, true) => format!("{}:{}", self.name, list(&required)),
            (true, false) => format!("{}[:{}]", self.name, list(&optional)),
            (false, false) => format!("{}:{}[,{}]", self.name, list(&required), list(&optional)),
        }
    }
}

/// The names of all entries of a registry, as a list in a sentence.
pub fn names<T>(registry: &[RegistryEntry<T>]) -> String {
    registry.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

/// A line for each entry of a registry: its usage and what it does.
pub fn lines<T>(registry: &[RegistryEntry<T>]) -> String {
    let line = |entry: &RegistryEntry<T>| format!("- {}: {}", entry.usage(), entry.summary);
    registry.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The settings of an entry as an operator wrote them. Parsing takes them out one by one.
#[derive(Debug)]
pub struct Settings {
    name: String,
    declared: &'static [Setting],
    definition: Definition,
    values: BTreeMap<String, String>,
    /// The keys that parsing asked for.
    known: Vec<&'static str>,
}

impl Settings {
    fn parse(
        (name, declared): (&str, &'static [Setting]),
        text: &str,
        definition: Definition,
    ) -> Result<Self, SpecError> {
        let rule = || name.to_owned();
        let mut values = BTreeMap::new();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(SpecError::NotASetting { rule: rule(), found: setting.to_owned() });
            };
            if values.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(SpecError::GivenTwice { rule: rule(), key: key.to_owned() });
            }
        }
        Ok(Self { name: rule(), declared, definition, values, known: Vec::new() })
    }

    /// The definition that the operator asks for.
    pub fn definition(&self) -> Definition {
        self.definition
    }

    /// Takes the value of a setting; `None` means that the operator did not write it.
    ///
    /// # Errors
    ///
    /// When the value does not parse.
    pub fn take<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Result<Option<T>, SpecError> {
        self.known.push(key);
        let Some(value) = self.values.remove(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|why: T::Err| self.bad(key, why.to_string()))
    }

    /// Takes the value of a setting that the operator has to write.
    ///
    /// # Errors
    ///
    /// When it is missing, or does not parse.
    pub fn require<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Result<T, SpecError> {
        let value = self.take(key)?;
        let declared = self.declared.iter().find(|setting| setting.key == key);
        let example = declared.map_or("VALUE", |setting| setting.example);
        value.ok_or_else(|| SpecError::Missing { rule: self.name.clone(), key, example })
    }

    /// The error for a value that makes no sense.
    pub fn bad(&self, key: &str, why: impl Into<String>) -> SpecError {
        SpecError::BadValue { rule: self.name.clone(), key: key.to_owned(), why: why.into() }
    }

    /// Checks that parsing took every setting.
    fn finish(self) -> Result<(), SpecError> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(key) => {
                Err(SpecError::UnknownSetting { rule: self.name, key, known: self.known.join(", ") })
            }
        }
    }
}

/// Reads a text by a table of names and parsers, by the papers' definitions.
///
/// # Errors
///
/// As [`parse_as`].
pub fn parse<T>(kind: &'static str, text: &str, table: &[(&'static str, Parse<T>)]) -> Result<T, SpecError> {
    let entry = |(name, parse): &(&'static str, Parse<T>)| RegistryEntry {
        name,
        summary: "",
        settings: &[],
        parse: *parse,
    };
    parse_as(kind, text, Definition::Paper, &table.iter().map(entry).collect::<Vec<_>>())
}

/// Reads a text by a registry, by the definition of a library where that differs from the paper's.
///
/// # Errors
///
/// When the registry has no such name, or the name has no such setting or value.
pub fn parse_as<T>(
    kind: &'static str,
    text: &str,
    definition: Definition,
    registry: &[RegistryEntry<T>],
) -> Result<T, SpecError> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let entry = registry.iter().find(|entry| entry.name == name).ok_or_else(|| SpecError::UnknownName {
        kind,
        found: name.to_owned(),
        known: names(registry),
    })?;
    let mut settings = Settings::parse((name, entry.settings), rest, definition)?;
    let parsed = (entry.parse)(&mut settings)?;
    settings.finish()?;
    Ok(parsed)
}

/// Splits a list of rules at the commas between rules. A part with `=` but without `:` is a setting of the rule
/// before it.
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

/// The text that parses to an entry with these settings; a setting without a value is left out.
pub(crate) fn spec_text(name: &str, settings: &[(&str, Option<&dyn Display>)]) -> String {
    let given = settings.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}")));
    let given = given.collect::<Vec<_>>().join(",");
    if given.is_empty() { name.to_owned() } else { format!("{name}:{given}") }
}

/// The value of a setting for [`spec_text`]; `None` if it has its default.
pub(crate) fn value<T: Display>(setting: &Option<T>) -> Option<&dyn Display> {
    setting.as_ref().map(|value| value as &dyn Display)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An entry as an operator writes it.
    fn spec(name: &str, settings: &[String]) -> String {
        if settings.is_empty() { name.to_owned() } else { format!("{name}:{}", settings.join(",")) }
    }

    /// A value as settings display it: a number without an exponent, anything else as it is.
    fn plain(value: &str) -> String {
        value.parse().map_or_else(|_| value.to_owned(), |number: f64| number.to_string())
    }

    /// Checks each entry of a registry. With any number of its first settings, it displays as it was written, with
    /// numbers without an exponent. It takes the settings that it declares, in that order. `parse` reads by the
    /// registry.
    pub(crate) fn check_registry<T: Display + fmt::Debug>(
        registry: &[RegistryEntry<T>],
        parse: impl Fn(&str) -> Result<T, SpecError>,
    ) {
        for entry in registry {
            let settings = |show: &dyn Fn(&str) -> String| -> Vec<String> {
                entry.settings.iter().map(|s| format!("{}={}", s.key, show(s.example))).collect()
            };
            let required = entry.settings.iter().take_while(|setting| setting.is_required).count();
            assert!(
                entry.settings[required..].iter().all(|s| !s.is_required),
                "required settings come first"
            );
            let written = settings(&|example| example.to_owned());
            let displayed = settings(&plain);
            for count in required..=written.len() {
                let text = |settings: &[String]| spec(entry.name, &settings[..count]);
                assert_eq!(parse(&text(&written)).unwrap().to_string(), text(&displayed));
            }
            let unknown = spec(entry.name, &[written, vec!["?=?".to_owned()]].concat());
            let keys = entry.settings.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ");
            let (rule, key) = (entry.name.to_owned(), "?".to_owned());
            assert_eq!(parse(&unknown).unwrap_err(), SpecError::UnknownSetting { rule, key, known: keys });
            assert!(entry.summary.ends_with('.') && !entry.summary.contains(". "), "{}", entry.summary);
            assert!(entry.settings.iter().all(|s| !s.meaning.is_empty() && !s.meaning.ends_with('.')));
        }
    }

    fn entry(settings: &'static [Setting]) -> RegistryEntry<&'static str> {
        RegistryEntry { name: "name", summary: "It takes nothing.", settings, parse: |_| Ok("name") }
    }

    #[test]
    fn usages_show_what_is_required_and_what_is_not() {
        const NEEDED: Setting = Setting::required("a", "1", "a number");
        const OTHER: Setting = Setting::new("b", "2", "another");
        let all = [entry(&[]), entry(&[NEEDED]), entry(&[OTHER, OTHER]), entry(&[NEEDED, OTHER])];
        let usages = all.map(|entry| entry.usage());
        assert_eq!(usages, ["name", "name:a=1", "name[:b=2,b=2]", "name:a=1[,b=2]"]);
    }

    #[test]
    #[should_panic(expected = "UnknownSetting")]
    fn a_setting_that_is_declared_and_not_taken_is_found() {
        let registry = [entry(const { &[Setting::new("b", "2", "another")] })];
        check_registry(&registry, |text| parse_as("thing", text, Definition::Paper, &registry));
    }
}
