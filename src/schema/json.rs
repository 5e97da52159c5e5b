//! JSON whose objects have each key once.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads JSON that others wrote. Programs differ in which of two equal keys they take, so that none may stand twice.
///
/// # Errors
///
/// When it is no JSON, or an object has a key twice.
pub fn strict(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).map(|Strict(value)| value).map_err(|why| format!("is no JSON: {why}"))
}

/// The first integer in a JSON text that 64 bits do not hold, with the place of its last digit: its line and its column.
/// A parser would round it.
pub fn wide_integer(json: &[u8]) -> Option<(&str, usize, usize)> {
    let (mut begin, mut in_text, mut is_escaped) = (None, false, false);
    for (at, byte) in json.iter().chain(b" ").enumerate() {
        if in_text {
            in_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            continue;
        }
        in_text = *byte == b'"';
        if byte.is_ascii_alphanumeric() || b"+-.".contains(byte) {
            begin.get_or_insert(at);
            continue;
        }
        let Some(begin) = begin.take() else { continue };
        let token = std::str::from_utf8(&json[begin..at]).unwrap_or_default();
        let digits = token.trim_start_matches('-');
        let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_integer && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
            let line = json[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = json[..at].iter().rev().take_while(|byte| **byte != b'\n').count();
            return Some((token, line, column));
        }
    }
    None
}

/// A JSON value whose objects have each key once.
pub struct Strict(pub Value);

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
