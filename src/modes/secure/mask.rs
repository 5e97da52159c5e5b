//! Masks an update: a client quantises it, adds its mask, seals the seeds, and signs the file.
//!
//! A client masks one update in a session. Two updates under one mask would tell their difference (a two-time pad). The
//! client's journal, on disk before the file is published, keeps that: the same update makes the same file again, and
//! another one is refused.

use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::model::client_id::IdSource;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::integers::IntegersWriter;
use crate::modes::secure::kept::KeptPlaces;
use crate::modes::secure::keys::seeds::{self, Seeds};
use crate::modes::secure::manifest::{Manifest, SessionTerms};
use crate::modes::secure::mask_stream::add_streams;
use crate::modes::secure::norm::{BoundedNorm, PrivateIntegers, noise_of};
use crate::modes::secure::set::FrozenSet;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::grid::words;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage, derived};
use crate::parties::journal::{Deed, PartyJournal};
use crate::parties::reading::{self, Share, check_base, each_finite_value, each_value, share_of};
use crate::parties::signed_lanes::{LanesReader, LanesWriter};
use crate::parties::tensors::{Held, not_finite};
use crate::updates::metadata::SCAFFOLD_CONTROL;
use crate::updates::set::{Client, UpdateSet};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Lanes that are masked at once.
const LANES_AT_ONCE: usize = 1 << 20;

/// What a client masks, and whom it trusts.
#[derive(Clone, Debug)]
pub struct MaskOptions {
    /// The update.
    pub update: PathBuf,
    /// The client's own copy of the base.
    pub base: PathBuf,
    /// What the update may claim of itself.
    pub policy: Policy,
    /// The public keys that the client got from the parties themselves.
    pub trusted: Vec<PublicIdentity>,
    /// The fewest clients that must be in a sum.
    pub min_cohort: usize,
    /// The fewest eligible clients whose keys must be trusted ones.
    pub require_known: usize,
    /// Whether the update may have been masked in another session.
    pub allow_again: bool,
    /// Seconds since 1970.
    pub now: u64,
    /// Where to write the file; `None` for its place in the session's folder.
    pub output: Option<PathBuf>,
    /// Where to write the integers of the values before they are masked; `None` to keep them to itself.
    pub integers: Option<PathBuf>,
}

/// What was masked.
#[derive(Clone, PartialEq, Debug)]
pub struct Masked {
    /// The file.
    pub path: PathBuf,
    /// The client.
    pub client: String,
    /// The number of values.
    pub values: u64,
    /// The number of values that are sent.
    pub sent: u64,
    /// Those of them that are beyond the clip.
    pub clipped: u64,
    /// The weight of the client, and whether the cap lowered it.
    pub weight: Option<(u32, bool)>,
    /// Whether the cap lowered the local steps.
    pub is_over_steps: bool,
    /// Whether all values are those of the base.
    pub is_unchanged: bool,
    /// The client that the metadata of the update names, if it is another one.
    pub other_id: Option<String>,
    /// The norm of the change, and whether it exceeds the bound of the session; `None` if the session bounds no norm.
    pub norm: Option<(f64, bool)>,
}

/// Masks an update.
///
/// # Errors
///
/// When the manifest is not one that the client accepts, the update does not fit it, the client masked another update in
/// this session, or the file cannot be written.
pub fn run(
    folder: &SessionFolder,
    options: &MaskOptions,
    identity: &Identity,
    journal: &Path,
    machine: Machine,
) -> Result<Masked, SecureError> {
    let manifest = folder.manifest()?;
    check_manifest(&manifest, options)?;
    let client = own_id(&manifest, identity)?;
    let terms = &manifest.terms;
    let policy = policy(options, terms);
    let opened = reading::open(&options.base, vec![options.update.clone()], policy, machine)?;
    opened.refuse_own_choice()?;
    let tensors = opened.tensors(terms.statistics_clip.is_some(), terms.control_clip.is_some());
    check_base(&opened, &options.base, (&terms.base, &terms.tensors), &tensors)?;
    let [update] = opened.taken.set.clients.as_slice() else {
        return Err(SecureError::terms("UPDATE", "found several updates, expected one"));
    };
    let share = share_of(terms.weights, terms.steps_cap, update)?;
    let (path, place) = outputs(folder, options, &client)?;
    let places = [path.as_path(), place.as_path()];
    let machine = opened.machine();
    let (set, tensors) = (&opened.taken.set, &manifest.terms.tensors);
    // A client that the journal holds to an update must be able to send it.
    let bounded = machine.pool.install(|| checked(machine, set, terms))?;
    let secret = secret_for((folder, &manifest), update, places, options, identity, journal)?;
    let seeds = seeds::draw(manifest.committee, &secret);
    let sealed = seeds::seal(&manifest, &client, &seeds, &secret)
        .map_err(|why| SecureError::terms("manifest", why))?;
    folder.make_room(&path)?;
    let statement = manifest.statement(Stage::Mask, &client, None);
    let writer = LanesWriter::create(&path, &statement, manifest.masked_shape())?;
    let integers = options.integers.as_deref().map(|path| IntegersWriter::create(path, &manifest.terms));
    let integers = integers.transpose()?;
    let mut masking = Masking::new(machine, &manifest.terms, writer, &seeds, &secret, &share);
    masking.copy = integers.as_ref();
    masking.private = bounded.map(|bounded| PrivateIntegers { bounded, noise: noise_of(&manifest, &secret) });
    let masked = machine.pool.install(|| {
        let take = &mut |held, values: &[f64]| masking.take(held, values);
        each_value(machine, set, tensors, take)?;
        masking.end(&sealed, identity)
    });
    let Counts { values, clipped, is_changed, .. } = masked?;
    integers.map_or(Ok(()), IntegersWriter::publish)?;
    let other_id = (update.named_by == IdSource::Metadata && update.id != client).then(|| update.id.clone());
    Ok(Masked {
        path,
        client,
        values,
        sent: terms.sent() as u64,
        clipped,
        weight: share.weight,
        is_over_steps: share.is_over_steps,
        is_unchanged: !is_changed,
        other_id,
        norm: bounded.map(|bounded| bounded.norm),
    })
}

/// What the update may claim of itself under the terms of a session.
fn policy(options: &MaskOptions, terms: &SessionTerms) -> Policy {
    let mut policy = Policy { round: terms.round, ..options.policy.clone() };
    policy.tensors.control_prefix = terms.control_clip.map(|_| SCAFFOLD_CONTROL);
    policy
}

/// Checks that all values are finite. Returns the bound of a session under a budget.
fn checked(
    machine: &Machine,
    set: &UpdateSet,
    terms: &SessionTerms,
) -> Result<Option<BoundedNorm>, SecureError> {
    match &terms.privacy {
        Some(privacy) => {
            BoundedNorm::of(machine, set, &terms.tensors, (privacy, terms.grid.levels)).map(Some)
        }
        None => each_finite_value(machine, set, &terms.tensors, |_| {}).map(|()| None),
    }
}

/// The path of the masked update, and its place in the session's folder.
fn outputs(
    folder: &SessionFolder,
    options: &MaskOptions,
    client: &str,
) -> Result<(PathBuf, PathBuf), SecureError> {
    let place = folder.masked(client);
    let path = options.output.clone().unwrap_or_else(|| place.clone());
    folder.refuse_message(&path, Some(&place))?;
    options.integers.iter().try_for_each(|integers| folder.refuse_message(integers, None))?;
    Ok((path, place))
}

/// Checks that the client accepts a manifest.
fn check_manifest(manifest: &Manifest, options: &MaskOptions) -> Result<(), SecureError> {
    let terms = &manifest.terms;
    let is_known =
        |id: &str, key: &Hex<32>| options.trusted.iter().any(|known| known.id == id && known.ed25519 == *key);
    let is_trusted = |party: &PublicIdentity| options.trusted.contains(party);
    for (role, party) in
        [("server", &terms.server)].into_iter().chain(terms.helpers.iter().map(|one| ("helper", one)))
    {
        let is_trusted =
            if role == "server" { is_known(&party.id, &party.ed25519) } else { is_trusted(party) };
        if !is_trusted {
            let why =
                format!("the manifest's {role} `{}` has a key that is not among the trusted ones", party.id);
            let hint = "pass --trust with the public keys that you got from the parties themselves; do not take them from the session's folder";
            return Err(SecureError::refused(why, Some(hint)));
        }
    }
    if terms.min_survivors < options.min_cohort {
        let (found, expected) = (terms.min_survivors, options.min_cohort);
        let why =
            format!("sums of {found} clients may be published, expected at least {expected} (--min-cohort)");
        return Err(SecureError::refused(why, None));
    }
    let known = terms.clients.iter().filter(|client| is_known(&client.id, &client.ed25519)).count();
    if known < options.require_known {
        let why = format!(
            "{known} eligible clients have trusted keys, expected at least {} (--require-known)",
            options.require_known
        );
        return Err(SecureError::refused(
            why,
            Some("a server can invent clients, and then the sum of all others is your update"),
        ));
    }
    match terms.deadline {
        Some(deadline) if options.now > deadline => {
            let why = format!("the session's deadline passed {} s ago", options.now - deadline);
            Err(SecureError::refused(why, None))
        }
        _ => Ok(()),
    }
}

/// The id that the manifest has for the key of this client.
fn own_id(manifest: &Manifest, identity: &Identity) -> Result<String, SecureError> {
    let key = identity.verifying();
    let own = manifest.terms.clients.iter().find(|client| client.ed25519 == key);
    own.map(|client| client.id.clone()).ok_or_else(|| {
        SecureError::refused(
            "the manifest has no client with this key",
            Some("the server opens the session with your public key"),
        )
    })
}

/// The client's secret of the session, after its journal says that it may mask this update. Where the journal was lost, a
/// file of the client at one of `places` tells of a masked update too.
fn secret_for(
    (folder, manifest): (&SessionFolder, &Manifest),
    update: &Client,
    places: [&Path; 2],
    options: &MaskOptions,
    identity: &Identity,
    journal: &Path,
) -> Result<Zeroizing<[u8; 32]>, SecureError> {
    let digest = Blake3::of(&update.model.files).map_err(SecureError::io(&update.model.path))?;
    let subject = digest.parse().map_err(|why| SecureError::terms("update", format!("{why}")))?;
    let deed = Deed { session: manifest.session, stage: Stage::Mask, subject };
    let client = own_id(manifest, identity)?;
    let mut journal = PartyJournal::open(journal)?;
    match journal.of(&deed.session, deed.stage) {
        Some(done) if *done != deed => {
            let why = format!(
                "session {} has another update of yours already: a second one under the same mask would tell their difference",
                deed.session.short()
            );
            return Err(SecureError::refused(
                why,
                Some("send the file that `mask` wrote first, or wait for the next session"),
            ));
        }
        Some(_) => {
            refuse_frozen(folder, manifest, &client)?;
            let why = || {
                let session = deed.session.short();
                format!("the secret of session {session} is gone, so the same file cannot be made again")
            };
            return journal.secret(&deed.session)?.ok_or_else(|| SecureError::refused(why(), None));
        }
        None => {}
    }
    for path in places {
        refuse_sent(manifest, path, identity)?;
    }
    refuse_frozen(folder, manifest, &client)?;
    if let Some(other) = journal.elsewhere(&deed).filter(|_| !options.allow_again) {
        let why = format!(
            "the same update was masked in session {}: the difference of the two sums tells who joined or left",
            other.session.short()
        );
        return Err(SecureError::refused(
            why,
            Some("pass --allow-again if the other session published no sum"),
        ));
    }
    let secret = journal.new_secret(&deed.session)?;
    journal.note(&deed)?;
    Ok(secret)
}

/// Refuses to mask if the set of clients is frozen without this one: the update would be in no sum.
fn refuse_frozen(folder: &SessionFolder, manifest: &Manifest, client: &str) -> Result<(), SecureError> {
    let is_in = |frozen: &FrozenSet| frozen.set.members().any(|member| member.client == client);
    if FrozenSet::read(folder, manifest)?.is_none_or(|frozen| is_in(&frozen)) {
        return Ok(());
    }
    let why = format!(
        "{}: the server froze the set of clients already, and it is without you",
        folder.set().display()
    );
    Err(SecureError::refused(why, Some("wait for the next session")))
}

/// Refuses to mask if the client's own file is there, but its journal does not know it.
fn refuse_sent(manifest: &Manifest, path: &Path, identity: &Identity) -> Result<(), SecureError> {
    if !crate::io::folder::exists(path) {
        return Ok(());
    }
    let id = own_id(manifest, identity)?;
    let statement = manifest.statement(Stage::Mask, &id, None);
    let file = LanesReader::default().open(path, &statement, manifest.masked_shape(), &identity.verifying());
    match file {
        Ok(_) => {
            let why = format!(
                "{}: you masked an update in this session, and your journal does not know it: it was lost, or set back to an older copy",
                path.display()
            );
            Err(SecureError::refused(why, Some("restore the journal, or leave the file that is there")))
        }
        Err(MessageFault::Unreadable(why)) => Err(SecureError::file(path)(MessageFault::Unreadable(why))),
        // Another party's file, or what a crash left: the new file replaces it.
        Err(_) => Ok(()),
    }
}

/// What was masked so far.
#[derive(Default)]
struct Counts {
    values: u64,
    clipped: u64,
    lanes: u64,
    /// Whether a value differs from the base.
    is_changed: bool,
}

/// Removes the integers from a place on that are not sent.
fn leave_out(integers: &mut Vec<i32>, start: usize, is_sent: &[bool]) {
    let mut end = start;
    for (place, is_sent) in (start..).zip(is_sent) {
        if *is_sent {
            integers[end] = integers[place];
            end += 1;
        }
    }
    integers.truncate(end);
}

/// Lanes on their way to a file.
struct Masking<'s> {
    machine: &'s Machine<'s>,
    terms: &'s SessionTerms,
    writer: LanesWriter<'s>,
    seeds: &'s Seeds,
    rounding: Zeroizing<[u8; 32]>,
    share: &'s Share,
    /// Integers of values that are not in lanes yet.
    integers: Zeroizing<Vec<i32>>,
    /// Where the integers go too.
    copy: Option<&'s IntegersWriter>,
    /// The integers of a session under a budget.
    private: Option<PrivateIntegers>,
    kept: KeptPlaces,
    counts: Counts,
}

impl<'s> Masking<'s> {
    fn new(
        machine: &'s Machine<'s>,
        terms: &'s SessionTerms,
        writer: LanesWriter<'s>,
        seeds: &'s Seeds,
        secret: &[u8; 32],
        share: &'s Share,
    ) -> Self {
        let rounding = Zeroizing::new(derived(secret, "rounding"));
        let integers = Zeroizing::new(Vec::new());
        Self {
            machine,
            terms,
            writer,
            seeds,
            rounding,
            share,
            integers,
            copy: None,
            private: None,
            kept: terms.kept(),
            counts: Counts::default(),
        }
    }

    /// Takes the next values.
    fn take(&mut self, held: Held, values: &[f64]) -> Result<(), SecureError> {
        let start = self.integers.len();
        self.counts.is_changed |= values.iter().any(|value| *value != 0.0);
        self.integers.resize(start + values.len(), 0);
        let clipped = match &self.private {
            Some(private) => {
                private.integers(self.machine.isa, self.counts.values, values, &mut self.integers[start..])
            }
            None => self.quantize(held, values, start)?,
        };
        let first = self.counts.values as usize;
        let is_sent = self.kept.flags(first..first + values.len());
        self.counts.clipped += match &is_sent {
            None => clipped,
            Some(is_sent) => {
                let clip = self.terms.clip_of(held);
                let sent = values.iter().zip(is_sent).filter(|(_, is_sent)| **is_sent);
                sent.filter(|(value, _)| value.abs() > clip).count() as u64
            }
        };
        if let Some(copy) = self.copy {
            let mut integers: Vec<i64> = self.integers[start..].iter().copied().map(i64::from).collect();
            if let Some(is_sent) = &is_sent {
                integers
                    .iter_mut()
                    .zip(is_sent)
                    .filter(|(_, is_sent)| !**is_sent)
                    .for_each(|(integer, _)| *integer = 0);
            }
            copy.write(first, &integers)?;
        }
        if let Some(is_sent) = is_sent {
            leave_out(&mut self.integers, start, &is_sent);
        }
        self.counts.values += values.len() as u64;
        while self.integers.len() >= LANES_AT_ONCE * self.terms.grid.per_lane as usize {
            self.write(LANES_AT_ONCE * self.terms.grid.per_lane as usize, &[])?;
        }
        Ok(())
    }

    /// Rounds values to integers, from a place on.
    fn quantize(&mut self, held: Held, values: &[f64], start: usize) -> Result<u64, SecureError> {
        let words = words(self.machine.isa, &self.rounding, self.counts.values, values.len());
        let Share { factor, steps, .. } = self.share;
        let factor = if held == Held::Parameter { factor / steps } else { *factor };
        let scale = (self.terms.clip_of(held), factor);
        let quantized = self.terms.grid.quantize(scale, values, &words, &mut self.integers[start..]);
        quantized.map_err(|place| not_finite(&self.terms.tensors, self.counts.values as usize + place))
    }

    /// Masks and writes the lanes of the first integers, and lanes behind them.
    fn write(&mut self, integers: usize, behind: &[u32]) -> Result<(), SecureError> {
        let count = self.terms.grid.lanes(integers);
        let mut lanes = vec![0; count];
        self.terms.grid.pack(&self.integers[..integers], &mut lanes);
        lanes.extend(behind);
        add_streams(self.machine, self.seeds, self.counts.lanes, &mut lanes)?;
        self.writer.append(&lanes)?;
        self.counts.lanes += lanes.len() as u64;
        self.integers.drain(..integers);
        Ok(())
    }

    /// Writes what is left, signs and publishes.
    fn end(mut self, sealed: &[u8], identity: &Identity) -> Result<Counts, SecureError> {
        self.write(self.integers.len(), &self.share.lanes)?;
        self.writer.publish(sealed, identity)?;
        Ok(self.counts)
    }
}
