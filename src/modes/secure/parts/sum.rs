//! The masked sum in parts: each machine of the server adds up a range of lanes of all clients.
//!
//! A machine that reads a range cannot check the digest that a client signed over all lanes. It hashes the subtrees of its
//! range in BLAKE3's tree, and the machine that joins the parts computes the digests of the clients from those.

use crate::engine::passes::machine::Machine;
use crate::io::digest::tree::{joined, subtree_count};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::parts::draft::Draft;
use crate::modes::secure::parts::file::{Part, Parts, join as join_parts, number_bytes};
use crate::modes::secure::set::{ClientSet, FrozenSet, SetMember};
use crate::modes::secure::sum::{
    AddedClient, Summed, add_up_part, already_frozen, check_server, note_frozen, open_members,
};
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::identity::{Identity, Stage};
use crate::parties::journal::PartyJournal;
use crate::parties::signed_lanes::{LanesFile, LanesWriter};
use crate::settings::shard::Shard;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of the fault of a client: a lane as u64 and what is there as u32. The lane is `NO_LANE` without a fault.
const FAULT_BYTES: usize = 12;
/// The lane of a client without a fault.
const NO_LANE: u64 = u64::MAX;

/// What joining came to.
#[derive(Clone, Debug)]
pub enum Joined {
    /// The set is frozen, and its sum is published.
    Summed(Summed),
    /// These clients are bad: they are left out of the draft, and all shards must be added up again.
    LeftOut(Vec<LeftOutClient>),
}

/// Adds up the lanes of a shard, and returns the path of the part.
///
/// # Errors
///
/// When the identity is not the server's, too few clients are there, one's file changed or cannot be read, or the part
/// cannot be written.
pub fn shard(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    (parts, shard): (&Path, Shard),
    machine: &Machine,
) -> Result<PathBuf, SecureError> {
    let manifest = folder.manifest()?;
    check_server(&manifest, identity)?;
    // Other machines of the server open the journal too.
    let frozen = already_frozen(folder, &manifest, &PartyJournal::open(journal)?)?;
    let frozen = match frozen {
        Some(frozen) => frozen,
        None => {
            let draft = Draft::read_or_write(parts, folder, &manifest, machine)?;
            let (draft, bad) = draft.without_bad(parts, folder, &manifest, machine)?;
            for bad in bad {
                tracing::warn!(
                    "`{}` is left out: {}: run the shards again that are done",
                    bad.client,
                    bad.fault
                );
            }
            draft.signed(parts, &manifest, identity)?.0
        }
    };
    let files = machine.pool.install(|| open_members(folder, &manifest, &frozen.set))?;
    let parts = parts_of(parts, &manifest, identity, &frozen);
    let range = parts.range(shard);
    let mut writer = parts.create(folder, shard, finding_bytes(&manifest, &frozen.set, range.clone()))?;
    let added =
        add_up_part(&manifest, &frozen.set, &files, machine, range.clone(), &mut |sums| writer.append(sums))?;
    let mut extra = number_bytes(shard);
    for AddedClient { client, result } in added {
        let (lane, found, hashes) = match result {
            Ok(hashes) => (NO_LANE, 0, hashes),
            Err(MessageFault::OutsideField { lane, found }) => {
                (lane, found, vec![[0; 32]; hash_count(&manifest, range.clone())])
            }
            Err(fault) => return Err(SecureError::file(&folder.masked(&client))(fault)),
        };
        extra.extend(lane.to_le_bytes());
        extra.extend(found.to_le_bytes());
        extra.extend(hashes.as_flattened());
    }
    writer.publish(&extra, identity)?;
    Ok(parts.path(shard))
}

/// Joins the parts of all shards, freezes the set if it is not frozen, and publishes it and the sum.
///
/// # Errors
///
/// When the identity is not the server's, a part is missing or is none of this set, a frozen client's file changed, or a
/// file cannot be written.
pub fn join(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    parts: &Path,
    machine: &Machine,
) -> Result<Joined, SecureError> {
    let manifest = folder.manifest()?;
    check_server(&manifest, identity)?;
    let mut journal = PartyJournal::open(journal)?;
    let published = already_frozen(folder, &manifest, &journal)?;
    let draft = match &published {
        Some(_) => None,
        None => {
            let draft = Draft::read(parts, &manifest)?.ok_or_else(|| no_draft(parts))?;
            let (draft, bad) = draft.without_bad(parts, folder, &manifest, machine)?;
            if !bad.is_empty() {
                return Ok(Joined::LeftOut(bad));
            }
            Some(draft)
        }
    };
    let signed = draft.as_ref().map(|draft| draft.signed(parts, &manifest, identity)).transpose()?;
    let (frozen, text) = signed
        .map(|(frozen, text)| (frozen, Some(text)))
        .or(published.map(|frozen| (frozen, None)))
        .ok_or_else(|| no_draft(parts))?;
    let files = machine.pool.install(|| open_members(folder, &manifest, &frozen.set))?;
    let all = parts_of(parts, &manifest, identity, &frozen);
    let opened = all.open_all(|range| finding_bytes(&manifest, &frozen.set, range))?;
    let faults = faults(&manifest, &frozen.set, &files, &opened);
    if let Some(first) = faults.first() {
        let Some(draft) = draft else {
            return Err(SecureError::file(&folder.masked(&first.client))(first.fault.clone()));
        };
        draft.leave_out(parts, &faults)?;
        return Ok(Joined::LeftOut(faults));
    }
    let statement = manifest.statement(Stage::Sum, &manifest.terms.server.id, Some(frozen.digest));
    let mut writer = LanesWriter::create(&folder.sum(), &statement, manifest.sums_shape())?;
    join_parts(opened, manifest.terms.groups, machine, &mut |sums| writer.append(sums))?;
    if let Some(text) = text {
        note_frozen(folder, &manifest, &text, &frozen, &mut journal)?;
    }
    writer.publish(&[], identity)?;
    Ok(Joined::Summed(Summed { frozen, path: folder.sum() }))
}

fn no_draft(parts: &Path) -> SecureError {
    let why = format!("{}: has no part", parts.display());
    SecureError::refused(why, Some("run `fedmill secagg sum --shard I/S` for each shard first"))
}

fn parts_of<'p>(
    folder: &'p Path,
    manifest: &'p Manifest,
    identity: &Identity,
    frozen: &FrozenSet,
) -> Parts<'p> {
    let server = (manifest.terms.server.id.as_str(), identity);
    Parts::new(folder, manifest, Stage::SumPart, server, frozen.digest)
}

/// The bytes of lanes of a client, and those in a range.
fn bytes_of(manifest: &Manifest, lanes: Range<usize>) -> (u64, Range<u64>) {
    let bytes = |lanes: usize| (lanes * size_of::<u32>()) as u64;
    (bytes(manifest.terms.lanes()), bytes(lanes.start)..bytes(lanes.end))
}

/// The hashes that a part has of each client.
fn hash_count(manifest: &Manifest, lanes: Range<usize>) -> usize {
    let (all, part) = bytes_of(manifest, lanes);
    subtree_count(all, &part)
}

fn client_bytes(manifest: &Manifest, lanes: Range<usize>) -> usize {
    FAULT_BYTES + 32 * hash_count(manifest, lanes)
}

fn finding_bytes(manifest: &Manifest, set: &ClientSet, lanes: Range<usize>) -> usize {
    set.members().count() * client_bytes(manifest, lanes)
}

/// What one part says of one client.
struct ClientFinding<'f> {
    lane: u64,
    found: u32,
    bytes: Range<u64>,
    hashes: &'f [[u8; 32]],
}

fn finding<'f>(manifest: &Manifest, part: &'f Part, place: usize) -> Option<ClientFinding<'f>> {
    let len = client_bytes(manifest, part.range.clone());
    let own = part.findings().get(place * len..)?.get(..len)?;
    let (lane, rest) = own.split_first_chunk()?;
    let (found, hashes) = rest.split_first_chunk()?;
    let (lane, found) = (u64::from_le_bytes(*lane), u32::from_le_bytes(*found));
    let (_, bytes) = bytes_of(manifest, part.range.clone());
    Some(ClientFinding { lane, found, bytes, hashes: hashes.as_chunks().0 })
}

/// The clients whose lanes are bad, in the order of the set: with the first lane outside the field, or another digest than
/// the signed one.
fn faults(
    manifest: &Manifest,
    set: &ClientSet,
    files: &BTreeMap<String, LanesFile>,
    parts: &[Part],
) -> Vec<LeftOutClient> {
    let (all, _) = bytes_of(manifest, 0..0);
    let fault = |place: usize, client: &String| {
        let found: Vec<ClientFinding> =
            parts.iter().filter_map(|part| finding(manifest, part, place)).collect();
        if let Some(bad) = found.iter().filter(|one| one.lane != NO_LANE).min_by_key(|one| one.lane) {
            return Some(MessageFault::OutsideField { lane: bad.lane, found: bad.found });
        }
        let digest = joined(all, found.into_iter().map(|one| (one.bytes, one.hashes)));
        files[client].check_lanes_digest(digest).err()
    };
    let of_member = |(place, member): (usize, &SetMember)| {
        let client = member.client.clone();
        fault(place, &client).map(|fault| LeftOutClient { client, fault })
    };
    set.members().enumerate().filter_map(of_member).collect()
}
