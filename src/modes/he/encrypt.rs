//! Encrypts an update: a client quantises it, encrypts it under the public key, signs the file.
//!
//! A client encrypts one update in a round. Its journal, on disk before the file is published, keeps that: the same update
//! makes the same file again, and another one is refused.

use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::io::folder::make_folder_of;
use crate::io::interrupt;
use crate::kernels::lanes::Isa;
use crate::modes::he::adding::AT_ONCE;
use crate::modes::he::bfv::Encryptor;
use crate::modes::he::inputs::ENDING;
use crate::modes::he::keys::PublicKeyFile;
use crate::modes::he::packing;
use crate::modes::he::params::DEGREE;
use crate::modes::he::round::{Round, RoundTerms};
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::grid::words;
use crate::parties::identity::{Identity, PublicIdentity, Stage, derived};
use crate::parties::journal::{Deed, PartyJournal};
use crate::parties::reading::check_base;
use crate::parties::reading::share_of;
use crate::parties::reading::{self, each_value};
use crate::parties::signed_lanes::{LanesReader, LanesWriter};
use crate::parties::tensors::Held;
use crate::parties::tensors::not_finite;
use crate::updates::set::Client;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a client encrypts, and whom it trusts.
#[derive(Clone, Debug)]
pub struct EncryptOptions {
    /// The terms of the round.
    pub round: PathBuf,
    /// The public key.
    pub public: PathBuf,
    /// The update.
    pub update: PathBuf,
    /// The client's own copy of the base.
    pub base: PathBuf,
    /// The public keys that the client got from the parties themselves.
    pub trusted: Vec<PublicIdentity>,
    /// The fewest clients that must be in a sum.
    pub min_cohort: usize,
    /// The fewest eligible clients whose keys must be trusted ones.
    pub require_known: usize,
    /// Whether the update may have been encrypted in another round.
    pub allow_again: bool,
    /// The file, or the folder in which it is named after the client.
    pub output: PathBuf,
}

/// What was encrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// The file.
    pub path: PathBuf,
    /// The number of values.
    pub values: u64,
    /// Values beyond the clip.
    pub clipped: u64,
    /// The weight of the client, and whether the cap lowered it.
    pub weight: Option<(u32, bool)>,
}

/// Encrypts an update.
///
/// # Errors
///
/// When the round is not one that the client accepts, the update does not fit it, the client encrypted another update in this
/// round, or the file cannot be written.
pub fn run(
    options: &EncryptOptions,
    identity: &Identity,
    journal: &Path,
    machine: Machine,
) -> Result<Encrypted, SecureError> {
    let round = Round::read(&options.round)?;
    let public = PublicKeyFile::read(&options.public)?;
    round.check_public(&public)?;
    check_round(&round, options)?;
    let client = own_id(&round, identity)?;
    let terms = &round.terms;
    let policy = Policy { round: terms.round, ..Policy::default() };
    let opened = reading::open(&options.base, vec![options.update.clone()], policy, machine)?;
    opened.refuse_own_choice()?;
    let tensors = opened.tensors(terms.statistics_clip.is_some(), false);
    check_base(&opened, &options.base, (&terms.base, &terms.tensors), &tensors)?;
    let [update] = opened.taken.set.clients.as_slice() else {
        return Err(SecureError::terms("UPDATE", "found several updates, expected one"));
    };
    let share = share_of(terms.weights, None, update)?;
    let path = output_path(&options.output, &client)?;
    let secret = secret_for((&round, &client), update, &path, options.allow_again, (identity, journal))?;
    make_folder_of(&path).map_err(SecureError::io(&path))?;
    let statement = round.statement(Stage::HeEncrypt, &client);
    let writer = LanesWriter::create(&path, &statement, round.update_shape())?;
    let machine = opened.machine();
    let mut encrypting = Encrypting {
        isa: machine.isa,
        terms,
        writer,
        encryptor: &public.encryptor,
        rounding: Zeroizing::new(derived(&secret, "rounding")),
        noise: Zeroizing::new(derived(&secret, "encryption")),
        factor: share.factor,
        integers: Zeroizing::new(Vec::new()),
        values: 0,
        clipped: 0,
        ciphertexts: 0,
    };
    machine.pool.install(|| {
        let take = &mut |held, values: &[f64]| encrypting.take(held, values);
        each_value(machine, &opened.taken.set, &terms.tensors, take)?;
        let behind = share.weight.map(|(weight, _)| i64::from(weight));
        let (values, clipped) = encrypting.end(behind, identity)?;
        Ok(Encrypted { path, values, clipped, weight: share.weight })
    })
}

/// Checks that the client accepts a round.
fn check_round(round: &Round, options: &EncryptOptions) -> Result<(), SecureError> {
    let terms = &round.terms;
    let parties = [("server", &terms.server), ("key holder", &terms.key_holder)];
    Round::check_trusted(&parties, &options.trusted)?;
    let (least, expected) = (terms.min_clients, options.min_cohort);
    if least < expected {
        let why =
            format!("sums of {least} clients may be decrypted, expected at least {expected} (--min-cohort)");
        return Err(SecureError::refused(why, None));
    }
    let known = terms.clients.iter().filter(|client| client.is_among(&options.trusted)).count();
    if known < options.require_known {
        let why = format!(
            "{known} eligible clients have trusted keys, expected at least {} (--require-known)",
            options.require_known
        );
        let hint = "a server can invent clients, and then the sum of all others is your update";
        return Err(SecureError::refused(why, Some(hint)));
    }
    Ok(())
}

/// The id that the round has for the key of this client.
fn own_id(round: &Round, identity: &Identity) -> Result<String, SecureError> {
    let key = identity.verifying();
    let own = round.terms.clients.iter().find(|client| client.ed25519 == key);
    own.map(|client| client.id.clone()).ok_or_else(|| {
        let hint = Some("the server opens the round with your public key");
        SecureError::refused("the round has no client with this key", hint)
    })
}

/// The path of a client's file. Its name is that of the client: the server finds the sender by it.
fn output_path(output: &Path, client: &str) -> Result<PathBuf, SecureError> {
    let name = format!("{client}{ENDING}");
    if crate::io::folder::is_folder(output) {
        return Ok(output.join(name));
    }
    if output.file_name().is_some_and(|found| found == name.as_str()) {
        return Ok(output.to_owned());
    }
    Err(SecureError::terms(
        output.display().to_string(),
        format!("expected a folder, or a file named {name}"),
    ))
}

/// The client's secret of the round, after its journal says that it may encrypt this update.
fn secret_for(
    (round, client): (&Round, &str),
    update: &Client,
    path: &Path,
    allow_again: bool,
    (identity, journal): (&Identity, &Path),
) -> Result<Zeroizing<[u8; 32]>, SecureError> {
    let digest = Blake3::of(&update.model.files).map_err(SecureError::io(&update.model.path))?;
    let subject = digest.parse().map_err(|why| SecureError::terms("update", format!("{why}")))?;
    let deed = Deed { session: round.digest, stage: Stage::HeEncrypt, subject };
    let mut journal = PartyJournal::open(journal)?;
    let short = deed.session.short();
    match journal.of(&deed.session, deed.stage) {
        Some(done) if *done != deed => {
            let why = format!(
                "round {short} has another update of yours already: a client encrypts one in a round"
            );
            let hint = "send the file that `encrypt` wrote first, or wait for the next round";
            return Err(SecureError::refused(why, Some(hint)));
        }
        Some(_) => {
            let why =
                || format!("the secret of round {short} is gone, so the same file cannot be made again");
            return journal.secret(&deed.session)?.ok_or_else(|| SecureError::refused(why(), None));
        }
        None => {}
    }
    refuse_sent((round, client), path, identity)?;
    if let Some(other) = journal.elsewhere(&deed).filter(|_| !allow_again) {
        let why = format!(
            "the same update was encrypted in round {}: the difference of the two sums tells who joined or left",
            other.session.short()
        );
        let hint = Some("pass --allow-again if the sum of the other round was never decrypted");
        return Err(SecureError::refused(why, hint));
    }
    let secret = journal.new_secret(&deed.session)?;
    journal.note(&deed)?;
    Ok(secret)
}

/// Refuses to encrypt if the client's own file is there, but its journal does not know it.
fn refuse_sent((round, client): (&Round, &str), path: &Path, identity: &Identity) -> Result<(), SecureError> {
    if !crate::io::folder::exists(path) {
        return Ok(());
    }
    let statement = round.statement(Stage::HeEncrypt, client);
    let opened = LanesReader::default().open(path, &statement, round.update_shape(), &identity.verifying());
    match opened {
        Ok(_) => {
            let why = format!(
                "{}: you encrypted an update in this round, and your journal does not know it: it was lost, or set back to an older copy",
                path.display()
            );
            Err(SecureError::refused(why, Some("restore the journal, or leave the file that is there")))
        }
        Err(MessageFault::Unreadable(why)) => Err(SecureError::file(path)(MessageFault::Unreadable(why))),
        // Another party's file, or what a crash left: the new file replaces it.
        Err(_) => Ok(()),
    }
}

/// Values on their way to ciphertexts in a file.
struct Encrypting<'s> {
    isa: Isa,
    terms: &'s RoundTerms,
    writer: LanesWriter<'s>,
    encryptor: &'s Encryptor,
    rounding: Zeroizing<[u8; 32]>,
    noise: Zeroizing<[u8; 32]>,
    /// What the client's weight multiplies its values by.
    factor: f64,
    /// Integers of values that are not encrypted yet.
    integers: Zeroizing<Vec<i32>>,
    values: u64,
    clipped: u64,
    ciphertexts: u64,
}

impl Encrypting<'_> {
    /// Takes the next values.
    fn take(&mut self, held: Held, values: &[f64]) -> Result<(), SecureError> {
        let words = words(self.isa, &self.rounding, self.values, values.len());
        let start = self.integers.len();
        self.integers.resize(start + values.len(), 0);
        let scale = (self.terms.clip_of(held), self.factor);
        let quantized = self.terms.grid().quantize(scale, values, &words, &mut self.integers[start..]);
        self.clipped +=
            quantized.map_err(|place| not_finite(&self.terms.tensors, self.values as usize + place))?;
        self.values += values.len() as u64;
        let full = AT_ONCE * DEGREE * self.terms.params.per_coefficient as usize;
        while self.integers.len() >= full {
            self.write(full, None)?;
        }
        Ok(())
    }

    /// Encrypts and writes the first integers, and one coefficient behind them.
    fn write(&mut self, integers: usize, behind: Option<i64>) -> Result<(), SecureError> {
        interrupt::check()?;
        let params = &self.terms.params;
        let mut coefficients = Zeroizing::new(Vec::with_capacity(params.coefficients(integers) + 1));
        params.pack(&self.integers[..integers], &mut coefficients);
        coefficients.extend(behind);
        let encrypt = |(place, coefficients): (usize, &[i64])| {
            let number = self.ciphertexts + place as u64;
            let residues = self.encryptor.encrypt(coefficients, &self.noise, number);
            residues.map(|residues| packing::pack(params, &residues))
        };
        let packed: Result<Vec<Vec<u32>>, String> =
            coefficients.par_chunks(DEGREE).enumerate().map(encrypt).collect();
        let packed = packed.map_err(|why| SecureError::terms("encrypt", why))?;
        self.ciphertexts += packed.len() as u64;
        self.writer.append(&packed.concat())?;
        self.integers.drain(..integers);
        Ok(())
    }

    /// Encrypts what is left, signs and publishes. Returns the number of values, and of those beyond the clip.
    fn end(mut self, behind: Option<i64>, identity: &Identity) -> Result<(u64, u64), SecureError> {
        if !self.integers.is_empty() || behind.is_some() {
            self.write(self.integers.len(), behind)?;
        }
        self.writer.publish(&[], identity)?;
        Ok((self.values, self.clipped))
    }
}
