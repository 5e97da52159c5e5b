//! Opens a session: the server writes and signs the manifest.

use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::io::folder::make_folder_of;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::keys::sharing::Committee;
use crate::modes::secure::manifest::{Eligible, Manifest, SessionTerms};
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::envelope::Suite;
use crate::parties::error::SecureError;
use crate::parties::grid::Grid;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage, derived};
use crate::parties::reading;
use crate::parties::signed_text::SignedText;
use crate::parties::tensors::ClientWeights;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use std::path::PathBuf;

/// The helpers of a session.
#[derive(Clone, Debug)]
pub struct CommitteeTerms {
    /// The helpers, in order of their numbers.
    pub helpers: Vec<PublicIdentity>,
    /// The number of helpers that suffice; `None` for more than half of them.
    pub threshold: Option<usize>,
    /// Whether helpers sign the set before they answer.
    pub signs_set: bool,
}

/// The largest magnitude of a change, by kind of tensor.
#[derive(Clone, Copy, Debug)]
pub struct Clips {
    /// Of a parameter.
    pub parameters: f64,
    /// Of a float statistic; `None` leaves statistics out.
    pub statistics: Option<f64>,
    /// Of a control variate; `None` if clients send none.
    pub controls: Option<f64>,
}

/// The terms that the server chooses.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The base.
    pub base: PathBuf,
    /// The number of the round.
    pub round: Option<u64>,
    /// The clients that may take part.
    pub clients: Vec<PublicIdentity>,
    /// The helpers.
    pub committee: CommitteeTerms,
    /// The largest changes.
    pub clips: Clips,
    /// The largest integer of a value; `None` for the finest grid.
    pub levels: Option<u32>,
    /// Values in a lane.
    pub per_lane: u32,
    /// The weights of clients.
    pub weights: ClientWeights,
    /// The most local steps that a client counts, if clients divide their changes by them.
    pub steps_cap: Option<u32>,
    /// The number of groups.
    pub groups: usize,
    /// The fewest clients of a sum; `None` for half of the smallest group, and at least 2.
    pub min_survivors: Option<usize>,
    /// Seconds since 1970 after which clients mask no more.
    pub deadline: Option<u64>,
}

/// Opens a session in a folder.
///
/// # Errors
///
/// When the terms cannot be, the base cannot be read, or the folder has a session.
pub fn run(
    folder: &SessionFolder,
    options: &OpenOptions,
    server: (&Identity, &str),
    machine: Machine,
) -> Result<Manifest, SecureError> {
    let path = folder.manifest_path();
    if crate::io::folder::exists(&path) {
        let hint = Some("name another folder: a session is opened once");
        return Err(SecureError::refused(format!("{}: is there already", path.display()), hint));
    }
    let terms = terms(options, server, machine)?;
    terms.check().map_err(|why| SecureError::terms("manifest", why))?;
    let text = SignedText::sign(&terms, Stage::Open, server.0)?;
    let manifest = Manifest::of(&text).map_err(SecureError::file(&path))?;
    make_folder_of(&path).map_err(SecureError::io(&path))?;
    text.publish(&path)?;
    Ok(manifest)
}

fn terms(
    options: &OpenOptions,
    (server, id): (&Identity, &str),
    machine: Machine,
) -> Result<SessionTerms, SecureError> {
    let opened = reading::open(&options.base, Vec::new(), Policy::default(), machine)?;
    if let Some(tensor) = opened.opaque() {
        let why = format!(
            "{}: tensor `{tensor}` is packed, and no sum of packed values has a meaning",
            options.base.display()
        );
        return Err(SecureError::refused(why, Some("aggregate adapters, or a base with plain weights")));
    }
    let tensors = opened.tensors(options.clips.statistics.is_some(), options.clips.controls.is_some());
    let suite = suite_of(&options.committee.helpers)?;
    let nonce = Hex(random()?);
    let clients = in_groups(&options.clients, options.groups, &nonce.0)?;
    let threshold = options.committee.threshold.unwrap_or(options.committee.helpers.len() / 2 + 1);
    let committee = Committee::new(options.committee.helpers.len(), threshold);
    let committee = committee.map_err(|why| SecureError::terms("--threshold", why.to_string()))?;
    let largest = clients.len().div_ceil(options.groups) as u64;
    let grid = Grid::new(largest, options.levels, options.per_lane);
    let mut terms = SessionTerms {
        protocol: SECAGG_PROTOCOL.to_owned(),
        nonce,
        round: options.round,
        server: server.public(id, suite),
        base: opened.base_digest()?,
        tensors_sha256: SessionTerms::digest_of(&tensors),
        tensors,
        clip: options.clips.parameters,
        statistics_clip: options.clips.statistics,
        control_clip: options.clips.controls,
        grid: grid.map_err(|why| SecureError::terms("--levels", why.to_string()))?,
        weights: options.weights,
        steps_cap: options.steps_cap,
        groups: options.groups,
        helpers: options.committee.helpers.clone(),
        threshold,
        tolerates_corrupt: 0,
        helpers_sign_set: options.committee.signs_set,
        suite,
        min_survivors: options.min_survivors.unwrap_or((clients.len() / options.groups / 2).max(2)),
        clients,
        deadline: options.deadline,
    };
    terms.tolerates_corrupt = terms.corrupt_of(committee);
    Ok(terms)
}

/// The key exchange that all helpers have.
fn suite_of(helpers: &[PublicIdentity]) -> Result<Suite, SecureError> {
    helpers
        .first()
        .map(|helper| helper.suite)
        .ok_or_else(|| SecureError::terms("--helpers", "found no helper, expected at least one public key"))
}

/// 32 bytes from the operating system.
fn random() -> Result<[u8; 32], SecureError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Puts clients in groups at random, of sizes that differ by one at most.
fn in_groups(
    clients: &[PublicIdentity],
    groups: usize,
    nonce: &[u8; 32],
) -> Result<Vec<Eligible>, SecureError> {
    if groups == 0 || groups > clients.len() {
        let why = format!("found {groups}, expected 1 to {}, the clients", clients.len());
        return Err(SecureError::terms("--groups", why));
    }
    let mut clients: Vec<&PublicIdentity> = clients.iter().collect();
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    let places = shuffled(clients.len(), &mut ChaCha20Rng::from_seed(derived(nonce, "groups")));
    let eligible = clients.iter().zip(places).map(|(client, place)| Eligible {
        id: client.id.clone(),
        ed25519: client.ed25519,
        group: place % groups,
    });
    Ok(eligible.collect())
}

/// The numbers below `count` in a uniformly random order (Fisher and Yates).
pub fn shuffled(count: usize, random: &mut ChaCha20Rng) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        places.swap(last, below(random, last as u64 + 1));
    }
    places
}

/// A uniform number below `end`: words beyond the last whole multiple are drawn again.
fn below(random: &mut ChaCha20Rng, end: u64) -> usize {
    loop {
        let word = random.next_u64();
        if word < u64::MAX - u64::MAX % end {
            return (word % end) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_equal_sizes_and_depend_on_the_nonce() {
        let identity = |i: u8| Identity::of([i; 32]).public(&format!("client-{i:02}"), Suite::X25519);
        let clients: Vec<PublicIdentity> = (0..10).rev().map(identity).collect();
        let groups = |nonce| {
            let found = in_groups(&clients, 3, &[nonce; 32]).unwrap();
            assert!(found.is_sorted_by(|a, b| a.id < b.id));
            found.into_iter().map(|client| client.group).collect::<Vec<_>>()
        };
        let sizes = |groups: &[usize]| {
            (0..3).map(|g| groups.iter().filter(|group| **group == g).count()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&groups(1)), [4, 3, 3]);
        assert_ne!(groups(1), groups(2));
        assert_eq!(groups(1), groups(1));
        assert!(in_groups(&clients, 0, &[1; 32]).is_err() && in_groups(&clients, 11, &[1; 32]).is_err());
    }
}
