//! Unmasks the sum: the server combines the answers, subtracts the masks, and writes the mean.
//!
//! The mean of a group is a delta of the base that `fedmill aggregate` reads like an update of one client.

use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::io::interrupt;
use crate::io::model_writer::ModelWriter;
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian;
use crate::kernels::field::to_signed;
use crate::modes::secure::answers::{Answers, audit, without_masks};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::integers::{IntegersWriter, bytes_of, unpack, values_of};
use crate::modes::secure::manifest::{Manifest, SessionTerms};
use crate::modes::secure::payment::{Payment, central_noise};
use crate::modes::secure::set::{FrozenSet, SetMember};
use crate::modes::secure::sum::check_server;
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, Stage};
use crate::parties::signed_lanes::{LanesFile, LanesReader};
use crate::parties::signed_text::SignedText;
use crate::parties::tensors::{ClientWeights, Held};
use crate::parties::tensors::{held_places, mean_layout, pieces};
use crate::privacy::ledger::record::NoiseFrom;
use crate::record::sha256::Sha256;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Lanes that are unmasked at once.
const LANES_AT_ONCE: usize = 1 << 20;

/// The end of a session: who answered, and the digest of every sum.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// The protocol.
    pub protocol: String,
    /// The session.
    pub session: Sha256,
    /// The frozen set.
    pub set: Sha256,
    /// Helpers whose answers agree, each with the digest of its file.
    pub answers: BTreeMap<String, Hex<32>>,
    /// Helpers whose answers contradict the others.
    pub wrong: Vec<String>,
    /// The sum of each group.
    pub groups: Vec<GroupSum>,
}

/// The sum of a group.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct GroupSum {
    /// Its clients in the sum; 0 if the group was too small.
    pub clients: usize,
    /// The sum of their weights.
    pub weight: u64,
    /// The sum of the products of weight and local steps, if clients divide their changes by their steps.
    pub steps: Option<u64>,
    /// The BLAKE3 digest of the integer sums: one little-endian i64 for each value that is sent, in the order of lanes. That
    /// of nothing with central noise, which the sums are without.
    pub sums: Hex<32>,
}

/// What the server publishes.
#[derive(Clone, Debug)]
pub struct UnmaskOptions {
    /// The mean, if the session has one group; else the folder of the means.
    pub output: PathBuf,
    /// Where to write the integer sums too.
    pub sums: Option<PathBuf>,
    /// The state directory of the budget that pays, if the session is under one.
    pub budget: Option<PathBuf>,
}

impl UnmaskOptions {
    fn check(&self, folder: &SessionFolder, manifest: &Manifest) -> Result<(), SecureError> {
        if self.sums.is_some() && manifest.terms.groups > 1 {
            let why = "a session of several groups has several sums, expected one";
            return Err(SecureError::terms("--sums", why));
        }
        let mut outputs = [Some(&self.output), self.sums.as_ref()].into_iter().flatten();
        outputs.try_for_each(|output| folder.refuse_message(output, None))
    }
}

/// The end of a session, and the means that were written.
#[derive(Clone, Debug)]
pub struct Unmasked {
    /// The transcript.
    pub transcript: Transcript,
    /// The means, one for each group that has clients.
    pub means: Vec<PathBuf>,
    /// Answers that are there now and agree, those that came after the transcript too.
    pub agreeing: usize,
}

/// Unmasks the sums of a session, and publishes the means and the transcript.
///
/// # Errors
///
/// When the identity is not the server's, too few helpers answered, or answers contradict each other; nothing is published
/// then. Or when a file cannot be written.
pub fn run(
    folder: &SessionFolder,
    options: &UnmaskOptions,
    identity: &Identity,
    machine: &Machine,
) -> Result<Unmasked, SecureError> {
    let manifest = folder.manifest()?;
    check_server(&manifest, identity)?;
    options.check(folder, &manifest)?;
    let frozen = FrozenSet::expect(folder, &manifest)?;
    // Threads hand over to each other once for all the work.
    machine.pool.install(|| publish_means(folder, options, identity, (&manifest, &frozen), machine))
}

/// Unmasks the sums of a frozen set in one pass, and publishes the means and the transcript.
fn publish_means(
    folder: &SessionFolder,
    options: &UnmaskOptions,
    identity: &Identity,
    (manifest, frozen): (&Manifest, &FrozenSet),
    machine: &Machine,
) -> Result<Unmasked, SecureError> {
    let payment = Payment::of(manifest, frozen, options)?;
    let masked = open_sum(folder, manifest, frozen, machine)?;
    let mut answers = Answers::read(folder, manifest, frozen, machine)?;
    let published = folder.transcript();
    let published =
        crate::io::folder::exists(&published).then(|| read_transcript(folder, manifest)).transpose()?;
    let other_answers = || {
        let path = folder.transcript();
        let why = format!("{}: lists other answers or sums than those that are there now", path.display());
        SecureError::refused(why, Some("see `fedmill secagg verify`"))
    };
    let agreeing = answers.sound.len();
    if let Some(published) = &published {
        refuse_wrong(folder, published, &answers.wrong)?;
        answers.only_of(published);
        if answers.sound.len() < manifest.committee.threshold() {
            return Err(other_answers());
        }
    }
    let central = central_noise(manifest, frozen, identity);
    let group = |(group, members): (usize, &Vec<SetMember>)| Unmasking {
        manifest,
        masked: &masked,
        answers: &answers,
        machine,
        group,
        clients: members.len(),
        noise: central.as_ref(),
    };
    let (mut sums, mut staged) = (Vec::new(), Vec::new());
    for group in frozen.set.groups.iter().enumerate().map(group) {
        let (sum, mean) = group.stage(folder, options)?;
        sums.push(sum);
        staged.extend(mean);
    }
    let transcript = transcript(manifest, frozen, &answers, sums);
    if published.is_some_and(|published| published != transcript) {
        return Err(other_answers());
    }
    payment.map_or(Ok(()), Payment::charge)?;
    let means = staged.into_iter().map(StagedMean::publish).collect::<Result<_, _>>()?;
    SignedText::sign(&transcript, Stage::Unmask, identity)?.publish(&folder.transcript())?;
    Ok(Unmasked { transcript, means, agreeing })
}

/// Refuses to go on with a transcript that counts an answer of which later ones show that it is wrong.
fn refuse_wrong(folder: &SessionFolder, published: &Transcript, wrong: &[String]) -> Result<(), SecureError> {
    let Some(helper) = wrong.iter().find(|helper| published.answers.contains_key(*helper)) else {
        return Ok(());
    };
    let path = folder.transcript();
    let why = format!(
        "{}: counts the answer of `{helper}`, and answers that came later show that it is wrong: the mean that was published is \
         wrong",
        path.display()
    );
    Err(SecureError::refused(why, Some("remove the transcript and the mean, and run `unmask` again")))
}

/// The transcript of a session.
pub fn transcript(
    manifest: &Manifest,
    frozen: &FrozenSet,
    answers: &Answers,
    groups: Vec<GroupSum>,
) -> Transcript {
    Transcript {
        protocol: SECAGG_PROTOCOL.to_owned(),
        session: manifest.session,
        set: frozen.digest,
        answers: answers.sound.iter().map(|answer| (answer.helper.clone(), answer.file.digest())).collect(),
        wrong: answers.wrong.clone(),
        groups,
    }
}

/// Opens the sum that the server signed, and checks its lanes.
///
/// # Errors
///
/// When it is missing, not signed, or damaged.
pub fn open_sum(
    folder: &SessionFolder,
    manifest: &Manifest,
    frozen: &FrozenSet,
    machine: &Machine,
) -> Result<LanesFile, SecureError> {
    let (path, server) = (folder.sum(), &manifest.terms.server);
    let statement = manifest.statement(Stage::Sum, &server.id, Some(frozen.digest));
    let opened = LanesReader::default().open(&path, &statement, manifest.sums_shape(), &server.ed25519);
    let checked = opened.and_then(|file| machine.pool.install(|| audit(&file, machine.isa)).map(|()| file));
    checked.map_err(SecureError::file(&path))
}

/// The sum of one group on its way from lanes to integers.
pub struct Unmasking<'u> {
    /// The manifest.
    pub manifest: &'u Manifest,
    /// The masked sums.
    pub masked: &'u LanesFile,
    /// The answers.
    pub answers: &'u Answers,
    /// The machine.
    pub machine: &'u Machine<'u>,
    /// The group.
    pub group: usize,
    /// Its clients in the sum.
    pub clients: usize,
    /// The key of the noise that the server adds to what it writes.
    pub noise: Option<&'u Zeroizing<[u8; 32]>>,
}

/// The mean of a group and its integer sums, written and without their names.
struct StagedMean {
    path: PathBuf,
    mean: ModelWriter,
    integers: Option<IntegersWriter>,
}

impl StagedMean {
    /// Gives the files their names, on disk, and returns the path of the mean.
    fn publish(self) -> Result<PathBuf, SecureError> {
        self.mean.sync()?;
        self.mean.publish()?;
        self.integers.map_or(Ok(()), IntegersWriter::publish)?;
        Ok(self.path)
    }
}

/// Takes sums of values, from a value on.
type TakeIntegers<'t> = dyn FnMut(usize, &[i64]) -> Result<(), SecureError> + Send + 't;

impl Unmasking<'_> {
    /// Hands the integer sums of the group to `take`, in order, and describes them.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, a sum is larger than the clients can make it, or `take` fails.
    pub fn sum(&self, take: &mut TakeIntegers) -> Result<GroupSum, SecureError> {
        let totals = self.totals()?;
        Ok(GroupSum { sums: self.sum_values(take)?, ..totals })
    }

    /// The number of clients and the sums in the lanes behind the values; without the digest of the values.
    fn totals(&self) -> Result<GroupSum, SecureError> {
        let terms = &self.manifest.terms;
        let lanes = terms.lanes();
        let mut extra = self.group * lanes + terms.grid.lanes(terms.sent())..(self.group + 1) * lanes;
        let mut next = |largest: u64| match extra.next().filter(|_| self.clients > 0) {
            Some(lane) => self.number(lane, largest),
            None => Ok(0),
        };
        let weight = match terms.weights {
            ClientWeights::Uniform => self.clients as u64,
            ClientWeights::Examples { cap } => next(u64::from(cap))?,
        };
        let steps = terms.steps_cap.map(|_| next(terms.most_steps())).transpose()?;
        Ok(GroupSum { clients: self.clients, weight, steps, sums: Hex([0; 32]) })
    }

    /// Hands the integer sums of the group to `take`, in order, and returns their digest.
    fn sum_values(&self, take: &mut TakeIntegers) -> Result<Hex<32>, SecureError> {
        let terms = &self.manifest.terms;
        let (lanes, kept) = (terms.lanes(), terms.kept());
        // No digest of sums that the server publishes with noise alone.
        let is_central = terms.privacy.as_ref().is_some_and(|privacy| privacy.mode == NoiseFrom::Central);
        let values = if self.clients == 0 { 0 } else { terms.values() };
        let (mut digest, mut sums) = (Blake3::default(), Vec::new());
        for start in (0..values).step_by(LANES_AT_ONCE * terms.grid.per_lane as usize) {
            interrupt::check()?;
            let end = values.min(start + LANES_AT_ONCE * terms.grid.per_lane as usize);
            let sent = kept.rank(start)..kept.rank(end);
            let part = terms.grid.lanes(sent.start)..terms.grid.lanes(sent.end);
            let unmasked = self.unmasked(self.group * lanes + part.start, part.len())?;
            sums.resize(sent.len(), 0);
            self.machine.pool.install(|| {
                unpack(terms.grid, &unmasked, &mut sums);
                self.check(&sums, u64::from(terms.grid.levels))?;
                if !is_central {
                    digest.add_shared(&bytes_of(&sums));
                }
                match kept.flags(start..end) {
                    None => take(start, &sums),
                    Some(is_sent) => take(start, &with_zeros(&sums, &is_sent)),
                }
            })?;
        }
        Ok(Hex(digest.bytes()))
    }

    /// The sum in one lane of numbers from 0 on.
    fn number(&self, lane: usize, largest: u64) -> Result<u64, SecureError> {
        let found = to_signed(self.unmasked(lane, 1)?[0]);
        self.check(&[found], largest)?;
        u64::try_from(found).map_err(|_| {
            let why = format!("found weights or steps that add up to {found}: a client broke the protocol, or an answer is wrong");
            SecureError::refused(why, None)
        })
    }

    /// Lanes without their masks.
    fn unmasked(&self, first: usize, len: usize) -> Result<Vec<u32>, SecureError> {
        let (mut lanes, mut masks) = (vec![0; len], vec![0; len]);
        self.masked.read(first, &mut lanes).map_err(SecureError::file(self.masked.path()))?;
        let threshold = self.manifest.committee.threshold();
        self.answers.masks(self.machine, threshold, first, &mut masks)?;
        self.machine.pool.install(|| without_masks(&mut lanes, &masks));
        Ok(lanes)
    }

    /// Checks that clients can make these sums.
    fn check(&self, sums: &[i64], largest: u64) -> Result<(), SecureError> {
        let room =
            self.manifest.terms.privacy.as_ref().map_or(0, |privacy| privacy.room(self.clients as u64));
        let most = self.clients as u64 * largest + room;
        match sums.par_iter().find_first(|sum| sum.unsigned_abs() > most) {
            None => Ok(()),
            Some(sum) => {
                let why = format!(
                    "found a sum of {sum}, and {} clients make at most {most}: an answer is wrong, or a client broke the protocol",
                    self.clients
                );
                Err(SecureError::refused(
                    why,
                    Some("nothing is published; with the answers of more helpers a wrong one is named"),
                ))
            }
        }
    }

    /// Writes the mean of the group and its integer sums, without their names. Returns no mean of a group without clients.
    fn stage(
        &self,
        folder: &SessionFolder,
        options: &UnmaskOptions,
    ) -> Result<(GroupSum, Option<StagedMean>), SecureError> {
        if self.clients == 0 {
            return Ok((self.sum(&mut |_, _| Ok(()))?, None));
        }
        let path = match self.manifest.terms.groups {
            1 => options.output.clone(),
            _ => options.output.join(format!("group-{}.safetensors", self.group + 1)),
        };
        folder.make_room(&path)?;
        let (sum, staged) = self.write(&path, options.sums.as_deref(), self.totals()?)?;
        Ok((sum, Some(staged)))
    }

    /// Writes the mean of the group and its integer sums, in one pass.
    fn write(
        &self,
        path: &Path,
        sums_path: Option<&Path>,
        mut sum: GroupSum,
    ) -> Result<(GroupSum, StagedMean), SecureError> {
        let terms = &self.manifest.terms;
        if sum.weight == 0 {
            return Err(SecureError::refused("the weights of the clients add up to 0, expected more", None));
        }
        let layout = mean_layout(&terms.tensors);
        let places = held_places(&terms.tensors);
        let mean = ModelWriter::create(path, &layout, &self.metadata(&sum), None)?;
        let integers = sums_path.map(|path| IntegersWriter::create(path, terms)).transpose()?;
        sum.sums = self.sum_values(&mut |start, sums| {
            if let Some(integers) = &integers {
                integers.write(start, sums)?;
            }
            for (tensor, range) in pieces(&places, start..start + sums.len()) {
                let factor = factor(terms, terms.tensors[tensor].held, &sum);
                let mut noised = sums[range.start - start..range.end - start].to_vec();
                self.add_noise(range.start, &mut noised);
                let bytes = values_of(&noised, factor, layout.tensors()[tensor].dtype);
                let from = layout.coordinates(tensor).start + range.start - places[&tensor].start;
                mean.write(layout.pieces(from..from + range.len()), &bytes)?;
            }
            Ok(())
        })?;
        Ok((sum, StagedMean { path: path.to_owned(), mean, integers }))
    }

    /// Adds the server's noise to the sums of values, from a value on.
    fn add_noise(&self, first: usize, sums: &mut [i64]) {
        let (Some(key), Some(privacy)) = (self.noise, &self.manifest.terms.privacy) else { return };
        let mut noise = vec![0; sums.len()];
        let stream = Stream { key, domain: 0, segment: 0 };
        discrete_gaussian::noise(self.machine.isa, stream, privacy.level, first as u64, &mut noise);
        sums.iter_mut().zip(noise).for_each(|(sum, noise)| *sum += noise);
    }

    /// The metadata of a mean.
    fn metadata(&self, sum: &GroupSum) -> BTreeMap<String, String> {
        let (manifest, terms) = (self.manifest, &self.manifest.terms);
        let id = if terms.groups == 1 { "secagg".to_owned() } else { format!("group-{}", self.group + 1) };
        let privacy = terms.privacy.as_ref();
        let origin = json!({
            "protocol": SECAGG_PROTOCOL,
            "session": manifest.session,
            // The number that came is exact, and a budget divides by the plan's.
            "clients": privacy.is_none().then_some(sum.clients),
            "noise": privacy.map(|privacy| privacy.mode),
            "eligible": terms.clients.len(),
            "helpers": terms.helpers.len(),
            "threshold": terms.threshold,
            "kept": terms.keep,
            "group": self.group + 1,
            "groups": terms.groups,
        });
        let mut metadata: BTreeMap<String, String> = [
            ("base", terms.base.to_string()),
            ("client_id", id),
            ("fedmill.secagg", origin.to_string()),
            ("kind", "delta".to_owned()),
            ("num_examples", privacy.map_or(sum.weight, |privacy| privacy.denominator).to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        metadata.extend(terms.round.map(|round| ("round".to_owned(), round.to_string())));
        metadata
    }
}

/// Sums of values, with zeros where clients send none.
fn with_zeros(sums: &[i64], is_sent: &[bool]) -> Vec<i64> {
    let mut sums = sums.iter();
    is_sent.iter().map(|is_sent| if *is_sent { *sums.next().unwrap_or(&0) } else { 0 }).collect()
}

/// The factor by which integer sums become what the mean file holds: means, and sums of control variates.
///
/// With steps, clients sent x / steps. Their mean is multiplied by the mean number of steps, as in FedNova (Wang et al.,
/// "Tackling the objective inconsistency problem in heterogeneous federated optimization", 2020, equation 6).
fn factor(terms: &SessionTerms, held: Held, sum: &GroupSum) -> f64 {
    let step = terms.clip_of(held) / f64::from(terms.grid.levels);
    let divisor = terms.privacy.as_ref().map_or(sum.weight, |privacy| privacy.denominator);
    let mean = step * f64::from(terms.most_weight()) / divisor as f64;
    match (held, sum.steps) {
        (Held::Control, _) => step,
        (Held::Parameter, Some(steps)) => mean * (steps as f64 / sum.weight as f64),
        _ => mean,
    }
}

/// Reads the transcript of a session, signed by its server.
///
/// # Errors
///
/// When it cannot be read, or is not signed.
pub fn read_transcript(folder: &SessionFolder, manifest: &Manifest) -> Result<Transcript, SecureError> {
    let (path, server) = (folder.transcript(), &manifest.terms.server);
    let text = SignedText::read(&path)?;
    let read = text.verified(Stage::Unmask, &server.id, &server.ed25519);
    let transcript: Transcript = read.map_err(SecureError::file(&path))?;
    if transcript.session == manifest.session {
        return Ok(transcript);
    }
    Err(SecureError::file(&path)(MessageFault::Format(format!(
        "session is {}, expected {}",
        transcript.session, manifest.session
    ))))
}
