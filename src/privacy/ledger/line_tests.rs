//! Tests of the lines of a ledger: sealed lines, and lines that are refused.

use super::record::{LedgerEntry, LedgerRecord};
use super::trial::{charge, init, lines, plan, release};
use crate::record::sha256::Sha256;
use crate::record::{ChainError, ChainFault, END, Head, SEAL, read, seal, verify};

/// A ledger with one line of each of the common kinds.
fn ledger() -> Vec<String> {
    let plan = plan();
    let first = charge(&plan, 1);
    let released = release(&first, 1);
    lines(&[init(&plan), LedgerEntry::Charge(Box::new(first)), released])
}

fn check(lines: &[String]) -> Result<Vec<(LedgerRecord, Head)>, ChainError> {
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
    let others = lines(&[init(&other), LedgerEntry::Charge(Box::new(charge(&other, 1)))]);
    let mixed = [ledger()[0].clone(), others[1].clone()];
    let error = check(&mixed).unwrap_err();
    assert!(matches!(error, ChainError { line: 2, fault: ChainFault::Previous { .. } }), "{error}");
}

/// A line with this body and the right digest.
fn sealed(body: &str) -> String {
    format!("{}{SEAL}{}{END}", body.strip_suffix('}').unwrap(), Sha256::of(body))
}

#[test]
fn unknown_fields_and_bad_numbers_are_refused_though_the_digest_is_right() {
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
        assert!(read::<LedgerEntry>(&sealed(&to), Some(&after)).is_err(), "{to}");
    }
}
