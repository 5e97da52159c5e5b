//! Reads a plan file.
//!
//! Keys with the prefix `x-` are for other programs: the reader leaves them out.

use super::error::PlanError;
use super::schema::{Plan, SCHEMA};
use crate::io::digest::{Blake3, hex};
use crate::io::{folder, text};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

/// The most bytes of a plan file.
pub const MOST_BYTES: u64 = 64 << 20;

/// Reads a plan file; `-` is standard input.
///
/// # Errors
///
/// When it cannot be read, or is no plan: names the place in the file.
pub fn plan(path: &Path) -> Result<Plan, PlanError> {
    let reading = |source| PlanError::Read { path: path.to_owned(), source };
    if path.as_os_str() != "-" {
        let found = folder::bytes(path).map_err(reading)?;
        if found > MOST_BYTES {
            return Err(PlanError::TooLarge { path: path.to_owned(), found, most: MOST_BYTES });
        }
    }
    parse(&text::read_regular(path).map_err(reading)?, path)
}

/// Reads the text of a plan file; messages name `path`.
///
/// # Errors
///
/// As [`plan`].
pub fn parse(text: &str, path: &Path) -> Result<Plan, PlanError> {
    let mut value = json(text).map_err(|(at, why)| PlanError::NoJson { path: path.to_owned(), at, why })?;
    if let Some(found) = value.get("schema")
        && found != SCHEMA
    {
        return Err(PlanError::OtherSchema { path: path.to_owned(), found: found.to_string() });
    }
    leave_out_extensions(&mut value);
    let malformed = |at: String, why: String| PlanError::Malformed { path: path.to_owned(), at, why };
    let plan: Plan = serde_path_to_error::deserialize(&value)
        .map_err(|why| malformed(place(&why.path().to_string()), why.into_inner().to_string()))?;
    // The deserialiser takes a list for an object, with its values in order.
    match list_for_object(&value, &serde_json::to_value(&plan).unwrap_or_default(), "$") {
        Some(at) => Err(malformed(at, "found a list, expected an object".to_owned())),
        None => Ok(plan),
    }
}

/// Reads JSON whose objects have each key once.
///
/// # Errors
///
/// When the text is none: the place in it, and what is wrong.
pub fn json(text: &str) -> Result<Value, (String, String)> {
    let mut json = serde_json::Deserializer::from_str(text);
    let Strict(value) = serde_path_to_error::deserialize(&mut json)
        .map_err(|why| (place(&why.path().to_string()), why.into_inner().to_string()))?;
    json.end().map_err(|why| ("$".to_owned(), why.to_string()))?;
    Ok(value)
}

/// The place of the first list that was read as an object.
fn list_for_object(given: &Value, read: &Value, at: &str) -> Option<String> {
    match (given, read) {
        (Value::Array(_), Value::Object(_)) => Some(at.to_owned()),
        (Value::Array(given), Value::Array(read)) => {
            let mut pairs = given.iter().zip(read).enumerate();
            pairs.find_map(|(place, (given, read))| list_for_object(given, read, &format!("{at}[{place}]")))
        }
        (Value::Object(given), Value::Object(read)) => given
            .iter()
            .find_map(|(key, value)| list_for_object(value, read.get(key)?, &format!("{at}.{key}"))),
        _ => None,
    }
}

/// BLAKE3 of a plan, in lower-case hex: equal for two files that differ only in layout, order of keys, or extensions.
pub fn digest(plan: &Plan) -> String {
    hex(&Blake3::of_bytes(serde_json::to_string(plan).unwrap_or_default().as_bytes()))
}

/// A place in the file as messages name it: `$.stages[2].when`.
fn place(path: &str) -> String {
    match path {
        "." | "?" => "$".to_owned(),
        path => format!("$.{path}"),
    }
}

fn leave_out_extensions(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !key.starts_with("x-"));
            object.values_mut().for_each(leave_out_extensions);
        }
        Value::Array(list) => list.iter_mut().for_each(leave_out_extensions),
        _ => {}
    }
}

/// A JSON value whose objects have each key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "found the key `{}` twice in one object",
                    key.escape_debug()
                )));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::schema::stage::{ForEach, Shards};

    fn read(text: &str) -> Result<Plan, String> {
        parse(text, Path::new("p.json")).map_err(|why| why.to_string())
    }

    #[test]
    fn a_plan_reads_as_it_is_written() {
        let text = r#"{"schema": "fedmill.plan/1", "id": "round-7", "x-note": {"schema": 1},
            "params": {"f": 2, "trim": 0.2, "name": "a", "on": true},
            "inputs": [{"name": "updates", "glob": "in/*.safetensors", "min": 11, "pin": "sha256"}],
            "agents": {"agg": {"kind": "command", "argv": ["fedmill"], "capabilities": ["aggregate"], "max_parallel": 2},
                "judge": {"kind": "ollama", "url": "http://127.0.0.1:11434", "model": "m",
                    "options": {"seed": 7, "temperature": 0, "num_ctx": 4096}, "format": {"type": "object"},
                    "timeout": "30s", "cache": "content"}},
            "limits": {"max_parallel": 2, "mem_bytes": 8e9, "wall": "2h", "eps": 0.4, "delta": 1e-5},
            "stages": [{"id": "gram", "agent": "agg", "argv": ["gram"], "for_each": {"shards": "auto"},
                "out": [{"name": "g", "path": "g.{shard}.bin"}], "x-y": 1}]}"#;
        let plan = read(text).unwrap();
        assert_eq!(plan.limits.mem_bytes, Some(8_000_000_000));
        assert!(matches!(plan.stages[0].for_each, Some(ForEach::Shards(Shards::Auto(_)))));
        let again = read(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!((&again, digest(&again)), (&plan, digest(&plan)));
    }

    #[test]
    fn a_fault_names_its_place() {
        let with = |stage: &str| format!(r#"{{"schema":"fedmill.plan/1","id":"p","stages":[{stage}]}}"#);
        for (text, expected) in [
            (with(r#"{"id":"a","ned":["b"]}"#), "p.json: $.stages[0].ned: unknown field `ned`"),
            (with(r#"{"id":"A"}"#), "p.json: $.stages[0].id: found `A`"),
            (with(r#"{"id":"a","id":"b"}"#), "the key `id` twice in one object at line 1"),
            (with(r#"{"id":"a","retry":{"max_attempts":-1}}"#), "p.json: $.stages[0].retry.max_attempts:"),
            (
                with(r#"{"id":"a","mem_bytes":1.5}"#),
                "$.stages[0].mem_bytes: found 1.5, expected a whole number",
            ),
            (
                r#"{"schema":"fedmill.plan/2"}"#.to_owned(),
                "p.json: $.schema: found schema \"fedmill.plan/2\"",
            ),
            ("[]".to_owned(), "p.json: $: invalid length 0"),
            (with(r#"["a"]"#), "p.json: $.stages[0]: found a list, expected an object"),
            (
                with(r#"{"id":"a","retry":[2,["any"],{"initial":"1s"}]}"#),
                "p.json: $.stages[0].retry: found a list, expected an object",
            ),
            ("{".to_owned(), "p.json: $: is no JSON: EOF"),
        ] {
            let found = read(&text).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }
}
