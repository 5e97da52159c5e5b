//! Compares the bases that updates name: without `--base`, those of most decide.

use crate::engine::intake::agreed::{Agreement, agreed};
use crate::engine::intake::fault::Fault;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::update::Update;
use std::collections::BTreeSet;

/// As many updates name one base as another.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("as many updates name the base {one} as {other}: those of different bases cannot be merged")]
pub struct TiedBases {
    one: String,
    other: String,
}

impl TiedBases {
    /// Advice for the operator.
    pub const HINT: &str = "pass the model that the clients started from as --base";
}

/// Digests that can be compared: of one kind, as the prefix tells it.
const KINDS: [&str; 3] = ["blake3", "sha256", ""];

/// The digits behind `blake3:` that are enough.
const ENOUGH: usize = 32;

/// The kind and the digits of a digest.
fn digits(named: &str) -> (&'static str, String) {
    let named = named.trim().to_ascii_lowercase();
    match named.split_once(':') {
        Some(("blake3", hex)) => ("blake3", hex.chars().take(ENOUGH).collect()),
        Some(("sha256", hex)) => ("sha256", hex.to_owned()),
        _ => ("", named),
    }
}

/// What the sound updates name as a digest of this kind: each client once, `None` for those that name no base.
fn named(updates: &[Update], kind: &str) -> Agreement<String> {
    let mut seen = BTreeSet::new();
    let sound = updates.iter().filter(|update| update.faults.is_empty() && seen.insert(update.id.as_str()));
    let stated = sound.map(|update| update.metadata.base.as_deref().map(digits));
    let of_kind = stated.filter(|stated| stated.as_ref().is_none_or(|(found, _)| *found == kind));
    agreed(of_kind.map(|stated| stated.map(|(_, digits)| digits)))
}

/// Marks updates that name another base than most of those that name one.
pub fn mark_others(updates: &mut [Update]) {
    for kind in KINDS {
        let Agreement::On(expected) = named(updates, kind) else { continue };
        for update in &mut *updates {
            let Some(found) = update.metadata.base.clone() else { continue };
            let (found_kind, digits) = digits(&found);
            if found_kind == kind && digits != expected {
                let expected = format!("{expected}, as most updates name");
                update.faults.push(Fault::OtherBase { found, expected });
            }
        }
    }
}

/// Refuses updates of which as many name one base as another, in a run without a base.
///
/// # Errors
///
/// The two bases.
pub fn check_tied(updates: &[Update], has_base: bool, policy: &Policy) -> Result<(), TiedBases> {
    if has_base || policy.claims.judges_alone {
        return Ok(());
    }
    let tied = KINDS.into_iter().find_map(|kind| match named(updates, kind) {
        Agreement::Tied(one, other) => Some(TiedBases { one, other }),
        Agreement::None | Agreement::On(_) => None,
    });
    tied.map_or(Ok(()), Err)
}
