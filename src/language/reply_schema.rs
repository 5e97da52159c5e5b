//! The JSON Schema of replies: the part of it that plans may use.
//!
//! Source: JSON Schema 2020-12, core and validation. [`KEYWORDS`] lists the keywords. `title`, `description` and `$schema`
//! may stand beside them and ask for nothing.

use serde_json::{Map, Value};

/// The keywords of a schema that ask for something.
pub const KEYWORDS: &[&str] = &[
    "type",
    "properties",
    "required",
    "enum",
    "const",
    "items",
    "additionalProperties",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
];

/// Keywords that ask for nothing.
const NOTES: &[&str] = &["title", "description", "$schema"];

const TYPES: &[&str] = &["object", "array", "string", "number", "integer", "boolean", "null"];

/// Letters of a value that a message shows.
const SHOWN: usize = 60;

/// The first place of a schema that is not supported, and the reason; the schema itself is at `at`.
pub fn fault(schema: &Value, at: &str) -> Option<(String, String)> {
    let object = match schema {
        Value::Bool(_) => return None,
        Value::Object(object) => object,
        other => return Some((at.to_owned(), format!("found {}, expected a JSON Schema", shown(other)))),
    };
    object.iter().find_map(|(keyword, value)| {
        let at = member(at, keyword);
        let wants = |is_right: bool, expected: &str| {
            (!is_right).then(|| (at.clone(), format!("found {}, expected {expected}", shown(value))))
        };
        match keyword.as_str() {
            "type" => wants(types(value).is_some(), &format!("one or several of {}", TYPES.join(", "))),
            "properties" => match value {
                Value::Object(inner) => {
                    inner.iter().find_map(|(name, schema)| fault(schema, &member(&at, name)))
                }
                _ => wants(false, "an object of schemas"),
            },
            "items" | "additionalProperties" => fault(value, &at),
            "required" => wants(is_list(value, Value::is_string), "a list of names"),
            "enum" => wants(value.as_array().is_some_and(|list| !list.is_empty()), "a list of values"),
            "const" => None,
            "minimum" | "maximum" => wants(value.is_number(), "a number"),
            "minLength" | "maxLength" | "minItems" | "maxItems" => {
                wants(value.is_u64(), "a whole number from 0 on")
            }
            other if NOTES.contains(&other) => None,
            other => {
                let keywords = KEYWORDS.join(", ");
                Some((at.clone(), format!("found `{}`, expected one of {keywords}", other.escape_debug())))
            }
        }
    })
}

fn is_list(value: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(holds))
}

/// The names of types that `type` lists, if all are known.
fn types(value: &Value) -> Option<Vec<&str>> {
    let names: Vec<&str> = match value {
        Value::String(name) => vec![name],
        Value::Array(list) if !list.is_empty() => list.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    names.iter().all(|name| TYPES.contains(name)).then_some(names)
}

/// The first place where a value breaks a supported schema: `$.votes[2].choice: found ..., expected ...`.
pub fn violation(schema: &Value, value: &Value) -> Option<String> {
    at(schema, value, "$")
}

fn at(schema: &Value, value: &Value, path: &str) -> Option<String> {
    let fault = |expected: String| Some(format!("{path}: found {}, expected {expected}", shown(value)));
    let object = match schema {
        Value::Bool(false) => return fault("nothing here".to_owned()),
        Value::Object(object) => object,
        _ => return None,
    };
    if let Some(names) = object.get("type").and_then(types)
        && !names.iter().any(|name| is_of_type(value, name))
    {
        return fault(names.join(" or "));
    }
    if let Some(options) = object.get("enum").and_then(Value::as_array)
        && !options.iter().any(|option| same(option, value))
    {
        let options: Vec<String> = options.iter().map(shown).collect();
        return fault(format!("one of {}", options.join(", ")));
    }
    if let Some(only) = object.get("const").filter(|only| !same(only, value)) {
        return fault(shown(only));
    }
    match value {
        Value::Object(members) => of_members(object, members, path),
        Value::Array(list) => {
            let inside = |schema: &Value| {
                let mut items = list.iter().enumerate();
                items.find_map(|(place, item)| at(schema, item, &format!("{path}[{place}]")))
            };
            of_size(object, list.len(), ["minItems", "maxItems"], "items", path)
                .or_else(|| object.get("items").and_then(inside))
        }
        Value::String(text) => {
            of_size(object, text.chars().count(), ["minLength", "maxLength"], "characters", path)
        }
        Value::Number(number) => {
            let bound = |keyword: &str| object.get(keyword).and_then(Value::as_f64);
            let number = number.as_f64()?;
            match (bound("minimum"), bound("maximum")) {
                (Some(least), _) if number < least => fault(format!("at least {least}")),
                (_, Some(most)) if number > most => fault(format!("at most {most}")),
                _ => None,
            }
        }
        Value::Bool(_) | Value::Null => None,
    }
}

fn of_members(schema: &Map<String, Value>, members: &Map<String, Value>, path: &str) -> Option<String> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if let Some(name) = required.filter_map(Value::as_str).find(|name| !members.contains_key(*name)) {
        return Some(format!("{}: is missing", member(path, name)));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    members.iter().find_map(|(name, value)| {
        let path = member(path, name);
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => at(schema, value, &path),
            None => at(schema.get("additionalProperties")?, value, &path),
        }
    })
}

fn of_size(
    schema: &Map<String, Value>,
    found: usize,
    [least, most]: [&str; 2],
    what: &str,
    path: &str,
) -> Option<String> {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    match (bound(least), bound(most)) {
        (Some(least), _) if (found as u64) < least => {
            Some(format!("{path}: found {found} {what}, expected at least {least}"))
        }
        (_, Some(most)) if found as u64 > most => {
            Some(format!("{path}: found {found} {what}, expected at most {most}"))
        }
        _ => None,
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
        Value::Number(number) => {
            let is_whole =
                number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|real| real.fract() == 0.0);
            name == "number" || name == "integer" && is_whole
        }
    }
}

/// Whether two values are equal: 1 and 1.0 are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || !(is_exact(a) && is_exact(b)) && a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn is_exact(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64()
}

/// The path of a member of an object.
fn member(path: &str, name: &str) -> String {
    let is_word =
        !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "_-$".contains(letter));
    if is_word { format!("{path}.{name}") } else { format!("{path}[{:?}]", short(name)) }
}

fn shown(value: &Value) -> String {
    short(&value.to_string())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_keyword_is_checked() {
        let ballot = json!({"type": "object", "required": ["vote"], "additionalProperties": false, "properties": {
            "vote": {"enum": ["accept", "reject"]}, "why": {"type": ["string", "null"], "minLength": 2, "maxLength": 3},
            "n": {"type": "integer", "minimum": 1, "maximum": 3}, "one": {"const": 1},
            "list": {"items": {"type": "number"}, "minItems": 1, "maxItems": 2}}});
        assert_eq!(fault(&ballot, "format"), None);
        for right in [
            json!({"vote": "accept"}),
            json!({"vote": "reject", "why": null, "n": 2.0, "one": 1.0, "list": [1, 2.5]}),
            json!({"vote": "reject", "why": "äöü"}),
        ] {
            assert_eq!(violation(&ballot, &right), None, "{right}");
        }
        let with = |name: &str, value: Value| json!({"vote": "accept", name: value});
        for (wrong, expected) in [
            (json!([]), "$: found [], expected object"),
            (json!({}), "$.vote: is missing"),
            (json!({"vote": "maybe"}), r#"$.vote: found "maybe", expected one of "accept", "reject""#),
            (with("more", json!(1)), "$.more: found 1, expected nothing here"),
            (with("a b", json!(1)), r#"$["a b"]: found 1, expected nothing here"#),
            (with("why", json!(1)), "$.why: found 1, expected string or null"),
            (with("why", json!("ä")), "$.why: found 1 characters, expected at least 2"),
            (with("why", json!("abcd")), "$.why: found 4 characters, expected at most 3"),
            (with("n", json!(1.5)), "$.n: found 1.5, expected integer"),
            (with("n", json!(0)), "$.n: found 0, expected at least 1"),
            (with("n", json!(4)), "$.n: found 4, expected at most 3"),
            (with("one", json!(true)), "$.one: found true, expected 1"),
            (with("list", json!([])), "$.list: found 0 items, expected at least 1"),
            (with("list", json!([1, 2, 3])), "$.list: found 3 items, expected at most 2"),
            (with("list", json!([1, "x"])), r#"$.list[1]: found "x", expected number"#),
        ] {
            assert_eq!(violation(&ballot, &wrong).as_deref(), Some(expected));
        }
        let others = json!({"additionalProperties": {"type": "boolean"}});
        assert_eq!(violation(&others, &json!({"a": true})), None);
        assert_eq!(violation(&others, &json!({"a": 1})).as_deref(), Some("$.a: found 1, expected boolean"));
        assert_eq!(violation(&json!(true), &json!(1)), None);
    }

    #[test]
    fn numbers_are_compared_by_value() {
        let big = 9_007_199_254_740_993_u64;
        assert!(same(&json!([1, {"a": 2.0}]), &json!([1.0, {"a": 2}])));
        assert!(!same(&json!(big), &json!(big - 1)));
        assert!(!same(&json!(1), &json!("1")));
    }

    #[test]
    fn a_schema_that_is_not_supported_is_found() {
        for (schema, at, why) in [
            (json!("json"), "format", "found \"json\", expected a JSON Schema"),
            (json!({"$ref": "#/x"}), "format.$ref", "found `$ref`, expected one of type, properties"),
            (json!({"type": "text"}), "format.type", "found \"text\", expected one or several of object"),
            (json!({"type": []}), "format.type", "found []"),
            (
                json!({"items": [{"type": "null"}]}),
                "format.items",
                "found [{\"type\":\"null\"}], expected a JSON Schema",
            ),
            (
                json!({"items": {"properties": {"a": {"anyOf": []}}}}),
                "format.items.properties.a.anyOf",
                "found `anyOf`",
            ),
            (json!({"properties": []}), "format.properties", "found [], expected an object of schemas"),
            (json!({"required": "a"}), "format.required", "found \"a\", expected a list of names"),
            (json!({"enum": []}), "format.enum", "found [], expected a list of values"),
            (json!({"minimum": "1"}), "format.minimum", "found \"1\", expected a number"),
            (json!({"minItems": -1}), "format.minItems", "found -1, expected a whole number from 0 on"),
            (json!({"maxLength": 1.5}), "format.maxLength", "found 1.5, expected a whole number from 0 on"),
        ] {
            let found = fault(&schema, "format").unwrap();
            assert!(found.0 == at && found.1.starts_with(why), "{found:?}");
        }
        let noted = json!({"title": "T", "description": "d", "$schema": "s", "additionalProperties": true});
        assert_eq!(fault(&noted, "format"), None);
    }
}
