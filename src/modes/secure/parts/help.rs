//! The answer of a helper in parts: each of its machines computes a range of lanes.
//!
//! A part holds lanes of the answer, and nothing else that the seeds tell. The helper binds itself to the set, on disk,
//! before a machine computes its first part.

use crate::engine::passes::machine::Machine;
use crate::modes::secure::check::helper_of;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::help::{Helped, bind_answer, open_seeds, write_shares};
use crate::modes::secure::parts::file::{Parts, join as join_parts, number_bytes};
use crate::modes::secure::set::FrozenSet;
use crate::modes::secure::sum::open_members;
use crate::parties::error::SecureError;
use crate::parties::identity::{Identity, Stage};
use crate::parties::journal::PartyJournal;
use crate::parties::signed_lanes::LanesWriter;
use crate::settings::shard::Shard;
use std::path::Path;

/// Computes the lanes of a shard. [`Helped::Answered`] has the path of the part.
///
/// # Errors
///
/// As [`crate::modes::secure::help::run`].
pub fn shard(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    (parts, shard): (&Path, Shard),
    machine: &Machine,
) -> Result<Helped, SecureError> {
    let manifest = folder.manifest()?;
    let number = helper_of(&manifest, identity)?;
    let helper = (manifest.terms.helpers[number - 1].id.as_str(), identity);
    let frozen = FrozenSet::expect(folder, &manifest)?;
    let files = machine.pool.install(|| open_members(folder, &manifest, &frozen.set))?;
    let mut seeds = open_seeds(&manifest, &(number, identity), &frozen, &files, machine)?;
    {
        // Other machines of the helper open the journal too.
        let mut journal = PartyJournal::open(journal)?;
        if let Some(waits) = bind_answer(folder, &manifest, helper, &frozen, &mut journal)? {
            return Ok(waits);
        }
    }
    let parts = Parts::new(parts, &manifest, Stage::HelpPart, helper, frozen.digest);
    let mut writer = parts.create(folder, shard, 0)?;
    let lanes = parts.range(shard);
    write_shares(&manifest, number, &mut seeds, lanes, machine, &mut |share| writer.append(share))?;
    writer.publish(&number_bytes(shard), identity)?;
    Ok(Helped::Answered(parts.path(shard)))
}

/// Joins the parts of all shards, and publishes the answer.
///
/// # Errors
///
/// When the identity is no helper, the set is not frozen, the helper answered over another set, a part is missing or is none
/// of this set, or the answer cannot be written.
pub fn join(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    parts: &Path,
    machine: &Machine,
) -> Result<Helped, SecureError> {
    let manifest = folder.manifest()?;
    let number = helper_of(&manifest, identity)?;
    let helper = (manifest.terms.helpers[number - 1].id.as_str(), identity);
    let frozen = FrozenSet::expect(folder, &manifest)?;
    let mut journal = PartyJournal::open(journal)?;
    let opened = Parts::new(parts, &manifest, Stage::HelpPart, helper, frozen.digest).open_all(|_| 0)?;
    if let Some(waits) = bind_answer(folder, &manifest, helper, &frozen, &mut journal)? {
        return Ok(waits);
    }
    let path = folder.answer(helper.0);
    folder.make_room(&path)?;
    let statement = manifest.statement(Stage::Help, helper.0, Some(frozen.digest));
    let mut writer = LanesWriter::create(&path, &statement, manifest.sums_shape())?;
    join_parts(opened, manifest.terms.groups, machine, &mut |share| writer.append(share))?;
    writer.publish(&[], identity)?;
    Ok(Helped::Answered(path))
}
