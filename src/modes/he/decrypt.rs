//! Decrypts a sum: the key holder checks every client's file and adds them up before it decrypts.
//!
//! Without that check a server could hand in one client's update as the sum. The key holder decrypts one set of clients in a
//! round: its journal keeps that. Whatever the ciphertexts hold, there is a mean: sums are clipped to what the clients can
//! make, and nothing tells that decryption failed or how much noise there was.

use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::io::folder::make_folder_of;
use crate::io::interrupt;
use crate::modes::he::adding::{AT_ONCE, add_up};
use crate::modes::he::bfv::Decryptor;
use crate::modes::he::inputs::{self, ENDING, Input};
use crate::modes::he::keys::{Party, PublicKeyFile, read_secret};
use crate::modes::he::mean::MeanWriter;
use crate::modes::he::packing;
use crate::modes::he::params::DEGREE;
use crate::modes::he::round::Round;
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage};
use crate::parties::journal::{Deed, PartyJournal};
use crate::parties::signed_lanes::{LanesFile, LanesReader};
use crate::parties::tensors::ClientWeights;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What the key holder decrypts, and whom it trusts.
#[derive(Clone, Debug)]
pub struct DecryptOptions {
    /// The terms of the round.
    pub round: PathBuf,
    /// The public key.
    pub public: PathBuf,
    /// The secret key.
    pub secret: PathBuf,
    /// The sum that the server signed.
    pub sum: PathBuf,
    /// The folder of the clients' files.
    pub inputs: PathBuf,
    /// The public keys that the key holder got from the parties themselves.
    pub trusted: Vec<PublicIdentity>,
    /// The fewest clients with trusted keys in the sum.
    pub min_clients: usize,
    /// The mean.
    pub output: PathBuf,
}

/// What was decrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decrypted {
    /// The clients in the sum.
    pub clients: Vec<String>,
    /// Rounds that the key holder decrypted, this one included.
    pub rounds: usize,
}

/// Decrypts a sum, and writes the mean.
///
/// # Errors
///
/// When the sum is not that of the clients' files, the clients are too few or not trusted, another set of this round was
/// decrypted, a key is not the round's, or a file cannot be read or written.
pub fn run(
    options: &DecryptOptions,
    identity: &Identity,
    journal: &Path,
    machine: &Machine,
) -> Result<Decrypted, SecureError> {
    let round = Round::read(&options.round)?;
    Round::check_role("key holder", &round.terms.key_holder, identity)?;
    let public = PublicKeyFile::read(&options.public)?;
    round.check_public(&public)?;
    Round::check_trusted(&[("server", &round.terms.server)], &options.trusted)?;
    let decryptor = read_secret(&options.secret, &public)?;
    let sum = open_sum(&round, &options.sum)?;
    let inputs = open_members(&round, &sum, &options.inputs)?;
    check_clients(&round, &inputs, options)?;
    let mut journal = PartyJournal::open(journal)?;
    let subject = Hex(Blake3::of_bytes(sum.extra()));
    let deed = Deed { session: round.digest, stage: Stage::HeDecrypt, subject };
    let done = journal.of(&deed.session, deed.stage).cloned();
    if done.as_ref().is_some_and(|done| *done != deed) {
        let why = format!(
            "you decrypted the sum of another set of clients in round {}: the difference of two sums is the update of those who differ",
            deed.session.short()
        );
        return Err(SecureError::refused(
            why,
            Some("a round has one sum; the clients send again in the next one"),
        ));
    }
    check_sum(&round, &inputs, &sum, machine)?;
    if done.is_none() {
        journal.note(&deed)?;
    }
    make_folder_of(&options.output).map_err(SecureError::io(&options.output))?;
    let decrypting = Decrypting { round: &round, sum: &sum, decryptor: &decryptor, clients: inputs.len() };
    decrypting.write(&options.output, machine)?;
    let clients = inputs.into_iter().map(|input| input.client).collect();
    Ok(Decrypted { clients, rounds: journal.count(Stage::HeDecrypt) })
}

/// Opens the sum that the server signed.
fn open_sum(round: &Round, path: &Path) -> Result<LanesFile, SecureError> {
    let server = &round.terms.server;
    let statement = round.statement(Stage::HeAdd, &server.id);
    let opened = LanesReader::default().open(path, &statement, round.sum_shape(), &server.ed25519);
    opened.map_err(SecureError::file(path))
}

/// Opens the files of the clients that the server says are in the sum: those files, and no others.
fn open_members(round: &Round, sum: &LanesFile, folder: &Path) -> Result<Vec<Input>, SecureError> {
    let reader = LanesReader::default();
    let (digests, _) = sum.extra().as_chunks::<32>();
    let members = round.terms.clients.iter().zip(digests).filter(|(_, digest)| **digest != [0; 32]);
    let open = |(client, digest): (&Party, &[u8; 32])| {
        let path = folder.join(format!("{}{ENDING}", client.id));
        let input = inputs::open(round, &reader, &path);
        let input = input.map_err(|LeftOutClient { fault, .. }| SecureError::file(&path)(fault))?;
        let found = input.file.digest();
        if found.0 == *digest {
            return Ok(input);
        }
        let why = format!("its digest is {found}, expected {}, that of the file in the sum", Hex(*digest));
        Err(SecureError::file(&path)(MessageFault::Format(why)))
    };
    members.map(open).collect()
}

/// Checks that enough clients are in a sum, of those whose keys the key holder trusts.
fn check_clients(round: &Round, inputs: &[Input], options: &DecryptOptions) -> Result<(), SecureError> {
    let clients = &round.terms.clients;
    let known = inputs.iter().filter(|input| clients[input.place].is_among(&options.trusted)).count();
    let (found, least) = (inputs.len(), round.terms.min_clients);
    if found < least {
        let why =
            format!("{found} clients are in the sum, expected at least {least}, the minimum of the round");
        return Err(SecureError::refused(why, None));
    }
    if known < options.min_clients {
        let why = format!(
            "{known} of {found} clients in the sum have trusted keys, expected at least {} (--min-clients)",
            options.min_clients
        );
        let hint = "a server can invent clients, and then the sum is the update of the others; pass their keys to --trust";
        return Err(SecureError::refused(why, Some(hint)));
    }
    Ok(())
}

/// Adds up the clients' files, and checks that their sum is the server's.
fn check_sum(round: &Round, inputs: &[Input], sum: &LanesFile, machine: &Machine) -> Result<(), SecureError> {
    let (mut first, mut audit) = (0, sum.audit());
    let mut stated = Vec::new();
    let mut other = None;
    let bad = add_up(round, inputs, machine, &mut |words| {
        stated.resize(words.len(), 0);
        sum.read(first, &mut stated).map_err(SecureError::file(sum.path()))?;
        audit.add(&stated);
        let differs = words.iter().zip(&stated).position(|(one, other)| one != other);
        other = other.or(differs.map(|place| (first + place) / packing::words(&round.terms.params)));
        first += words.len();
        Ok(())
    })?;
    if let Some(LeftOutClient { client, fault }) = bad.into_iter().next() {
        let input = inputs.iter().find(|input| input.client == client);
        return Err(SecureError::file(input.map_or(sum.path(), |input| input.file.path()))(fault));
    }
    audit.end(sum).map_err(SecureError::file(sum.path()))?;
    other.map_or(Ok(()), |ciphertext| {
        let why = format!(
            "{}: ciphertext {ciphertext} is not the sum of the clients' files, expected their sum: nothing is decrypted",
            sum.path().display()
        );
        Err(SecureError::refused(why, Some("a server that hands in another sum can learn an update")))
    })
}

/// A sum that is checked.
struct Decrypting<'d> {
    round: &'d Round,
    sum: &'d LanesFile,
    decryptor: &'d Decryptor,
    clients: usize,
}

impl Decrypting<'_> {
    /// Decrypts the sum, and writes the mean.
    fn write(&self, path: &Path, machine: &Machine) -> Result<(), SecureError> {
        let terms = &self.round.terms;
        let weight = self.weight(machine)?;
        let mut mean = MeanWriter::create(path, self.round, self.clients, weight)?;
        let (all, mut left) = (self.round.ciphertexts(), terms.values());
        let mut audit = self.sum.audit();
        machine.progress.start("decrypting", all as u64);
        for first in (0..all).step_by(AT_ONCE) {
            interrupt::check()?;
            let count = AT_ONCE.min(all - first);
            let packed = self.read(first, count)?;
            audit.add(&packed);
            let coefficients = self.coefficients(&packed, machine)?;
            let values = left.min(coefficients.len() * terms.params.per_coefficient as usize);
            let mut sums = Zeroizing::new(vec![0; values]);
            terms.params.unpack(&coefficients, &mut sums);
            self.clip(weight, &mut sums);
            mean.append(&sums)?;
            left -= values;
            machine.progress.advance(count as u64);
        }
        machine.progress.finish();
        audit.end(self.sum).map_err(SecureError::file(self.sum.path()))?;
        mean.publish()
    }

    fn read(&self, first: usize, count: usize) -> Result<Vec<u32>, SecureError> {
        let words = packing::words(&self.round.terms.params);
        let mut packed = vec![0; count * words];
        self.sum.read(first * words, &mut packed).map_err(SecureError::file(self.sum.path()))?;
        Ok(packed)
    }

    /// The coefficients in ciphertexts.
    fn coefficients(&self, packed: &[u32], machine: &Machine) -> Result<Zeroizing<Vec<i64>>, SecureError> {
        let params = &self.round.terms.params;
        let decrypt = |packed: &[u32]| {
            let mut residues = vec![0; packing::residues(params)];
            packing::add(params, packed, &mut residues).map_err(|_| "a residue is beyond its modulus")?;
            self.decryptor.decrypt(&residues).map_err(|_| "a ciphertext has another form")
        };
        let chunks = packed.par_chunks(packing::words(params));
        let found: Result<Vec<_>, &str> = machine.pool.install(|| chunks.map(decrypt).collect());
        let found =
            found.map_err(|why| SecureError::file(self.sum.path())(MessageFault::Format(why.to_owned())))?;
        let mut coefficients = Zeroizing::new(Vec::with_capacity(found.len() * DEGREE));
        found.iter().for_each(|one| coefficients.extend_from_slice(one));
        Ok(coefficients)
    }

    /// The sum of the clients' weights, clipped to what they can make.
    fn weight(&self, machine: &Machine) -> Result<u64, SecureError> {
        let (terms, clients) = (&self.round.terms, self.clients as u64);
        let ClientWeights::Examples { cap } = terms.weights else { return Ok(clients) };
        let last = terms.coefficients() - 1;
        let coefficients = self.coefficients(&self.read(last / DEGREE, 1)?, machine)?;
        Ok(u64::try_from(coefficients[last % DEGREE]).unwrap_or(0).clamp(1, clients * u64::from(cap)))
    }

    /// Clips sums to what clients of that weight can make: with their rounding, the mean stays within the clip.
    fn clip(&self, weight: u64, sums: &mut [i64]) {
        let (terms, clients) = (&self.round.terms, self.clients as u64);
        let levels = u64::from(terms.params.levels);
        let most = match terms.weights {
            ClientWeights::Uniform => clients * levels,
            ClientWeights::Examples { cap } => {
                (levels * weight / u64::from(cap) + clients).min(clients * levels)
            }
        } as i64;
        sums.iter_mut().for_each(|sum| *sum = (*sum).clamp(-most, most));
    }
}
