//! Sealed lines: each holds its number, the digest of the line before, and its own digest.
//!
//! A change of any byte is noticed. A line is the JSON of a [`Record`] with `"sha256"` as its last field: the digest of
//! the line without that field. `sed` and `sha256sum` suffice to check a line:
//!
//! ```text
//! sed -n 3p ledger.jsonl | sed 's/,"sha256":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum
//! ```
//!
//! This room handles text, not files. [`sha256`] is the digest. The caller defines the content of a line, an [`Entry`].

pub mod sha256;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha256::Sha256;
use std::fmt;
use std::str::FromStr;

/// The text before the digest of a line.
pub(crate) const SEAL: &str = ",\"sha256\":\"";

/// The text after the digest of a line.
pub(crate) const END: &str = "\"}";

/// The content of a line.
pub trait Entry: Clone + Serialize + DeserializeOwned {
    /// Checks numbers whose type allows more than their range.
    ///
    /// # Errors
    ///
    /// The first wrong value: its name, what was found and what was expected.
    fn check(&self) -> Result<(), String>;
}

/// An entry with its place in the chain.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Record<E> {
    /// Number of the line, from 0 on without gaps.
    pub seq: u64,
    /// The digest of the line before; zeros in the first line.
    pub prev_sha256: Sha256,
    /// Seconds since 1970 when the line was written.
    pub ts: u64,
    /// The version of fedmill that wrote the line.
    pub tool_version: String,
    /// The content of the line.
    #[serde(flatten)]
    pub entry: E,
}

/// The last line of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of the line.
    pub seq: u64,
    /// Digest of the line.
    pub sha256: Sha256,
}

/// The fault of a line.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ChainFault {
    #[error("the line does not end with its digest")]
    Unsealed,
    #[error("the digest is {found}, the line states {expected}")]
    Digest { found: Sha256, expected: Sha256 },
    #[error("found seq {found}, expected {expected}")]
    Seq { found: u64, expected: u64 },
    #[error("found prev_sha256 {found}, expected that of the line before, {expected}")]
    Previous { found: Sha256, expected: Sha256 },
    #[error("is not understood: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Value(String),
    #[error("the line is not in the form that fedmill writes")]
    OtherForm,
}

/// The first line of a chain with a fault.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {line}: {fault}")]
pub struct ChainError {
    /// Number of the line in the file, from 1 on.
    pub line: usize,
    /// The fault.
    pub fault: ChainFault,
}

/// Seals an entry: returns its line, without the line break, and the new end of the chain.
///
/// # Errors
///
/// When a value of the entry is out of range.
pub fn seal<E: Entry>(after: Option<&Head>, ts: u64, entry: &E) -> Result<(String, Head), ChainFault> {
    entry.check().map_err(ChainFault::Value)?;
    let record = Record {
        seq: after.map_or(0, |head| head.seq + 1),
        prev_sha256: after.map_or(Sha256::NONE, |head| head.sha256),
        ts,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        entry: entry.clone(),
    };
    let body = body(&record)?;
    let sha256 = Sha256::of(&body);
    let open = body.strip_suffix('}').ok_or(ChainFault::OtherForm)?;
    Ok((format!("{open}{SEAL}{sha256}{END}"), Head { seq: record.seq, sha256 }))
}

fn body<E: Entry>(record: &Record<E>) -> Result<String, ChainFault> {
    serde_json::to_string(record).map_err(|why| ChainFault::Unreadable(why.to_string()))
}

/// Reads the line after `after`, and checks its form, its digests and its values.
///
/// # Errors
///
/// The first fault.
pub fn read<E: Entry>(line: &str, after: Option<&Head>) -> Result<(Record<E>, Head), ChainFault> {
    let (record, head) = alone::<E>(line)?;
    let seq = after.map_or(0, |head| head.seq + 1);
    if record.seq != seq {
        return Err(ChainFault::Seq { found: record.seq, expected: seq });
    }
    let previous = after.map_or(Sha256::NONE, |head| head.sha256);
    if record.prev_sha256 != previous {
        return Err(ChainFault::Previous { found: record.prev_sha256, expected: previous });
    }
    Ok((record, head))
}

/// Reads a line without the one before it, and checks its form, its own digest and its values.
///
/// # Errors
///
/// The first fault.
pub fn alone<E: Entry>(line: &str) -> Result<(Record<E>, Head), ChainFault> {
    let (open, expected) = line
        .strip_suffix(END)
        .and_then(|line| line.rsplit_once(SEAL))
        .and_then(|(open, digest)| Some((open, Sha256::from_str(digest).ok()?)))
        .ok_or(ChainFault::Unsealed)?;
    let text = format!("{open}}}");
    let found = Sha256::of(&text);
    if found != expected {
        return Err(ChainFault::Digest { found, expected });
    }
    let (record, is_own_form) = match in_own_form::<E>(&text) {
        Some(record) => (record, true),
        None => (serde_json::from_str(&text).map_err(|why| ChainFault::Unreadable(why.to_string()))?, false),
    };
    record.entry.check().map_err(ChainFault::Value)?;
    // Other readers may understand a repeated field or an abbreviated number differently.
    if !is_own_form && body(&record)? != text {
        return Err(ChainFault::OtherForm);
    }
    let head = Head { seq: record.seq, sha256: found };
    Ok((record, head))
}

/// The fields of a record before its entry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    seq: u64,
    prev_sha256: Sha256,
    ts: u64,
    tool_version: String,
}

/// The record of a line in exactly the form that [`seal`] writes; `None` for any other line, whose fault the caller
/// finds. A record with a flattened entry copies all its fields before it reads one, so the parts are read apart.
fn in_own_form<E: Entry>(text: &str) -> Option<Record<E>> {
    const LAST: &str = "\"tool_version\":\"";
    let version = text.find(LAST)? + LAST.len();
    let end = version + text[version..].find("\",")? + 1;
    let (before, own) = (format!("{}}}", &text[..end]), format!("{{{}", &text[end + 1..]));
    let placed: Placed = serde_json::from_str(&before).ok()?;
    let entry: E = serde_json::from_str(&own).ok()?;
    let is_same =
        serde_json::to_string(&placed).ok()? == before && serde_json::to_string(&entry).ok()? == own;
    let Placed { seq, prev_sha256, ts, tool_version } = placed;
    is_same.then_some(Record { seq, prev_sha256, ts, tool_version, entry })
}

/// Reads a chain from its first line on. Returns each record and the head at it.
///
/// # Errors
///
/// The first line with a fault.
pub fn verify<'a, E: Entry>(
    lines: impl Iterator<Item = &'a str>,
) -> Result<Vec<(Record<E>, Head)>, ChainError> {
    let mut records: Vec<(Record<E>, Head)> = Vec::new();
    for (number, line) in lines.enumerate() {
        let after = records.last().map(|(_, head)| head);
        let read = read(line, after).map_err(|fault| ChainError { line: number + 1, fault })?;
        records.push(read);
    }
    Ok(records)
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.sha256)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (seq, sha256) = text.split_once(':')?;
            Some(Self { seq: seq.parse().ok()?, sha256: sha256.parse().ok()? })
        };
        parse().ok_or_else(|| format!("found `{text}`, expected a number, a colon and a SHA-256 digest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
    struct Remark {
        text: String,
        number: f64,
    }

    impl Entry for Remark {
        fn check(&self) -> Result<(), String> {
            if self.number < 0.0 { Err("number is below 0".to_owned()) } else { Ok(()) }
        }
    }

    /// The line of a record with this text before its digest.
    fn sealed(text: &str) -> String {
        format!("{}{SEAL}{}{END}", text.strip_suffix('}').unwrap(), Sha256::of(text))
    }

    fn fault(text: &str) -> ChainFault {
        read::<Remark>(&sealed(text), None).unwrap_err()
    }

    #[test]
    fn a_line_reads_as_it_was_sealed() {
        for text in ["plain", "a \"quoted\" text, with \u{e9}\n", "\"tool_version\":\"9\",", ""] {
            let entry = Remark { text: text.to_owned(), number: 0.1 };
            let (line, head) = seal(None, 7, &entry).unwrap();
            let (record, read_head) = read::<Remark>(&line, None).unwrap();
            assert_eq!((record.entry, record.seq, record.ts, read_head), (entry, 0, 7, head));
        }
    }

    /// Each has the right digest, and says what a sealed line says, in another way.
    #[test]
    fn a_line_in_another_form_is_refused() {
        let zeros = "0".repeat(64);
        let line = |before: &str, own: &str| format!("{{{before},\"tool_version\":\"1\",{own}}}");
        let before = format!("\"seq\":0,\"prev_sha256\":\"{zeros}\",\"ts\":7");
        let own = "\"text\":\"a\",\"number\":1.5";
        assert!(read::<Remark>(&sealed(&line(&before, own)), None).is_ok());
        let moved = format!("\"ts\":7,\"seq\":0,\"prev_sha256\":\"{zeros}\"");
        let spaced = before.replace(':', ": ");
        for (before, own) in [
            (&before, "\"number\":1.5,\"text\":\"a\""),
            (&before, "\"text\":\"a\",\"number\":1.50"),
            (&before, "\"text\":\"\\u0061\",\"number\":1.5"),
            (&before, "\"text\":\"a\",\"number\":1.5,\"more\":1"),
            (&before, "\"text\":\"a\", \"number\":1.5"),
            (&moved, own),
            (&spaced, own),
        ] {
            assert_eq!(fault(&line(before, own)), ChainFault::OtherForm, "{before} {own}");
        }
        let twice = line(&before, "\"text\":\"a\",\"text\":\"a\",\"number\":1.5");
        assert!(matches!(fault(&twice), ChainFault::Unreadable(_)), "a repeated field");
        let again = line(&before, &format!("{own},\"seq\":0"));
        assert!(matches!(fault(&again), ChainFault::Unreadable(_)), "a repeated number");
        assert_eq!(
            fault(&line(&before, "\"text\":\"a\",\"number\":-1.5")),
            ChainFault::Value("number is below 0".to_owned())
        );
    }
}
