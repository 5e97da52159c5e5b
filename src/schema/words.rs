//! The words of the deserialiser as sentences for people: what was found, and what was expected.

use crate::settings::nearest::nearest;

/// A message of the deserialiser in plain words; a message of other origin stays as it is.
pub fn plain(why: &str) -> String {
    if let Some(rest) = why.strip_prefix("unknown field ") {
        return unknown("field", rest);
    }
    if let Some(rest) = why.strip_prefix("unknown variant ") {
        return unknown("value", rest);
    }
    if why == "missing field `schema`" {
        return format!("missing field `schema`; write \"schema\": \"{}\"", super::SCHEMA);
    }
    let parts = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|start| why.strip_prefix(start));
    let Some((found, expected)) = parts.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return why.to_owned();
    };
    format!("found {}, expected {}", is(found), wanted(expected))
}

/// An unknown name: the nearest known one, or else all of them.
fn unknown(kind: &str, rest: &str) -> String {
    let names: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    match names.split_first().and_then(|(found, known)| Some((found, nearest(found, known.iter().copied())?)))
    {
        Some((found, nearest)) => format!("unknown {kind} `{found}`; the nearest is `{nearest}`"),
        None => format!("unknown {kind} {rest}"),
    }
}

fn is(found: &str) -> String {
    let inner = |start: &str| found.strip_prefix(start);
    let number = ["integer `", "floating point `", "boolean `"].iter().find_map(|start| inner(start));
    if let Some(number) = number {
        return number.trim_end_matches('`').to_owned();
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        _ => match inner("string ") {
            Some(text) => format!("the text {text}"),
            None if found.parse::<usize>().is_ok() => format!("a list of {found}"),
            None => found.to_owned(),
        },
    }
}

/// What an object with required fields looks like.
const EXAMPLES: [(&str, &str); 5] = [
    ("Timeout", r#"{"run": "1m"}"#),
    ("Retry", r#"{"max_attempts": 3}"#),
    ("Gate", r#"{"timeout": "1h", "default": "reject"}"#),
    ("Carry", r#"{"from": "STAGE.OUTPUT"}"#),
    ("Out", r#"{"name": "NAME", "path": "FILE"}"#),
];

fn wanted(expected: &str) -> String {
    if let Some(of) = expected.strip_prefix("struct ") {
        let name = of.split(' ').next().unwrap_or_default();
        let example = EXAMPLES.iter().find(|(of, _)| *of == name);
        return example
            .map_or_else(|| "an object".to_owned(), |(_, text)| format!("an object such as {text}"));
    }
    if let Some(of) = expected.strip_prefix("an array of length ") {
        return format!("a list of {of}");
    }
    let words = match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        "a string" | "str" | "string" => "a text",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 on",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "string or map" => "a text or an object",
        "map with a single key" => "an object with one key",
        other => match other.contains("tagged enum ") {
            true => "an object with a `kind`",
            false if other.starts_with("enum ") => "a text or an object with one key",
            false => other,
        },
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_plain_words() {
        for (why, expected) in [
            (
                "invalid type: string \"1m\", expected struct Timeout",
                "found the text \"1m\", expected an object such as {\"run\": \"1m\"}",
            ),
            (
                "invalid type: string \"step\", expected a sequence",
                "found the text \"step\", expected a list",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "found -1, expected a whole number from 0 to 4294967295",
            ),
            ("invalid length 3, expected an array of length 2", "found a list of 3, expected a list of 2"),
            (
                "unknown field `need`, expected one of `id`, `needs`, `when`",
                "unknown field `need`; the nearest is `needs`",
            ),
            ("unknown field `zzz`, expected `id` or `to`", "unknown field `zzz`, expected `id` or `to`"),
            ("missing field `schema`", "missing field `schema`; write \"schema\": \"fedmill.plan/1\""),
            ("found `A`, expected a name", "found `A`, expected a name"),
        ] {
            assert_eq!(plain(why), expected);
        }
    }
}
