//! Makes one file of several, in the runner itself.
//!
//! The files stand in the order of the stage, those of a fan-out in the order of its instances, so the bytes do not
//! depend on which instance ended first.

use super::event::Failure;
use super::world::AttemptLimits;
use crate::io::child::capped::CappedLog;
use crate::io::folder;
use crate::io::source::read_at_most;
use crate::schema::json::{strict, wide_integer};
use crate::schema::reduce::Reducer;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The most bytes of a file of JSON.
const MOST_BYTES: u64 = 64 << 20;

/// Makes one file of several.
///
/// # Errors
///
/// When a file cannot be read or is no JSON object, the result cannot be written, the time is over, or the runner ends
/// it.
pub fn reduce(
    by: Reducer,
    files: &[String],
    into: &Path,
    limits: &AttemptLimits,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let watch = Watch { began: Instant::now(), run: limits.run, stop };
    match by {
        Reducer::Concat => concat(files, into, false, &watch),
        Reducer::Lines => concat(files, into, true, &watch),
        Reducer::JsonMerge => merge(files, into, &watch),
    }
}

/// When a reducer has to give up.
struct Watch<'a> {
    began: Instant,
    run: Option<Duration>,
    stop: &'a AtomicBool,
}

impl Watch<'_> {
    fn failure(&self) -> Option<Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Some(Failure::Cancelled);
        }
        let most = self.run.filter(|most| self.began.elapsed() > *most)?;
        Some(Failure::Timeout(u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
    }
}

fn unwritten(into: &Path, why: &io::Error) -> Failure {
    Failure::Outputs(format!("{}: cannot be written: {why}", into.display()))
}

fn concat(files: &[String], into: &Path, lines: bool, watch: &Watch<'_>) -> Result<(), Failure> {
    let mut result = CappedLog::create(into, u64::MAX).map_err(|why| unwritten(into, &why))?;
    for file in files {
        let mut last = None;
        let mut failure = None;
        let read = folder::each_chunk(Path::new(file), |chunk| {
            failure = watch.failure();
            if failure.is_some() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            last = chunk.last().copied();
            result.write(chunk)
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        read.map_err(|why| {
            Failure::Outputs(format!("{file}: cannot be copied to {}: {why}", into.display()))
        })?;
        if lines && last.is_some_and(|last| last != b'\n') {
            result.write(b"\n").map_err(|why| unwritten(into, &why))?;
        }
    }
    result.finish().map_err(|why| unwritten(into, &why))
}

fn merge(files: &[String], into: &Path, watch: &Watch<'_>) -> Result<(), Failure> {
    let mut merged: Option<Value> = None;
    for file in files {
        if let Some(failure) = watch.failure() {
            return Err(failure);
        }
        let next = object(Path::new(file)).map_err(|why| Failure::Outputs(format!("{file}: {why}")))?;
        match &mut merged {
            Some(merged) => patch(merged, next),
            None => merged = Some(next),
        }
    }
    let text = merged.unwrap_or_default().to_string() + "\n";
    folder::write_file(into, text.as_bytes(), None).map_err(|why| unwritten(into, &why))
}

fn object(file: &Path) -> Result<Value, String> {
    let json = read_at_most(file, MOST_BYTES).map_err(|why| why.to_string())?;
    match strict(&json).map_err(|why| format!("$: {why}"))? {
        value if value.is_object() => match wide_integer(&json) {
            Some((found, line, column)) => Err(format!(
                "line {line} column {column}: found the integer {found}, expected one of 64 bits for json-merge; a text \
                 keeps all digits"
            )),
            None => Ok(value),
        },
        _ => Err("$: found no JSON object, expected one for json-merge".to_owned()),
    }
}

/// Applies a JSON merge patch, by RFC 7396, section 2.
fn patch(target: &mut Value, patch_with: Value) {
    let Value::Object(changes) = patch_with else {
        *target = patch_with;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in changes {
        if value.is_null() {
            target.remove(&key);
        } else {
            patch(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patches_are_those_of_rfc_7396() {
        // Appendix A: the original, the patch, the result.
        for (mut original, changes, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let shown = format!("{original} with {changes}");
            patch(&mut original, changes);
            assert_eq!(original, expected, "{shown}");
        }
    }
}
