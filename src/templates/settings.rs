//! The settings of a template, as `key=value`.

use crate::schema::agent::{Agent, able};
use crate::schema::name::Name;
use crate::settings::meant;
use crate::settings::nearest::nearest;
use crate::telemetry::explain::Explain;
use std::collections::BTreeMap;

/// A setting of a template.
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value where none is given; `None` for one that may be absent, or must be given.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// What it says.
    pub about: &'static str,
}

impl Setting {
    /// A setting that must be given.
    pub const fn required(key: &'static str, about: &'static str) -> Self {
        Self { key, default: None, required: true, about }
    }

    /// A setting that may be absent.
    pub const fn optional(key: &'static str, about: &'static str) -> Self {
        Self { key, default: None, required: false, about }
    }

    /// A setting with a default.
    pub const fn with_default(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Self { key, default: Some(default), required: false, about }
    }
}

/// Why a template makes no plan.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum TemplateError {
    #[error("found template `{found}`, expected one of {known}{}", meant(found, known))]
    Unknown { found: String, known: String },
    #[error("--set {found}: expected key=value")]
    NoSetting { found: String },
    #[error("template {template} has no setting `{key}`; it has {known}{}", meant(key, known))]
    UnknownKey { template: &'static str, key: String, known: String },
    #[error("--set {key} is given twice")]
    Twice { key: String },
    #[error("template {template}: --set {key}=... is missing: {about}")]
    Missing { template: &'static str, key: &'static str, about: &'static str },
    #[error("--set {key}: found `{found}`, expected {expected}")]
    Value { key: String, found: String, expected: &'static str },
    #[error(
        "found {found} agents with capability `{capability}`, expected {least} to {most}{}",
        nearest.as_ref().map_or(String::new(), |nearest| format!("; the nearest capability is `{nearest}`"))
    )]
    Members { capability: String, found: usize, least: usize, most: usize, nearest: Option<String> },
    #[error("template {template}: no agent has the capability `{capability}`")]
    NoAgent { template: &'static str, capability: String, settings: Vec<&'static str> },
    #[error("{0}")]
    Plan(String),
}

impl Explain for TemplateError {
    fn hint(&self) -> Option<String> {
        let registry = "`plan new --agents DIR` takes agents from a registry";
        match self {
            Self::Members { .. } => {
                Some(format!("{registry}; --set command=... runs a command as each agent"))
            }
            Self::NoAgent { capability, settings, .. } if settings.contains(&capability.as_str()) => {
                Some(format!("--set {capability}=... runs a command; {registry}"))
            }
            Self::NoAgent { .. } => Some(registry.to_owned()),
            _ => None,
        }
    }
}

/// The settings that a user gave, with the defaults of the others.
pub struct Given {
    template: &'static str,
    settings: &'static [Setting],
    values: BTreeMap<&'static str, String>,
    registered: BTreeMap<Name, Agent>,
}

impl Given {
    /// Reads settings, each `key=value`.
    ///
    /// # Errors
    ///
    /// When a key is unknown, given twice or missing.
    pub fn read(
        template: &'static str,
        settings: &'static [Setting],
        given: &[String],
        registered: &BTreeMap<Name, Agent>,
    ) -> Result<Self, TemplateError> {
        let mut values = BTreeMap::new();
        for text in given {
            let (key, value) =
                text.split_once('=').ok_or_else(|| TemplateError::NoSetting { found: text.clone() })?;
            let setting = settings.iter().find(|setting| setting.key == key);
            let known = || settings.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ");
            let setting = setting.ok_or_else(|| TemplateError::UnknownKey {
                template,
                key: key.to_owned(),
                known: known(),
            })?;
            if values.insert(setting.key, value.to_owned()).is_some() {
                return Err(TemplateError::Twice { key: key.to_owned() });
            }
        }
        for setting in settings {
            if let Some(default) = setting.default {
                values.entry(setting.key).or_insert_with(|| default.to_owned());
            }
            if setting.required && !values.contains_key(setting.key) {
                return Err(TemplateError::Missing { template, key: setting.key, about: setting.about });
            }
        }
        Ok(Self { template, settings, values, registered: registered.clone() })
    }

    /// Whether a setting has a value.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A setting as text.
    ///
    /// # Errors
    ///
    /// When it has no value.
    pub fn text(&self, key: &str) -> Result<&str, TemplateError> {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        self.values.get(key).map(String::as_str).ok_or_else(|| TemplateError::Missing {
            template: self.template,
            key: setting.map_or("", |setting| setting.key),
            about: setting.map_or("", |setting| setting.about),
        })
    }

    /// The registered agents with a capability, the best first.
    pub fn able(&self, capability: &str) -> Vec<(&Name, &Agent)> {
        let capability: Vec<Name> = capability.parse().into_iter().collect();
        if capability.is_empty() { Vec::new() } else { able(&self.registered, &capability) }
    }

    /// The capability of a registered agent that is nearest to one that no agent has.
    pub fn nearest(&self, capability: &str) -> Option<String> {
        let known = self.registered.values().flat_map(|agent| agent.skills().capabilities).map(Name::as_str);
        let known: Vec<&str> = known.filter(|_| self.able(capability).is_empty()).collect();
        nearest(capability, known).map(str::to_owned)
    }

    /// A setting as a number.
    ///
    /// # Errors
    ///
    /// When it has no value, or is no number.
    pub fn number(&self, key: &str) -> Result<f64, TemplateError> {
        let found = self.text(key)?;
        let number = found.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| TemplateError::Value {
            key: key.to_owned(),
            found: found.to_owned(),
            expected: "a number",
        })
    }

    /// A setting as a number of JSON: whole where it is.
    ///
    /// # Errors
    ///
    /// As [`number`](Self::number).
    pub fn json(&self, key: &str) -> Result<serde_json::Value, TemplateError> {
        let number = self.number(key)?;
        Ok(match self.text(key)?.parse::<i64>() {
            Ok(whole) => whole.into(),
            Err(_) => number.into(),
        })
    }

    /// A setting as a whole number from 1 on.
    ///
    /// # Errors
    ///
    /// When it has no value, or is none.
    pub fn count(&self, key: &str) -> Result<u32, TemplateError> {
        let found = self.text(key)?;
        let number = found.parse().ok().filter(|number: &u32| *number > 0);
        number.ok_or_else(|| TemplateError::Value {
            key: key.to_owned(),
            found: found.to_owned(),
            expected: "a whole number from 1 on",
        })
    }
}
