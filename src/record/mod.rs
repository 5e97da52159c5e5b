//! Sealed lines: each holds its number, the digest of the line before, and its own digest. No byte changes unnoticed.
//!
//! A line is the JSON of a [`Record`] with `"sha256"` as its last field: the digest of the line without that field.
//! `sed` and `sha256sum` suffice to check a line:
//!
//! ```text
//! sed -n 3p ledger.jsonl | sed 's/,"sha256":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum
//! ```
//!
//! This room knows text only, no files; [`sha256`] is the digest. What a line records is an [`Entry`] of the caller's.

pub mod sha256;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha256::Sha256;
use std::fmt;
use std::str::FromStr;

/// Stands before the digest of a line.
pub(crate) const SEAL: &str = ",\"sha256\":\"";

/// Stands behind it.
pub(crate) const END: &str = "\"}";

/// What one line records.
pub trait Entry: Clone + Serialize + DeserializeOwned {
    /// Checks numbers whose range no type holds.
    ///
    /// # Errors
    ///
    /// The first wrong value: its name, what was found and what was expected.
    fn check(&self) -> Result<(), String>;
}

/// An entry and its place in the chain.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Record<E> {
    /// The number of the line, from 0 on without gaps.
    pub seq: u64,
    /// The digest of the line before; zeros in the first line.
    pub prev_sha256: Sha256,
    /// Seconds since 1970.
    pub ts: u64,
    /// The version of fedmill that wrote the line.
    pub tool_version: String,
    /// What the line records.
    #[serde(flatten)]
    pub entry: E,
}

/// The end of a chain: its last line.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// What is wrong with a line.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ChainFault {
    #[error("it does not end with its digest")]
    Unsealed,
    #[error("its digest is {found}, it says {expected}")]
    Digest { found: Sha256, expected: Sha256 },
    #[error("found seq {found}, expected {expected}")]
    Seq { found: u64, expected: u64 },
    #[error("found prev_sha256 {found}, expected that of the line before, {expected}")]
    Previous { found: Sha256, expected: Sha256 },
    #[error("is not understood: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Value(String),
    #[error("is not written as fedmill writes it")]
    OtherForm,
}

/// The first line of a ledger that is wrong.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {line}: {fault}")]
pub struct ChainError {
    /// Its number in the file, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub fault: ChainFault,
}

/// Adds an entry to a chain: the line, without its end, and where the chain stands then.
///
/// # Errors
///
/// When the entry has a number that cannot be written.
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

/// Reads the line that follows a head, and checks everything about it.
///
/// # Errors
///
/// When anything is wrong with it.
pub fn read<E: Entry>(line: &str, after: Option<&Head>) -> Result<(Record<E>, Head), ChainFault> {
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
    let record: Record<E> =
        serde_json::from_str(&text).map_err(|why| ChainFault::Unreadable(why.to_string()))?;
    let seq = after.map_or(0, |head| head.seq + 1);
    if record.seq != seq {
        return Err(ChainFault::Seq { found: record.seq, expected: seq });
    }
    let previous = after.map_or(Sha256::NONE, |head| head.sha256);
    if record.prev_sha256 != previous {
        return Err(ChainFault::Previous { found: record.prev_sha256, expected: previous });
    }
    record.entry.check().map_err(ChainFault::Value)?;
    // A field that stands twice, or a number that is cut short, would be read as something else by others.
    if body(&record)? != text {
        return Err(ChainFault::OtherForm);
    }
    Ok((record, Head { seq, sha256: found }))
}

/// Reads a chain from its first line on: its records, and the head at each.
///
/// # Errors
///
/// Names the first line that is wrong.
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
