//! The seeds of a client: drawn from its secret, committed to, and sealed for the helpers.

use crate::modes::secure::keys::sharing::{Committee, HelperSet, holds};
use crate::modes::secure::manifest::Manifest;
use crate::parties::envelope::Suite;
use crate::parties::fault::MessageFault;
use crate::parties::identity::{Identity, PublicIdentity, derived};
use crate::record::sha256::Sha256;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use std::ops::Range;
use zeroize::{Zeroize, Zeroizing};

/// A seed of a stream of masks.
pub type Seed = [u8; 32];

/// Bytes of a seed and of a commitment.
const BYTES: usize = 32;

/// The seeds of a client, one for each set of t - 1 helpers. They are wiped when they are dropped.
pub type Seeds = Zeroizing<Vec<Seed>>;

/// Draws the seeds of a client from its secret of the session.
pub fn draw(committee: Committee, secret: &[u8; 32]) -> Seeds {
    let mut random = ChaCha20Rng::from_seed(derived(secret, "seeds"));
    let mut seeds = Zeroizing::new(vec![[0; BYTES]; committee.sets().len()]);
    seeds.iter_mut().for_each(|seed| random.fill_bytes(seed));
    seeds
}

/// The commitment to a seed. The session and the sender bind it, and the seed hides in it.
fn commitment(session: &Sha256, sender: &str, set: HelperSet, seed: &Seed) -> [u8; BYTES] {
    let text = format!("{session} {sender} {set} ");
    *Sha256::of(Zeroizing::new([text.as_bytes(), seed].concat()).as_slice()).bytes()
}

/// The address of an envelope.
fn address(session: &Sha256, sender: &str, receiver: &PublicIdentity) -> Vec<u8> {
    format!("{session} {sender} {} {}", receiver.id, receiver.ed25519).into_bytes()
}

/// Bytes of the commitments and envelopes of one client.
pub fn sealed_bytes(committee: Committee, suite: Suite) -> usize {
    let held = committee.sets_without(committee.helpers()).len();
    BYTES * committee.sets().len() + committee.helpers() * suite.envelope_bytes(BYTES * held)
}

/// The commitments to seeds, and an envelope for each helper.
///
/// # Errors
///
/// When a helper of the manifest has no key to seal for.
pub fn seal(manifest: &Manifest, sender: &str, seeds: &Seeds, secret: &[u8; 32]) -> Result<Vec<u8>, String> {
    let (committee, session) = (manifest.committee, manifest.session);
    let sets = committee.sets();
    let committed =
        sets.iter().zip(seeds.iter()).flat_map(|(set, seed)| commitment(&session, sender, *set, seed));
    let mut all: Vec<u8> = committed.collect();
    let mut random = ChaCha20Rng::from_seed(derived(secret, "envelopes"));
    for (number, helper) in (1..).zip(&manifest.terms.helpers) {
        let held = sets.iter().zip(seeds.iter()).filter(|(set, _)| !holds(**set, number));
        let plain: Zeroizing<Vec<u8>> = Zeroizing::new(held.flat_map(|(_, seed)| *seed).collect());
        let (key, address) = (helper.sealing_key()?, address(&session, sender, helper));
        let sealed = manifest.terms.suite.seal(&key, &address, &plain, &mut random);
        all.extend(sealed.map_err(|why| format!("helper {}: {why}", helper.id))?);
    }
    Ok(all)
}

/// Opens the envelope of a client for a helper, and checks the seeds against their commitments. Returns the helper's seeds
/// in the order of its sets.
///
/// # Errors
///
/// When the envelope does not open, or a seed is not the committed one.
pub fn open(
    manifest: &Manifest,
    helper: &(usize, &Identity),
    sender: &str,
    sealed: &[u8],
) -> Result<Seeds, MessageFault> {
    let (number, identity) = *helper;
    let (committee, suite) = (manifest.committee, manifest.terms.suite);
    let sets = committee.sets();
    let (committed, envelopes) = sealed.split_at(BYTES * sets.len());
    let party = &manifest.terms.helpers[number - 1];
    let range = envelope_of(committee, suite, number);
    let address = address(&manifest.session, sender, party);
    let refused = || MessageFault::Envelope(party.id.clone());
    let plain = suite.open(&identity.sealing_secret(), &address, &envelopes[range]).map_err(|_| refused())?;
    let mut seeds = Zeroizing::new(Vec::new());
    let held = sets.iter().zip(committed.chunks_exact(BYTES)).filter(|(set, _)| !holds(**set, number));
    for ((place, (set, expected)), seed) in held.enumerate().zip(plain.chunks_exact(BYTES)) {
        let mut seed: Seed = seed.try_into().map_err(|_| refused())?;
        seeds.push(seed);
        let is_committed = commitment(&manifest.session, sender, *set, &seed) == *expected;
        seed.zeroize();
        if !is_committed {
            return Err(MessageFault::Commitment { helper: party.id.clone(), number: place + 1 });
        }
    }
    Ok(seeds)
}

/// The place of a helper's envelope behind the commitments.
fn envelope_of(committee: Committee, suite: Suite, number: usize) -> Range<usize> {
    let bytes = suite.envelope_bytes(BYTES * committee.sets_without(number).len());
    (number - 1) * bytes..number * bytes
}
