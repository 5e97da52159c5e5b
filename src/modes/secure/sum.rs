//! Adds up the masked updates: the server freezes the set of clients, once, and signs their sum.
//!
//! One pass reads every file once: it adds the lanes, checks that each is in the field, and hashes them. A client whose
//! lanes are not those that it signed is left out, and the pass runs again.

use crate::engine::passes::machine::Machine;
use crate::io::digest::tree::PartDigest;
use crate::io::folder::make_folder_of;
use crate::io::interrupt;
use crate::kernels::field::{P, add_elements, all_below};
use crate::kernels::lanes::Isa;
use crate::modes::secure::check::{open_masked, reports};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::mask_stream::add_rows;
use crate::modes::secure::set::{ClientSet, FrozenSet, SetMember};
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, Stage};
use crate::parties::journal::{Deed, PartyJournal, seconds_now};
use crate::parties::signed_lanes::{LanesFile, LanesReader, LanesWriter, little_endian};
use crate::parties::signed_text::SignedText;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Lanes of the sums that are in memory at once, for each thread.
const RANGE: usize = 1 << 22;
/// Lanes that are read at once: they and their sums fit the second-level cache.
const CHUNK: usize = 1 << 17;

/// The sum of a session.
#[derive(Clone, Debug)]
pub struct Summed {
    /// The frozen set.
    pub frozen: FrozenSet,
    /// The file of the sum.
    pub path: PathBuf,
}

/// Freezes the set of clients, if it is not frozen, and publishes it and the sum of their masked updates.
///
/// # Errors
///
/// When the identity is not the server's, too few clients are left, a frozen client's file changed, or a file cannot be
/// written.
pub fn run(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    machine: &Machine,
) -> Result<Summed, SecureError> {
    let manifest = folder.manifest()?;
    check_server(&manifest, identity)?;
    let mut journal = PartyJournal::open(journal)?;
    match already_frozen(folder, &manifest, &journal)? {
        Some(frozen) => add_frozen(folder, &manifest, frozen, identity, machine),
        None => {
            let collected = collect(folder, &manifest, machine)?;
            freeze(folder, &manifest, collected, identity, &mut journal, machine)
        }
    }
}

/// Freezes a set of some of the clients, if none is frozen, and publishes it and the sum as [`run`] does. Masked updates
/// of others are as if they were not there.
///
/// # Errors
///
/// As [`run`].
pub fn run_among(
    folder: &SessionFolder,
    identity: &Identity,
    journal: &Path,
    clients: &BTreeSet<String>,
    machine: &Machine,
) -> Result<Summed, SecureError> {
    let manifest = folder.manifest()?;
    check_server(&manifest, identity)?;
    let mut journal = PartyJournal::open(journal)?;
    if let Some(frozen) = already_frozen(folder, &manifest, &journal)? {
        return add_frozen(folder, &manifest, frozen, identity, machine);
    }
    let (mut files, mut left_out) = collect(folder, &manifest, machine)?;
    files.retain(|client, _| clients.contains(client));
    left_out.retain(|one| clients.contains(&one.client));
    freeze(folder, &manifest, (files, left_out), identity, &mut journal, machine)
}

/// Checks that an identity is that of the session's server.
///
/// # Errors
///
/// When it is not.
pub fn check_server(manifest: &Manifest, identity: &Identity) -> Result<(), SecureError> {
    if manifest.terms.server.ed25519 == identity.verifying() {
        return Ok(());
    }
    let why = format!("the key is not that of the session's server `{}`", manifest.terms.server.id);
    Err(SecureError::refused(why, Some("pass the key with which the session was opened")))
}

/// The set that this server froze before, published again if its file is gone.
///
/// # Errors
///
/// When the session has another set, or a file that the journal does not know of.
pub fn already_frozen(
    folder: &SessionFolder,
    manifest: &Manifest,
    journal: &PartyJournal,
) -> Result<Option<FrozenSet>, SecureError> {
    let published = FrozenSet::read(folder, manifest)?;
    let kept = journal.kept(&manifest.session, "set.json");
    let Some(deed) = journal.of(&manifest.session, Stage::Set) else {
        return refuse_unknown_set(folder, manifest).map(|()| None);
    };
    let frozen = match published {
        Some(frozen) => frozen,
        None => {
            let text = SignedText::read(&kept)?;
            let frozen = FrozenSet::of(&text, manifest).map_err(SecureError::file(&kept))?;
            text.publish(&folder.set())?;
            frozen
        }
    };
    if Hex(*frozen.digest.bytes()) != deed.subject {
        let why = format!(
            "{}: is another set than the one that you froze: two sets in a session are never published",
            folder.set().display()
        );
        return Err(SecureError::refused(why, Some("remove it, and the frozen set is published again")));
    }
    Ok(Some(frozen))
}

/// Refuses if a file is there that comes after a frozen set, for the server's journal knows of none.
fn refuse_unknown_set(folder: &SessionFolder, manifest: &Manifest) -> Result<(), SecureError> {
    let answers = manifest.terms.helpers.iter().map(|helper| folder.answer(&helper.id));
    let mut later = [folder.set(), folder.sum()].into_iter().chain(answers);
    let Some(path) = later.find(|path| crate::io::folder::exists(path)) else { return Ok(()) };
    let why = format!(
        "{}: is there, so the set is frozen, and your journal does not know it: it was lost, or set back to an older copy",
        path.display()
    );
    Err(SecureError::refused(why, Some("restore the journal; a second set in a session is never published")))
}

/// The sound files of clients, by id, and those who are left out.
pub type Collected = (BTreeMap<String, LanesFile>, Vec<LeftOutClient>);

/// Reads the masked updates that are there, and what helpers reported.
///
/// # Errors
///
/// When a file cannot be read.
pub fn collect(
    folder: &SessionFolder,
    manifest: &Manifest,
    machine: &Machine,
) -> Result<Collected, SecureError> {
    let (reader, all) = (LanesReader::default(), folder.all_masked()?);
    let open =
        |(sender, path): &(Option<String>, PathBuf)| open_masked(manifest, &reader, sender.as_deref(), path);
    let opened: Vec<_> = machine.pool.install(|| all.par_iter().map(open).collect());
    let (mut files, mut left_out) = (BTreeMap::new(), Vec::new());
    for one in opened {
        match one {
            Ok((client, file)) => drop(files.insert(client, file)),
            Err(one) => left_out.push(one),
        }
    }
    let reports = reports(folder, manifest)?;
    if reports.is_empty() {
        tracing::warn!(
            "no helper checked the seeds: if those of one client are bad, helpers refuse to answer, and the session has no sum"
        );
    }
    for report in reports {
        for bad in report.bad {
            let client = &bad.member.client;
            if files.get(client).is_some_and(|file| file.digest() == bad.member.file) {
                files.remove(client);
                let (helper, why) = (report.helper.clone(), bad.fault.to_string());
                left_out.push(LeftOutClient {
                    client: client.clone(),
                    fault: MessageFault::Reported { helper, why },
                });
            }
        }
    }
    Ok((files, left_out))
}

/// Freezes a set for the first time.
fn freeze(
    folder: &SessionFolder,
    manifest: &Manifest,
    (mut files, mut left_out): Collected,
    identity: &Identity,
    journal: &mut PartyJournal,
    machine: &Machine,
) -> Result<Summed, SecureError> {
    loop {
        let members =
            files.iter().map(|(client, file)| SetMember { client: client.clone(), file: file.digest() });
        let set = ClientSet::new(manifest, members.collect(), left_out.clone());
        check_quorum(manifest, &set)?;
        let text = SignedText::sign(&set, Stage::Set, identity)?;
        let frozen = FrozenSet::of(&text, manifest).map_err(SecureError::file(&folder.set()))?;
        let statement = manifest.statement(Stage::Sum, &manifest.terms.server.id, Some(frozen.digest));
        let mut writer = LanesWriter::create(&folder.sum(), &statement, manifest.sums_shape())?;
        let faults = add_up(manifest, &frozen.set, &files, machine, &mut |sums| writer.append(sums))?;
        if !faults.is_empty() {
            for fault in faults {
                tracing::warn!(
                    "{}: {}: the client is left out",
                    folder.masked(&fault.client).display(),
                    fault.fault
                );
                files.remove(&fault.client);
                left_out.push(fault);
            }
            continue;
        }
        note_frozen(folder, manifest, &text, &frozen, journal)?;
        writer.publish(&[], identity)?;
        return Ok(Summed { frozen, path: folder.sum() });
    }
}

/// Notes in the journal that a set is frozen, and publishes it.
///
/// # Errors
///
/// When it cannot be written.
pub fn note_frozen(
    folder: &SessionFolder,
    manifest: &Manifest,
    text: &SignedText,
    frozen: &FrozenSet,
    journal: &mut PartyJournal,
) -> Result<(), SecureError> {
    let kept = journal.kept(&manifest.session, "set.json");
    make_folder_of(&kept).map_err(SecureError::io(&kept))?;
    text.publish(&kept)?;
    let subject = Hex(*frozen.digest.bytes());
    journal.note(&Deed { session: manifest.session, stage: Stage::Set, subject })?;
    text.publish(&folder.set())
}

/// Checks that a set has clients.
///
/// # Errors
///
/// When too few are there.
pub fn check_quorum(manifest: &Manifest, set: &ClientSet) -> Result<(), SecureError> {
    if set.members().next().is_some() {
        return Ok(());
    }
    let (found, least) = (set.in_small_groups.len(), manifest.terms.min_survivors);
    let of_group = if manifest.terms.groups == 1 { "" } else { " of one group" };
    let mut why = format!("{found} sound masked updates, expected at least {least}{of_group}");
    if let Some(first) = set.left_out.first() {
        why = format!("{why}; {} left out, such as {}: {}", set.left_out.len(), first.client, first.fault);
    }
    let hint = match manifest.terms.deadline.filter(|deadline| seconds_now() > *deadline) {
        Some(_) => "the deadline of the session passed, and no client masks any more: open another session",
        None => "wait for more clients: the set is not frozen",
    };
    Err(SecureError::refused(why, Some(hint)))
}

/// Publishes the sum of a set that is frozen already.
fn add_frozen(
    folder: &SessionFolder,
    manifest: &Manifest,
    frozen: FrozenSet,
    identity: &Identity,
    machine: &Machine,
) -> Result<Summed, SecureError> {
    let files = open_members(folder, manifest, &frozen.set)?;
    let statement = manifest.statement(Stage::Sum, &manifest.terms.server.id, Some(frozen.digest));
    let mut writer = LanesWriter::create(&folder.sum(), &statement, manifest.sums_shape())?;
    if let Some(fault) =
        add_up(manifest, &frozen.set, &files, machine, &mut |sums| writer.append(sums))?.into_iter().next()
    {
        return Err(SecureError::file(&folder.masked(&fault.client))(fault.fault));
    }
    writer.publish(&[], identity)?;
    Ok(Summed { frozen, path: folder.sum() })
}

/// Opens the files of the members of a set, and checks that they are those of the set.
///
/// # Errors
///
/// When one cannot be opened, or is another file than the frozen one.
pub fn open_members(
    folder: &SessionFolder,
    manifest: &Manifest,
    set: &ClientSet,
) -> Result<BTreeMap<String, LanesFile>, SecureError> {
    let reader = LanesReader::default();
    let members: Vec<&SetMember> = set.members().collect();
    let open = |member: &&SetMember| {
        let path = folder.masked(&member.client);
        let opened = open_masked(manifest, &reader, Some(&member.client), &path);
        let (client, file) = opened.map_err(|left_out| SecureError::file(&path)(left_out.fault))?;
        if file.digest() != member.file {
            let why =
                format!("its digest is {}, expected {}, that of the frozen set", file.digest(), member.file);
            return Err(SecureError::file(&path)(MessageFault::Format(why)));
        }
        Ok((client, file))
    };
    members.par_iter().map(open).collect()
}

/// A file whose lanes are being added.
struct Adding<'f> {
    client: &'f str,
    file: &'f LanesFile,
    digest: PartDigest,
    fault: Option<MessageFault>,
}

/// What adding up found of a client: the first fault of its lanes, or else the hashes of the subtrees of its range.
pub struct AddedClient {
    /// Its id.
    pub client: String,
    /// The hashes, or the fault.
    pub result: Result<Vec<[u8; 32]>, MessageFault>,
}

/// Takes the next sums of lanes, row behind row.
pub type TakeSums<'t> = dyn FnMut(&[u32]) -> Result<(), SecureError> + Send + 't;

/// Adds up the lanes of each group, and hands the sums to `take`. Returns the clients whose lanes are bad.
///
/// # Errors
///
/// When the sums cannot be written, or a signal asked to stop.
pub fn add_up(
    manifest: &Manifest,
    set: &ClientSet,
    files: &BTreeMap<String, LanesFile>,
    machine: &Machine,
    take: &mut TakeSums,
) -> Result<Vec<LeftOutClient>, SecureError> {
    let added = add_up_part(manifest, set, files, machine, 0..manifest.terms.lanes(), take)?;
    let fault = |AddedClient { client, result }: AddedClient| {
        let checked = result.and_then(|hashes| files[&client].check_lanes_digest(hashes.first().copied()));
        checked.err().map(|fault| LeftOutClient { client, fault })
    };
    Ok(added.into_iter().filter_map(fault).collect())
}

/// Adds up a range of lanes of each group, and hands the sums to `take`. Returns what it found of the clients, in the order
/// of the set. The range begins at a multiple of 256, as do parts of BLAKE3's tree.
///
/// # Errors
///
/// When the sums cannot be written, or a signal asked to stop.
pub fn add_up_part(
    manifest: &Manifest,
    set: &ClientSet,
    files: &BTreeMap<String, LanesFile>,
    machine: &Machine,
    range: Range<usize>,
    take: &mut TakeSums,
) -> Result<Vec<AddedClient>, SecureError> {
    let [all, start, end] =
        [manifest.terms.lanes(), range.start, range.end].map(|lanes| (lanes * size_of::<u32>()) as u64);
    machine.progress.start("adding up", set.members().count() as u64 * (end - start));
    let mut added = Vec::new();
    for group in &set.groups {
        let members = group.iter().filter_map(|member| files.get_key_value(&member.client));
        let digest = || PartDigest::new(all, &(start..end));
        let mut adding: Vec<Adding> =
            members.map(|(client, file)| Adding { client, file, digest: digest(), fault: None }).collect();
        for first in range.clone().step_by(RANGE) {
            let len = RANGE.min(range.end - first);
            let sums = machine.pool.install(|| add_range(machine, &mut adding, first, len))?;
            machine.pool.install(|| take(&sums))?;
        }
        added.extend(adding.into_iter().map(|Adding { client, digest, fault, .. }| AddedClient {
            client: client.to_owned(),
            result: fault.map_or_else(|| Ok(digest.end().unwrap_or_default()), Err),
        }));
    }
    machine.progress.finish();
    Ok(added)
}

/// The sums of lanes. Each thread adds up some of the clients.
fn add_range(
    machine: &Machine,
    adding: &mut [Adding],
    first: usize,
    len: usize,
) -> Result<Vec<u32>, SecureError> {
    let each = adding.len().div_ceil(rayon::current_num_threads()).max(1);
    let of_thread = |adding: &mut [Adding]| add_clients(machine, adding, first, len);
    let sums = adding.par_chunks_mut(each).map(of_thread).try_reduce(Vec::new, |mut one, other| {
        if one.is_empty() {
            return Ok(other);
        }
        if !other.is_empty() {
            add_elements(machine.isa, &other, &mut one);
        }
        Ok(one)
    })?;
    Ok(if sums.is_empty() { vec![0; len] } else { sums })
}

/// Clients whose lanes a GPU adds up at once.
const ROWS_ON_GPU: usize = 16;

fn add_clients(
    machine: &Machine,
    adding: &mut [Adding],
    first: usize,
    len: usize,
) -> Result<Vec<u32>, SecureError> {
    let rows = if machine.gpu().is_some() { ROWS_ON_GPU } else { 1 };
    let mut sums = vec![0; len];
    let mut lanes = vec![0; rows * CHUNK.min(len)];
    for start in (0..len).step_by(CHUNK) {
        let sums = &mut sums[start..len.min(start + CHUNK)];
        interrupt::check()?;
        for some in adding.chunks_mut(rows) {
            let rows = lanes.chunks_exact_mut(sums.len()).zip(some.iter_mut());
            let sound = rows.filter_map(|(lanes, one)| one.add(machine.isa, first + start, lanes));
            add_rows(machine, &sound.collect::<Vec<&[u32]>>(), sums)?;
        }
        machine.progress.advance((adding.len() * sums.len() * size_of::<u32>()) as u64);
    }
    Ok(sums)
}

impl Adding<'_> {
    /// Reads lanes, checks and hashes them; `None` once they have a fault.
    fn add<'l>(&mut self, isa: Isa, first: usize, lanes: &'l mut [u32]) -> Option<&'l [u32]> {
        if self.fault.is_none() {
            self.fault = self.read(isa, first, lanes).err();
        }
        self.fault.is_none().then_some(lanes)
    }

    fn read(&mut self, isa: Isa, first: usize, lanes: &mut [u32]) -> Result<(), MessageFault> {
        self.file.read(first, lanes)?;
        self.digest.add(&little_endian(lanes));
        if all_below(isa, lanes) {
            return Ok(());
        }
        let place = lanes.iter().position(|lane| *lane >= P).unwrap_or(0);
        Err(MessageFault::OutsideField { lane: (first + place) as u64, found: lanes[place] })
    }
}
