//! Unmasks the sum: the server combines the answers, subtracts the masks, and writes the mean.
//!
//! The mean of a group is a delta of the base that `fedmill aggregate` reads like an update of one client.

use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::io::interrupt;
use crate::io::model_writer::ModelWriter;
use crate::kernels::field::to_signed;
use crate::model::dtype::Dtype;
use crate::modes::secure::answers::{Answers, audit, without_masks};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::integers::IntegersWriter;
use crate::modes::secure::manifest::{Manifest, SessionTerms};
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
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// The BLAKE3 digest of the integer sums: one little-endian i64 for each value, in the order of lanes.
    pub sums: Hex<32>,
}

/// What the server publishes.
#[derive(Clone, Debug)]
pub struct UnmaskOptions {
    /// The mean, if the session has one group; else the folder of the means.
    pub output: PathBuf,
    /// Where to write the integer sums too.
    pub sums: Option<PathBuf>,
}

/// The end of a session, and the means that were written.
#[derive(Clone, Debug)]
pub struct Unmasked {
    /// The transcript.
    pub transcript: Transcript,
    /// The means, one for each group that has clients.
    pub means: Vec<PathBuf>,
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
    if options.sums.is_some() && manifest.terms.groups > 1 {
        let why = "a session of several groups has several sums, expected one";
        return Err(SecureError::terms("--sums", why));
    }
    for output in [Some(&options.output), options.sums.as_ref()].into_iter().flatten() {
        folder.refuse_message(output, None)?;
    }
    let frozen = FrozenSet::expect(folder, &manifest)?;
    let masked = open_sum(folder, &manifest, &frozen)?;
    let mut answers = Answers::read(folder, &manifest, &frozen, machine)?;
    let published = folder.transcript();
    let published =
        crate::io::folder::exists(&published).then(|| read_transcript(folder, &manifest)).transpose()?;
    let other_answers = || {
        let path = folder.transcript();
        let why = format!("{}: lists other answers or sums than those that are there now", path.display());
        SecureError::refused(why, Some("see `fedmill secagg verify`"))
    };
    if let Some(published) = &published {
        answers.only_of(published);
        if answers.sound.len() < manifest.committee.threshold() {
            return Err(other_answers());
        }
    }
    let group = |(group, members): (usize, &Vec<SetMember>)| Unmasking {
        manifest: &manifest,
        masked: &masked,
        answers: &answers,
        machine,
        group,
        clients: members.len(),
    };
    let groups: Vec<Unmasking> = frozen.set.groups.iter().enumerate().map(group).collect();
    let sums: Vec<GroupSum> =
        groups.iter().map(|group| group.sum(&mut |_, _| Ok(()))).collect::<Result<_, _>>()?;
    let transcript = transcript(&manifest, &frozen, &answers, sums);
    if published.is_some_and(|published| published != transcript) {
        return Err(other_answers());
    }
    let mut means = Vec::new();
    for (group, sum) in groups.iter().zip(&transcript.groups).filter(|(group, _)| group.clients > 0) {
        let path = match manifest.terms.groups {
            1 => options.output.clone(),
            _ => options.output.join(format!("group-{}.safetensors", group.group + 1)),
        };
        folder.make_room(&path)?;
        group.write(&path, options.sums.as_deref(), sum)?;
        means.push(path);
    }
    SignedText::sign(&transcript, Stage::Unmask, identity)?.publish(&folder.transcript())?;
    Ok(Unmasked { transcript, means })
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
) -> Result<LanesFile, SecureError> {
    let (path, server) = (folder.sum(), &manifest.terms.server);
    let statement = manifest.statement(Stage::Sum, &server.id, Some(frozen.digest));
    let opened = LanesReader::default().open(&path, &statement, manifest.sums_shape(), &server.ed25519);
    let checked = opened.and_then(|file| audit(&file).map(|()| file));
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
}

/// Takes sums of values, from a value on.
type TakeIntegers<'t> = dyn FnMut(usize, &[i64]) -> Result<(), SecureError> + 't;

impl Unmasking<'_> {
    /// Hands the integer sums of the group to `take`, in order, and describes them.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, a sum is larger than the clients can make it, or `take` fails.
    pub fn sum(&self, take: &mut TakeIntegers) -> Result<GroupSum, SecureError> {
        let terms = &self.manifest.terms;
        let (lanes, values, per_lane) = (terms.lanes(), terms.values(), terms.grid.per_lane as usize);
        let mut digest = Blake3::default();
        let of_values = if self.clients == 0 { 0 } else { terms.grid.lanes(values) };
        let mut sums = Vec::new();
        for first in (0..of_values).step_by(LANES_AT_ONCE) {
            interrupt::check()?;
            let unmasked = self.unmasked(self.group * lanes + first, LANES_AT_ONCE.min(of_values - first))?;
            let start = first * per_lane;
            sums.resize((values - start).min(unmasked.len() * per_lane), 0);
            terms.grid.unpack(&unmasked, &mut sums);
            self.check(&sums, u64::from(terms.grid.levels))?;
            sums.iter().for_each(|sum| digest.add_bytes(&sum.to_le_bytes()));
            take(start, &sums)?;
        }
        let mut extra = self.group * lanes + of_values..(self.group + 1) * lanes;
        let mut next = |largest: u64| match extra.next().filter(|_| self.clients > 0) {
            Some(lane) => self.number(lane, largest),
            None => Ok(0),
        };
        let weight = match terms.weights {
            ClientWeights::Uniform => self.clients as u64,
            ClientWeights::Examples { cap } => next(u64::from(cap))?,
        };
        let steps = terms.steps_cap.map(|_| next(terms.most_steps())).transpose()?;
        Ok(GroupSum { clients: self.clients, weight, steps, sums: Hex(digest.bytes()) })
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
        without_masks(&mut lanes, &masks);
        Ok(lanes)
    }

    /// Checks that clients can make these sums.
    fn check(&self, sums: &[i64], largest: u64) -> Result<(), SecureError> {
        let most = self.clients as u64 * largest;
        match sums.iter().find(|sum| sum.unsigned_abs() > most) {
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

    /// Writes the mean of the group, and its integer sums.
    fn write(&self, path: &Path, sums_path: Option<&Path>, sum: &GroupSum) -> Result<(), SecureError> {
        let terms = &self.manifest.terms;
        if sum.weight == 0 {
            return Err(SecureError::refused("the weights of the clients add up to 0, expected more", None));
        }
        let layout = mean_layout(&terms.tensors);
        let places = held_places(&terms.tensors);
        let mean = ModelWriter::create(path, &layout, &self.metadata(sum), None)?;
        let integers = sums_path.map(|path| IntegersWriter::create(path, terms)).transpose()?;
        self.sum(&mut |start, sums| {
            if let Some(integers) = &integers {
                integers.write(start, sums.iter().copied())?;
            }
            for (tensor, range) in pieces(&places, start..start + sums.len()) {
                let factor = factor(terms, terms.tensors[tensor].held, sum);
                let values =
                    sums[range.start - start..range.end - start].iter().map(|sum| *sum as f64 * factor);
                let bytes: Vec<u8> = match layout.tensors()[tensor].dtype {
                    Dtype::F64 => values.flat_map(f64::to_le_bytes).collect(),
                    _ => values.flat_map(|value| (value as f32).to_le_bytes()).collect(),
                };
                let from = layout.coordinates(tensor).start + range.start - places[&tensor].start;
                mean.write(layout.pieces(from..from + range.len()), &bytes)?;
            }
            Ok(())
        })?;
        mean.sync()?;
        mean.publish()?;
        integers.map_or(Ok(()), IntegersWriter::publish)
    }

    /// The metadata of a mean.
    fn metadata(&self, sum: &GroupSum) -> BTreeMap<String, String> {
        let (manifest, terms) = (self.manifest, &self.manifest.terms);
        let id = if terms.groups == 1 { "secagg".to_owned() } else { format!("group-{}", self.group + 1) };
        let origin = json!({
            "protocol": SECAGG_PROTOCOL,
            "session": manifest.session,
            "clients": sum.clients,
            "eligible": terms.clients.len(),
            "helpers": terms.helpers.len(),
            "threshold": terms.threshold,
            "group": self.group + 1,
            "groups": terms.groups,
        });
        let mut metadata: BTreeMap<String, String> = [
            ("base", terms.base.to_string()),
            ("client_id", id),
            ("fedmill.secagg", origin.to_string()),
            ("kind", "delta".to_owned()),
            ("num_examples", sum.weight.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        metadata.extend(terms.round.map(|round| ("round".to_owned(), round.to_string())));
        metadata
    }
}

/// The factor by which integer sums become what the mean file holds: means, and sums of control variates.
///
/// With steps, clients sent x / steps. Their mean is multiplied by the mean number of steps, as in FedNova (Wang et al.,
/// "Tackling the objective inconsistency problem in heterogeneous federated optimization", 2020, equation 6).
fn factor(terms: &SessionTerms, held: Held, sum: &GroupSum) -> f64 {
    let step = terms.clip_of(held) / f64::from(terms.grid.levels);
    let mean = step * f64::from(terms.most_weight()) / sum.weight as f64;
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
