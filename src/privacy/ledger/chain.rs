//! Every line names the one before it by its digest, and itself: no byte of a ledger changes unnoticed.
//!
//! A line is the JSON of a record with `"sha256"` as its last field: the digest of the line as it is without that field.
//! So it is checked on the bytes as they stand, with no more than `sed` and `sha256sum`:
//!
//! ```text
//! sed -n 3p ledger.jsonl | sed 's/,"sha256":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum
//! ```

use super::record::{Entry, Record};
use super::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Stands before the digest of a line.
const SEAL: &str = ",\"sha256\":\"";

/// Stands behind it.
const END: &str = "\"}";

/// Where a chain stands: its last line.
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
pub fn seal(after: Option<&Head>, ts: u64, entry: &Entry) -> Result<(String, Head), ChainFault> {
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

fn body(record: &Record) -> Result<String, ChainFault> {
    serde_json::to_string(record).map_err(|why| ChainFault::Unreadable(why.to_string()))
}

/// Reads the line that follows a head, and checks everything about it.
///
/// # Errors
///
/// When anything is wrong with it.
pub fn read(line: &str, after: Option<&Head>) -> Result<(Record, Head), ChainFault> {
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
    let record: Record =
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
pub fn verify<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<(Record, Head)>, ChainError> {
    let mut records: Vec<(Record, Head)> = Vec::new();
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
    use crate::privacy::ledger::trial::{charge, init, lines, plan, release};

    /// A ledger with one line of each of the common kinds.
    fn ledger() -> Vec<String> {
        let plan = plan();
        let first = charge(&plan, 1);
        let released = release(&first, 1);
        lines(&[init(&plan), Entry::Charge(Box::new(first)), released])
    }

    fn check(lines: &[String]) -> Result<Vec<(Record, Head)>, ChainError> {
        verify(lines.iter().map(String::as_str))
    }

    #[test]
    fn what_is_sealed_is_read_back() {
        let lines = ledger();
        let records = check(&lines).unwrap();
        assert_eq!(records.len(), 3);
        for (place, (record, head)) in records.iter().enumerate() {
            assert_eq!((record.seq, head.seq), (place as u64, place as u64));
            let after = place.checked_sub(1).map(|before| &records[before].1);
            let (line, again) = seal(after, record.ts, &record.entry).unwrap();
            assert_eq!((line.as_str(), again), (lines[place].as_str(), *head));
        }
        let head = records[2].1;
        assert_eq!(head.to_string().parse(), Ok(head));
    }

    #[test]
    fn no_byte_changes_unnoticed() {
        let lines = ledger();
        for (number, line) in lines.iter().enumerate() {
            for place in 0..line.len() {
                for change in [1, 2, 32] {
                    let mut bytes = line.clone().into_bytes();
                    bytes[place] ^= change;
                    let Ok(text) = String::from_utf8(bytes) else { continue };
                    let mut changed = lines.clone();
                    changed[number] = text;
                    let error = check(&changed).unwrap_err();
                    assert_eq!(error.line, number + 1, "byte {place} of line {number}: {error}");
                }
            }
        }
    }

    #[test]
    fn lines_that_are_moved_removed_or_doubled_are_noticed() {
        let lines = ledger();
        let pick = |places: &[usize]| places.iter().map(|place| lines[*place].clone()).collect::<Vec<_>>();
        for (places, bad) in [(&[0, 2][..], 2), (&[1, 2], 1), (&[0, 1, 1], 3), (&[0, 2, 1], 2)] {
            let error = check(&pick(places)).unwrap_err();
            assert!(matches!(error.fault, ChainFault::Seq { .. }), "{error}");
            assert_eq!(error.line, bad);
        }
    }

    #[test]
    fn a_line_of_another_ledger_is_noticed() {
        let mut other = plan();
        other.rounds += 1;
        let others = lines(&[init(&other), Entry::Charge(Box::new(charge(&other, 1)))]);
        let mixed = [ledger()[0].clone(), others[1].clone()];
        let error = check(&mixed).unwrap_err();
        assert!(matches!(error, ChainError { line: 2, fault: ChainFault::Previous { .. } }), "{error}");
    }

    /// A line that says this, with a digest that is right.
    fn sealed(body: &str) -> String {
        format!("{}{SEAL}{}{END}", body.strip_suffix('}').unwrap(), Sha256::of(body))
    }

    #[test]
    fn what_is_not_known_or_no_number_is_refused_though_its_digest_is_right() {
        let lines = ledger();
        let after = check(&lines[..1]).unwrap()[0].1;
        let line = &lines[1];
        let body = format!("{}}}", &line[..line.rfind(SEAL).unwrap()]);
        assert_eq!(sealed(&body), *line);
        for (from, to) in [
            ("\"kind\":\"charge\"", "\"kind\":\"gift\""),
            ("\"round\":1", "\"round\":1,\"colour\":1"),
            ("\"round\":1", "\"round\":-1"),
            ("\"round\":1", "\"round\":1,\"round\":2"),
            ("\"round\":1", "\"round\": 1"),
            ("\"z\":1.1", "\"z\":-1.1"),
            ("\"z\":1.1", "\"z\":null"),
            ("\"z\":1.1", "\"z\":1e999"),
            ("\"eps_rdp\":1.25", "\"eps_rdp\":-1.25"),
            ("\"eps_rdp\":1.25", "\"eps_rdp\":1.250"),
            ("\"delta_target\":0.00001", "\"delta_target\":0.0"),
            ("\"delta_target\":0.00001", "\"delta_target\":2.0"),
            ("GaussianDpEvent", "FreeDpEvent"),
            ("\"rng\":\"os\"", "\"rng\":\"dice\""),
        ] {
            let to = body.replacen(from, to, 1);
            assert_ne!(to, body, "{from}: {body}");
            assert!(read(&sealed(&to), Some(&after)).is_err(), "{to}");
        }
    }
}
