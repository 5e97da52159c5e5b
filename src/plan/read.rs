//! Reads a plan file.
//!
//! Keys with the prefix `x-` are for other programs: the reader leaves them out.

use super::error::PlanError;
use crate::io::digest::{Blake3, hex};
use crate::io::{folder, text};
use crate::schema::faults::{self, Fault};
use crate::schema::json::{Strict, wide_integer};
use crate::schema::{Plan, SCHEMA};
use crate::settings::places::{Place, places};
use serde_json::Value;
use std::path::Path;

/// The most bytes of a plan file.
pub const MOST_BYTES: u64 = 64 << 20;

/// Reads a plan file; `-` is standard input.
///
/// # Errors
///
/// When it cannot be read, or is no plan: names the place in the file.
pub fn plan(path: &Path) -> Result<Plan, PlanError> {
    with_text(path).map(|(plan, _)| plan)
}

/// Reads a plan file, and returns its text too.
///
/// # Errors
///
/// As [`plan`].
pub fn with_text(path: &Path) -> Result<(Plan, String), PlanError> {
    let reading = |source| PlanError::Read { path: path.to_owned(), source };
    if path.as_os_str() != "-" {
        let found = folder::bytes(path).map_err(reading)?;
        if found > MOST_BYTES {
            return Err(PlanError::TooLarge { path: path.to_owned(), found, most: MOST_BYTES });
        }
    }
    let text = text::read_regular(path).map_err(reading)?;
    Ok((parse(&text, path)?, text))
}

/// Reads the text of a plan file; messages name `path`.
///
/// # Errors
///
/// As [`plan`].
pub fn parse(text: &str, path: &Path) -> Result<Plan, PlanError> {
    let no_json = |at: String, why: serde_json::Error| {
        let (line, column) = (why.line(), why.column());
        let place = (line > 0).then_some(Place { line, column });
        let found = if why.is_syntax() { found_at(text, line, column) } else { String::new() };
        let why = why.to_string().replace(&format!(" at line {line} column {column}"), "") + &found;
        PlanError::NoJson { path: path.to_owned(), place, at, why }
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let Strict(mut value) = serde_path_to_error::deserialize(&mut json)
        .map_err(|why| no_json(place(&why.path().to_string()), why.into_inner()))?;
    json.end().map_err(|why| no_json("$".to_owned(), why))?;
    let malformed = |faults: Vec<Fault>| {
        let places = places(text, faults.iter().map(|fault| fault.at.as_str()));
        let placed = faults.iter().map(|fault| (places.get(fault.at.as_str()).copied(), fault.clone()));
        let mut faults: Vec<(Option<Place>, Fault)> = placed.collect();
        faults.sort_by_key(|(place, _)| place.map(|place| (place.line, place.column)));
        PlanError::Malformed { path: path.to_owned(), faults }
    };
    match value.get("schema") {
        _ if !value.is_object() => {
            let (at, why) = ("$".to_owned(), "expected an object".to_owned());
            return Err(malformed(vec![Fault { at, why }]));
        }
        Some(found) if found != SCHEMA => {
            return Err(PlanError::OtherSchema { path: path.to_owned(), found: found.to_string() });
        }
        _ => {}
    }
    leave_out_extensions(&mut value);
    let mut large = Vec::new();
    find_large(&value, "$", &mut large);
    if let Some(at) = large.first()
        && let Some((token, line, last)) = wide_integer(text.as_bytes())
    {
        let place = Some(Place { line, column: last + 1 - token.len() });
        let why = format!("found {token}, expected a whole number that 64 bits hold, or a text: \"{token}\"");
        // Of several large numbers, the place alone names the one.
        let at = if large.len() == 1 { at.clone() } else { "$".to_owned() };
        return Err(PlanError::Malformed { path: path.to_owned(), faults: vec![(place, Fault { at, why })] });
    }
    faults::read(value).map_err(malformed)
}

/// What stands at the place where a text stops being JSON, and what to write in its place.
fn found_at(text: &str, line: usize, column: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let Some(found) = line.get(column.saturating_sub(1)..).map(str::trim_end) else { return String::new() };
    let starts = |words: &[&str]| words.iter().any(|word| found.starts_with(word));
    let advice = match found.chars().next() {
        None => return String::new(),
        Some('\'') => "; write \" before and behind a text",
        Some('/' | '#') => "; JSON has no comments: a key with the prefix `x-` may hold one",
        _ if starts(&["True", "False", "None"]) => "; write true, false or null",
        _ if starts(&["NaN", "Infinity", "-Infinity"]) => "; JSON has finite numbers alone",
        Some('"') => "; a comma or a colon may be missing before it",
        Some(_) => "",
    };
    let shown: String = found.chars().take(20).collect();
    format!(": found `{shown}`{advice}")
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

/// The paths of numbers that a parser of JSON may have rounded to a whole number.
fn find_large(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number)
            if number.is_f64() && number.as_f64().is_some_and(|real| real.abs() >= 2f64.powi(63)) =>
        {
            found.push(at.to_owned());
        }
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| find_large(value, &format!("{at}.{key}"), found));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(place, value)| find_large(value, &format!("{at}[{place}]"), found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::stage::{ForEach, Shards};

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
        let py = |agent: &str| {
            with("").replace("\"stages\":[]", &format!("\"stages\":[],\"agents\":{{\"py\":{agent}}}"))
        };
        for (text, expected) in [
            (with(r#"{"id":"a","ned":["b"]}"#), "p.json:1:57: $.stages[0].ned: unknown field `ned`"),
            (with("\n {\"id\":\"A\"}"), "p.json:2:3: $.stages[0].id: found `A`"),
            (with(r#"{"id":"a","id":"b"}"#), "p.json:1:"),
            (with(r#"{"id":"a","id":"b"}"#), "is no JSON: found the key `id` twice in one object"),
            (
                with(r#"{"id":"a","retry":{"max_attempts":-1}}"#),
                "$.stages[0].retry.max_attempts: found -1, expected a whole",
            ),
            (
                with(r#"{"id":"a","mem_bytes":1.5}"#),
                "$.stages[0].mem_bytes: found 1.5, expected a whole number",
            ),
            (with(r#"{"id":"a","needs":"b"}"#), "$.stages[0].needs: found the text \"b\", expected a list"),
            (
                with(r#"{"id":"a","need":["b"]}"#),
                "$.stages[0].need: unknown field `need`; the nearest is `needs`",
            ),
            (
                with(r#"{"id":"a","timeout":"1m"}"#),
                "found the text \"1m\", expected an object such as {\"run\": \"1m\"}",
            ),
            (
                with(r#"{"id":"a","for_each":{"shards":"all"}}"#),
                "expected a number of shards from 0 to 4294967295, or \"auto\"",
            ),
            (
                py(r#"{"kind":"command","argv":"x"}"#),
                "$.agents.py.argv: found the text \"x\", expected a list",
            ),
            (py(r#"{"kind":"command"}"#), "$.agents.py: missing field `argv`"),
            (py(r#"{"kind":"http","url":5}"#), "$.agents.py.url: found 5, expected a text"),
            (
                r#"{"schema":"fedmill.plan/2"}"#.to_owned(),
                "p.json: $.schema: found schema \"fedmill.plan/2\"",
            ),
            (
                r#"{"id":"p"}"#.to_owned(),
                "p.json:1:1: $: missing field `schema`; write \"schema\": \"fedmill.plan/1\"",
            ),
            (
                with("").replace("[]", "[],\"params\":{\"seed\":10000000000000000001}"),
                "$.params.seed: found 10000000000000000001, expected a whole number up to 9223372036854775807, or a text",
            ),
            (
                with("").replace("[]", "[],\n\"params\":{\"seed\":-10000000000000000001}"),
                "p.json:2:18: $.params.seed: found -10000000000000000001, expected a whole number that 64 bits hold",
            ),
            ("[]".to_owned(), "p.json:1:1: $: expected an object"),
            (with(r#"["a"]"#), "$.stages[0]: found a list, expected an object"),
            (
                with(r#"{"id":"a","retry":[2,["any"],{"initial":"1s"}]}"#),
                "$.stages[0].retry: found a list, expected an object",
            ),
            ("{".to_owned(), "p.json:1:1: $: is no JSON: EOF"),
        ] {
            let found = read(&text).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }
}
