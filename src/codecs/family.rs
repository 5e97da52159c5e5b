//! The registry's facts about the codecs in one file: help, docs and tests read them.

use crate::codecs::codec::Codec;
use crate::settings::Parse;

/// The codecs of one file: they send the same form of values and have the same settings.
#[derive(Debug)]
pub struct Family {
    /// The form of the values that travel, in a few words.
    pub summary: &'static str,
    /// Every setting, with values that the codecs take. The default is the first value, where a setting has one.
    pub settings: &'static [(&'static str, &'static [&'static str])],
    /// The settings that `compress --table` tries; the defaults if it is empty.
    pub tried: &'static [&'static str],
    /// The name of each codec, and the function that makes it from its settings.
    pub codecs: &'static [(&'static str, Parse<Box<dyn Codec>>)],
}

impl Family {
    /// The names of the codecs.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.codecs.iter().map(|(name, _)| *name)
    }

    /// The names in short: `f16, bf16`, or `u1 to u8`.
    pub fn title(&self) -> String {
        let names: Vec<&str> = self.names().collect();
        match names[..] {
            [first, _, .., last] => format!("{first} to {last}"),
            _ => names.join(", "),
        }
    }

    /// The names, the summary and an example of each setting, on one line.
    pub fn help(&self) -> String {
        let example = |(key, values): &(&str, &[&str])| format!("{key}={}", values.join("|"));
        let settings: Vec<String> = self.settings.iter().map(example).collect();
        let settings = if settings.is_empty() { String::new() } else { format!("; {}", settings.join(", ")) };
        format!("{}: {}{settings}", self.title(), self.summary)
    }

    /// The codecs as `compress --table` tries them.
    pub fn tried(&self) -> impl Iterator<Item = String> {
        self.names().flat_map(|name| {
            let settings = if self.tried.is_empty() { &[""] } else { self.tried };
            settings.iter().map(move |settings| with_settings(name, settings))
        })
    }

    /// The codecs with their defaults, and with each value of each setting.
    pub fn examples(&self) -> impl Iterator<Item = String> {
        let values =
            self.settings.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let settings: Vec<String> = values.map(|(key, value)| format!("{key}={value}")).collect();
        self.names().flat_map(move |name| {
            let with: Vec<String> = settings.iter().map(|settings| with_settings(name, settings)).collect();
            std::iter::once(name.to_owned()).chain(with)
        })
    }
}

fn with_settings(name: &str, settings: &str) -> String {
    if settings.is_empty() { name.to_owned() } else { format!("{name}:{settings}") }
}
