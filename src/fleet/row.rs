//! One client as text: a JSON object, or a row of a CSV file.
//!
//! `node_config.json` and the lines of `clients list --json` are such objects.

use crate::fleet::client::{PrivacyRequirements, Profile};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The keys of a client.
const KEYS: &[(&str, Kind)] = &[
    ("node_id", Kind::Text),
    ("compute_capability", Kind::Number),
    ("data_size", Kind::Number),
    ("connection_quality", Kind::Number),
    ("privacy_requirements", Kind::Object),
    ("memory", Kind::Number),
    ("bandwidth", Kind::Number),
    ("tier", Kind::Text),
    ("public_key", Kind::Text),
    ("last_update", Kind::Time),
    ("retired_at", Kind::Time),
];

/// Keys that `clients list --json` writes and that a registry makes itself: what they hold is not read.
const OF_REGISTRY: [&str; 2] = ["registered_at", "history"];

/// The keys of `privacy_requirements`. In a CSV file they are columns.
const DEMANDS: &[(&str, Kind)] =
    &[("epsilon", Kind::Number), ("secure_aggregation", Kind::Truth), ("min_secagg_threshold", Kind::Number)];

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Number,
    Truth,
    Time,
    Object,
}

/// The object as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    node_id: String,
    compute_capability: f64,
    data_size: f64,
    connection_quality: f64,
    #[serde(default)]
    privacy_requirements: PrivacyRequirements,
    memory: Option<f64>,
    bandwidth: Option<f64>,
    tier: Option<String>,
    public_key: Option<String>,
    last_update: Option<Time>,
    retired_at: Option<Time>,
}

/// Seconds since 1970, or a date and time with its offset.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Seconds(f64),
    Text(String),
}

impl Time {
    /// The time under a key, in seconds since 1970.
    fn seconds(&self, key: &str) -> Result<i64, String> {
        let (found, seconds) = match self {
            Self::Seconds(seconds) => (
                seconds.to_string(),
                Timestamp::from_second(*seconds as i64).ok().filter(|_| seconds.is_finite()),
            ),
            Self::Text(text) => (text.clone(), text.parse::<Timestamp>().ok()),
        };
        let bad = || {
            format!("{key} is `{found}`, expected seconds since 1970 or a time such as 2026-01-31T12:00:00Z")
        };
        seconds.map(Timestamp::as_second).ok_or_else(bad)
    }
}

impl Written {
    fn profile(self) -> Result<Profile, String> {
        let seconds = |time: Option<Time>, key: &str| time.map(|time| time.seconds(key)).transpose();
        let last_update = seconds(self.last_update, "last_update")?;
        let retired_at = seconds(self.retired_at, "retired_at")?;
        let profile = Profile {
            id: self.node_id,
            compute_capability: self.compute_capability,
            data_size: self.data_size,
            connection_quality: self.connection_quality,
            memory: self.memory,
            bandwidth: self.bandwidth,
            privacy_requirements: self.privacy_requirements,
            tier: self.tier,
            public_key: self.public_key,
            last_update,
            retired_at,
        };
        profile.checked()
    }
}

/// Reads a client from a JSON object.
///
/// # Errors
///
/// The line within the text, from 0 on, and what is wrong.
pub fn from_json(text: &[u8]) -> Result<Profile, (u64, String)> {
    let written = match serde_json::from_slice::<Written>(text) {
        Ok(written) => written,
        Err(why) => exported(text).ok_or_else(|| explain(text, &why))?.map_err(|why| (0, why))?,
    };
    written.profile().map_err(|why| (0, why))
}

/// An object without the keys that a registry makes itself; `None` if it has none of them, or is no object.
fn exported(text: &[u8]) -> Option<Result<Written, String>> {
    let mut object: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let removed = OF_REGISTRY.iter().filter(|key| object.remove(**key).is_some()).count();
    (removed > 0).then(|| match unknown_key(&object) {
        Some(unknown) => Err(unknown),
        None => serde_json::from_value(object.into()).map_err(|why| why.to_string()),
    })
}

/// The line and the reason of an object that is not understood.
fn explain(text: &[u8], why: &serde_json::Error) -> (u64, String) {
    let line = (why.line() as u64).saturating_sub(1);
    let object: Option<Map<String, Value>> = serde_json::from_slice(text).ok();
    if let Some(unknown) = object.as_ref().and_then(unknown_key) {
        return (line, unknown);
    }
    let message = why.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    (line, format!("{message} at column {}", why.column()))
}

/// The first unknown key of a client or of its `privacy_requirements`, with the nearest valid one.
fn unknown_key(object: &Map<String, Value>) -> Option<String> {
    let demands = object.get("privacy_requirements").and_then(Value::as_object);
    let first = |object: &Map<String, Value>, keys: &[(&str, Kind)]| {
        let unknown = object.keys().find(|key| !keys.iter().any(|(known, _)| known == key))?;
        Some(unknown_text(unknown, keys))
    };
    first(object, KEYS).or_else(|| first(demands?, DEMANDS))
}

fn unknown_text(found: &str, keys: &[(&str, Kind)]) -> String {
    let nearness = |known: &&str| strsim::jaro_winkler(found, known);
    let known = keys.iter().map(|(known, _)| *known);
    let nearest = known.max_by(|a, b| nearness(a).total_cmp(&nearness(b))).unwrap_or_default();
    format!("found key `{found}`, expected a known key such as `{nearest}`")
}

/// The columns of a CSV file, by its first row.
#[derive(Debug)]
pub struct Columns(Vec<(&'static str, Kind, bool)>);

impl Columns {
    /// Reads the names of columns.
    ///
    /// # Errors
    ///
    /// When a name is unknown or stands there twice.
    pub fn read<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let own: Vec<(&str, Kind)> = KEYS.iter().filter(|(_, kind)| *kind != Kind::Object).copied().collect();
        let all = [&own, DEMANDS].concat();
        let mut columns: Vec<(&'static str, Kind, bool)> = Vec::new();
        for name in names {
            let name = name.trim();
            let found = all.iter().find(|(known, _)| *known == name);
            let (key, kind) = *found.ok_or_else(|| unknown_text(name, &all))?;
            if columns.iter().any(|(other, ..)| *other == key) {
                return Err(format!("column `{key}` is listed twice, expected once"));
            }
            columns.push((key, kind, DEMANDS.iter().any(|(demand, _)| *demand == key)));
        }
        Ok(Self(columns))
    }

    /// Reads a client from the cells of a row. An empty cell is a key that is not given.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn profile<'a>(&self, cells: impl Iterator<Item = &'a str>) -> Result<Profile, String> {
        let (mut object, mut demands) = (Map::new(), Map::new());
        for ((key, kind, is_demand), cell) in
            self.0.iter().zip(cells).filter(|(_, cell)| !cell.trim().is_empty())
        {
            let value = kind.value(cell.trim()).map_err(|why| format!("{key}: {why}"))?;
            if *is_demand { &mut demands } else { &mut object }.insert((*key).to_owned(), value);
        }
        object.insert("privacy_requirements".to_owned(), demands.into());
        let written: Written = serde_json::from_value(object.into()).map_err(|why| why.to_string())?;
        written.profile()
    }
}

impl Kind {
    /// The value of a cell.
    fn value(self, cell: &str) -> Result<Value, String> {
        let number = || {
            let number = cell.parse().ok().and_then(serde_json::Number::from_f64);
            number.map(Value::Number)
        };
        let (value, expected) = match self {
            Self::Number => (number(), "a finite number"),
            Self::Truth => match cell.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => (Some(true.into()), ""),
                "false" | "0" | "no" => (Some(false.into()), ""),
                _ => (None, "true or false"),
            },
            Self::Time => (Some(number().unwrap_or_else(|| cell.into())), ""),
            Self::Text | Self::Object => (Some(cell.into()), ""),
        };
        value.ok_or_else(|| format!("found `{cell}`, expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"node_id":"a","compute_capability":2,"data_size":10,"connection_quality":0.5}"#;

    #[test]
    fn the_two_forms_say_the_same() {
        let json = r#"{"node_id":"a","compute_capability":2,"data_size":10,"connection_quality":0.5,
            "privacy_requirements":{"epsilon":3,"secure_aggregation":true},"last_update":"2026-01-31T12:00:00Z"}"#;
        let names = "node_id,compute_capability,data_size,connection_quality,epsilon,secure_aggregation,last_update,tier";
        let columns = Columns::read(names.split(',')).unwrap();
        let row = "a,2,10,0.5,3,yes,1769860800,";
        assert_eq!(columns.profile(row.split(',')).unwrap(), from_json(json.as_bytes()).unwrap());
    }

    #[test]
    fn a_key_that_is_unknown_names_its_neighbour() {
        let json = WHOLE.replace("data_size", "datasize");
        assert!(from_json(json.as_bytes()).unwrap_err().1.contains("`data_size`"));
        let json = WHOLE.replace('}', r#","privacy_requirements":{"epsilom":1}}"#);
        assert!(from_json(json.as_bytes()).unwrap_err().1.contains("`epsilon`"));
        assert!(Columns::read(["node_id", "tiers"].into_iter()).unwrap_err().contains("`tier`"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (from, to) in [
            ("0.5", "1.5"),
            ("0.5", "-0.1"),
            ("10", "-1"),
            ("10", "1e999"),
            ("2", "null"),
            ("\"a\"", "\"a/b\""),
            ("\"a\"", "3"),
        ] {
            assert!(from_json(WHOLE.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let columns = Columns::read(["node_id", "compute_capability"].into_iter()).unwrap();
        for cells in [["a", "nan"], ["a", "inf"], ["a", "x"], ["a", "1"]] {
            assert!(columns.profile(cells.into_iter()).is_err(), "{cells:?}");
        }
    }
}
