//! Answers for a helper: its share of the sum of the masks of the frozen set, once in a session.
//!
//! Before it answers, the helper opens the envelope of every client of the set, and checks the seeds. Its journal, on disk
//! before the answer is published, keeps that it answers over one set alone: the same set gives the same bytes again.

use crate::engine::passes::machine::Machine;
use crate::io::interrupt;
use crate::modes::secure::check::helper_of;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::keys::seeds::{self, Seed, Seeds};
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::mask_stream::add_share;
use crate::modes::secure::set::{FrozenSet, SetMember};
use crate::modes::secure::sum::{TakeSums, open_members};
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage};
use crate::parties::journal::{Deed, PartyJournal};
use crate::parties::signed_lanes::{LanesFile, LanesWriter};
use crate::parties::signed_text::SignedText;
use crate::record::sha256::Sha256;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// Lanes of an answer that are computed at once.
const LANES_AT_ONCE: usize = 1 << 20;

/// What a helper did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Helped {
    /// It published its answer.
    Answered(PathBuf),
    /// It signed the set, and waits until `expected` helpers did.
    Waits {
        /// Helpers that signed this set.
        found: usize,
        /// Helpers that must.
        expected: usize,
    },
}

/// The signature of a helper that it saw a set.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Witness {
    protocol: String,
    session: Sha256,
    helper: String,
    set: Sha256,
}

/// Publishes the answer of a helper.
///
/// # Errors
///
/// When the identity is no helper, the set is not frozen or names a client whose seeds are not sound, the helper answered
/// over another set, or the answer cannot be written.
pub fn run(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    machine: &Machine,
) -> Result<Helped, SecureError> {
    let manifest = folder.manifest()?;
    let number = helper_of(&manifest, identity)?;
    let helper = &manifest.terms.helpers[number - 1].id;
    let frozen = FrozenSet::expect(folder, &manifest)?;
    let mut journal = PartyJournal::open(journal)?;
    let files = machine.pool.install(|| open_members(folder, &manifest, &frozen.set))?;
    let mut seeds = open_seeds(&manifest, &(number, identity), &frozen, &files, machine)?;
    if let Some(waits) = bind_answer(folder, &manifest, (helper, identity), &frozen, &mut journal)? {
        return Ok(waits);
    }
    let path = folder.answer(helper);
    folder.make_room(&path)?;
    let statement = manifest.statement(Stage::Help, helper, Some(frozen.digest));
    let mut writer = LanesWriter::create(&path, &statement, manifest.sums_shape())?;
    let lanes = 0..manifest.terms.lanes();
    write_shares(&manifest, number, &mut seeds, lanes, machine, &mut |share| writer.append(share))?;
    writer.publish(&[], identity)?;
    Ok(Helped::Answered(path))
}

/// Binds the helper to a set, on disk: from now on it answers over this one alone. Returns what it waits for, if others
/// must sign the set first.
///
/// # Errors
///
/// When it is bound to another one, or an answer is there that its journal does not know.
pub fn bind_answer(
    folder: &SessionFolder,
    manifest: &Manifest,
    (helper, identity): (&str, &Identity),
    frozen: &FrozenSet,
    journal: &mut PartyJournal,
) -> Result<Option<Helped>, SecureError> {
    if manifest.terms.helpers_sign_set {
        bind(manifest, frozen, journal, Stage::Witness)?;
        let (found, expected) =
            (witnesses(folder, manifest, helper, frozen, identity)?, manifest.terms.threshold);
        if found < expected {
            return Ok(Some(Helped::Waits { found, expected }));
        }
    }
    refuse_unknown_answer(folder, manifest, helper, journal)?;
    bind(manifest, frozen, journal, Stage::Help)?;
    Ok(None)
}

/// Binds the helper to a set, on disk.
///
/// # Errors
///
/// When it is bound to another one.
fn bind(
    manifest: &Manifest,
    frozen: &FrozenSet,
    journal: &mut PartyJournal,
    stage: Stage,
) -> Result<(), SecureError> {
    let deed = Deed { session: manifest.session, stage, subject: Hex(*frozen.digest.bytes()) };
    match journal.of(&deed.session, stage) {
        Some(done) if *done == deed => Ok(()),
        Some(done) => {
            let why = format!(
                "you answered session {} over the set {}, and found the set {}: two answers would tell the difference of two sums",
                deed.session.short(),
                done.subject,
                deed.subject
            );
            Err(SecureError::refused(why, Some("tell the other helpers: the server showed two sets")))
        }
        None => journal.note(&deed),
    }
}

/// Refuses if an answer of the helper is there that its journal does not know.
fn refuse_unknown_answer(
    folder: &SessionFolder,
    manifest: &Manifest,
    helper: &str,
    journal: &PartyJournal,
) -> Result<(), SecureError> {
    let path = folder.answer(helper);
    if !crate::io::folder::exists(&path) || journal.of(&manifest.session, Stage::Help).is_some() {
        return Ok(());
    }
    let why = format!(
        "{}: is there, and your journal does not know it: it was lost, or set back to an older copy",
        path.display()
    );
    Err(SecureError::refused(why, Some("restore the journal; or remove the file if you did not write it")))
}

/// The seeds that the helper holds of every member of the set, group by group.
///
/// # Errors
///
/// When the seeds of a member are not sound.
pub fn open_seeds(
    manifest: &Manifest,
    helper: &(usize, &Identity),
    frozen: &FrozenSet,
    files: &BTreeMap<String, LanesFile>,
    machine: &Machine,
) -> Result<Vec<Vec<Seeds>>, SecureError> {
    let open = |member: &SetMember| {
        let file = &files[&member.client];
        seeds::open(manifest, helper, &member.client, file.extra()).map_err(|fault| {
            let why = format!("{}: {fault}; the set names this client", file.path().display());
            SecureError::refused(
                why,
                Some("run `fedmill secagg check`, and the server leaves the client out of the next session"),
            )
        })
    };
    let of_group = |group: &Vec<SetMember>| group.par_iter().map(open).collect();
    machine.pool.install(|| frozen.set.groups.iter().map(of_group).collect())
}

/// Computes some lanes of the helper's share for each group, hands them to `take`, and wipes the seeds.
///
/// # Errors
///
/// When the GPU fails, `take` fails, or a signal asked to stop.
pub fn write_shares(
    manifest: &Manifest,
    number: usize,
    seeds: &mut [Vec<Seeds>],
    lanes: Range<usize>,
    machine: &Machine,
    take: &mut TakeSums,
) -> Result<(), SecureError> {
    let sets = manifest.committee.sets_without(number);
    let clients: usize = seeds.iter().map(Vec::len).sum();
    let work = clients * sets.len() * lanes.len() * size_of::<u32>();
    machine.progress.start("computing masks", work as u64);
    for group in seeds {
        let mut streams: Vec<(u32, Vec<Seed>)> = sets
            .iter()
            .enumerate()
            .map(|(place, set)| {
                let factor = manifest.committee.value_at(*set, number);
                (factor, group.iter().map(|seeds| seeds[place]).collect())
            })
            .collect();
        for first in lanes.clone().step_by(LANES_AT_ONCE) {
            interrupt::check()?;
            let mut share = vec![0; LANES_AT_ONCE.min(lanes.end - first)];
            add_share(machine, &streams, first as u64, &mut share)?;
            machine.progress.advance((group.len() * sets.len() * share.len() * size_of::<u32>()) as u64);
            machine.pool.install(|| take(&share))?;
        }
        streams.iter_mut().for_each(|(_, seeds)| seeds.zeroize());
        group.clear();
    }
    machine.progress.finish();
    Ok(())
}

/// Publishes the helper's signature of the set. Returns the number of helpers that signed it.
fn witnesses(
    folder: &SessionFolder,
    manifest: &Manifest,
    helper: &str,
    frozen: &FrozenSet,
    identity: &Identity,
) -> Result<usize, SecureError> {
    let (protocol, helper) = (SECAGG_PROTOCOL.to_owned(), helper.to_owned());
    let witness = Witness { protocol, session: manifest.session, helper, set: frozen.digest };
    let path = folder.witness(&witness.helper);
    folder.make_room(&path)?;
    SignedText::sign(&witness, Stage::Witness, identity)?.publish(&path)?;
    Ok(signers(folder, manifest, frozen).len())
}

/// The helpers that signed this set.
pub fn signers<'m>(folder: &SessionFolder, manifest: &'m Manifest, frozen: &FrozenSet) -> Vec<&'m str> {
    let has_signed = |helper: &&PublicIdentity| {
        let (protocol, id) = (SECAGG_PROTOCOL.to_owned(), helper.id.clone());
        let expected = Witness { protocol, session: manifest.session, helper: id, set: frozen.digest };
        let read = SignedText::read(&folder.witness(&helper.id));
        read.is_ok_and(|text| text.verified(Stage::Witness, &helper.id, &helper.ed25519) == Ok(expected))
    };
    manifest.terms.helpers.iter().filter(has_signed).map(|helper| helper.id.as_str()).collect()
}
