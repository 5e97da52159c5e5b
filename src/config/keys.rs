//! The keys of `fedmill.toml` with their descriptions, from the types of the sections.

use crate::config::Config;
use crate::io::text::object_entries;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::cmp::Ordering;

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    /// The name between brackets.
    pub name: String,
    /// What its keys are about.
    pub description: String,
    /// The keys, in the order of the type.
    pub keys: Vec<Key>,
}

/// A key of a section.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name.
    pub name: String,
    /// What it sets.
    pub description: String,
    /// The kind of its values, in words.
    pub kind: String,
    /// The default; `Null` for a key that is unset by default.
    pub default: Value,
    /// A value for a key that is unset by default.
    pub example: Value,
    /// The key of the source configurations that it translates.
    pub origin: String,
    /// The phases that read it.
    pub reader: String,
}

/// Every section, in the order of the type.
pub fn sections() -> Vec<Section> {
    let schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Config>();
    let defaults = serde_json::to_string(&Config::default()).unwrap_or_default();
    let section = |(name, keys): (String, &serde_json::value::RawValue)| {
        let schema = &schema.as_value()["properties"][&name];
        let keys = entries(keys.get()).into_iter();
        let key = |(name, default): (String, &serde_json::value::RawValue)| {
            let default = serde_json::from_str(default.get()).unwrap_or_default();
            Key::of(&schema["properties"][&name], name, default)
        };
        Section { keys: keys.map(key).collect(), description: text(schema, "description"), name }
    };
    entries(&defaults).into_iter().map(section).collect()
}

/// The entries of an object in the order of the text, which is the order of the type.
fn entries(json: &str) -> Vec<(String, &serde_json::value::RawValue)> {
    object_entries(json).unwrap_or_default()
}

/// A text of a schema on one line per paragraph.
fn text(schema: &Value, key: &str) -> String {
    let paragraphs = schema[key].as_str().unwrap_or_default().split("\n\n");
    paragraphs.map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

impl Key {
    fn of(schema: &Value, name: String, default: Value) -> Self {
        Self {
            name,
            description: text(schema, "description"),
            kind: kind(schema),
            default,
            example: schema["x-example"].clone(),
            origin: text(schema, "x-origin"),
            reader: text(schema, "x-reader"),
        }
    }
}

/// The kind of the values of a schema, in words.
fn kind(schema: &Value) -> String {
    if let Some(kind) = schema["x-kind"].as_str() {
        return kind.to_owned();
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        let names = variants.iter().filter_map(|variant| variant["const"].as_str());
        return names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
    }
    let kinds = &schema["type"];
    let kind = kinds.as_str().or_else(|| kinds[0].as_str()).unwrap_or_default();
    let items = &schema["items"];
    match (kind, schema["format"].as_str()) {
        ("integer", _) => "whole number",
        ("number", _) => "number",
        ("boolean", _) => "true or false",
        ("string", Some("duration")) => "duration",
        ("string", _) => "text",
        ("array", _) if schema["maxItems"] == 2 => match items["type"].as_str() {
            Some("integer") => "two whole numbers",
            _ => "two numbers",
        },
        _ => "list of texts",
    }
    .to_owned()
}

/// A value as TOML.
pub fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default()
}

/// How much more a key of the section that was named counts than one of another section.
const SAME_SECTION: f64 = 0.1;

/// The valid key, or section, that is most like an unknown one.
pub(super) fn nearest(unknown: &str) -> String {
    let (section, key) = unknown.split_once('.').map_or((None, unknown), |(s, k)| (Some(s), k));
    let mut known = Vec::new();
    for valid in sections() {
        let bonus = if section == Some(&valid.name) { SAME_SECTION } else { 0.0 };
        let like = |name: &str| strsim::jaro_winkler(&key.to_lowercase(), name) + bonus;
        known.extend(valid.keys.iter().map(|key| (like(&key.name), format!("{}.{}", valid.name, key.name))));
        if section.is_none() {
            known.push((like(&valid.name) + SAME_SECTION, valid.name));
        }
    }
    let most = known.into_iter().max_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    most.map(|(_, key)| key).unwrap_or_default()
}
