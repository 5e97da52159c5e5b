//! Plays every role of a session over real updates, with clients and helpers that drop out.

use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::modes::secure::check;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::groups::shuffled;
use crate::modes::secure::help;
use crate::modes::secure::mask::{self, MaskOptions};
use crate::modes::secure::open::{self, CommitteeTerms, OpenOptions};
use crate::modes::secure::sum;
use crate::modes::secure::unmask::{self, UnmaskOptions, Unmasked};
use crate::parties::envelope::Suite;
use crate::parties::error::SecureError;
use crate::parties::identity::Identity;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use std::path::{Path, PathBuf};

/// A rehearsal.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The terms; clients and helpers are made here.
    pub terms: OpenOptions,
    /// The key exchange of envelopes.
    pub suite: Suite,
    /// The updates, one of each client.
    pub updates: Vec<PathBuf>,
    /// The number of helpers.
    pub helpers: usize,
    /// Clients that do not send.
    pub drop_clients: usize,
    /// Helpers that do not answer.
    pub drop_helpers: usize,
    /// The seed that chooses who drops out. Keys are always from the operating system.
    pub seed: u64,
}

/// Makes the machine for a step.
pub type MakeMachine<'m> = dyn Fn() -> Machine<'m> + 'm;

/// Plays a session in `folder`, and leaves it there with the parties' journals. Returns what the server published.
///
/// # Errors
///
/// As the commands that it plays.
pub fn run(
    folder: &Path,
    rehearsal: &Rehearsal,
    output: &Path,
    machine: &MakeMachine,
) -> Result<Unmasked, SecureError> {
    let session = SessionFolder::new(folder);
    let server = Identity::new()?;
    let clients = identities(rehearsal.updates.len())?;
    let helpers = identities(rehearsal.helpers)?;
    let public = |role: &str, all: &[Identity]| {
        let one = |(number, identity): (usize, &Identity)| {
            identity.public(&format!("{role}-{number:02}"), rehearsal.suite)
        };
        (1..).zip(all).map(one).collect::<Vec<_>>()
    };
    let (client_keys, helper_keys) = (public("client", &clients), public("helper", &helpers));
    let mut trusted = [client_keys.clone(), helper_keys.clone()].concat();
    trusted.push(server.public("server", rehearsal.suite));
    let terms = OpenOptions {
        clients: client_keys,
        committee: CommitteeTerms { helpers: helper_keys, ..rehearsal.terms.committee.clone() },
        ..rehearsal.terms.clone()
    };
    open::run(&session, &terms, (&server, "server"), machine())?;
    let mut random = ChaCha20Rng::seed_from_u64(rehearsal.seed);
    let dropped = choose(&mut random, clients.len(), rehearsal.drop_clients);
    for (place, (identity, update)) in clients.iter().zip(&rehearsal.updates).enumerate() {
        if dropped.contains(&place) {
            continue;
        }
        let options = MaskOptions {
            update: update.clone(),
            base: terms.base.clone(),
            policy: Policy::default(),
            trusted: trusted.clone(),
            min_cohort: 0,
            require_known: 0,
            allow_again: false,
            now: 0,
            output: None,
            integers: None,
        };
        mask::run(&session, &options, identity, &party(folder, "client", place + 1), machine())?;
    }
    let lost = choose(&mut random, helpers.len(), rehearsal.drop_helpers);
    let answering = || (0..helpers.len()).filter(|place| !lost.contains(place));
    for place in answering() {
        check::run(&session, &helpers[place], &machine())?;
    }
    sum::run(&session, &server, &party(folder, "server", 0), &machine())?;
    // Helpers that sign the set answer the second time.
    for _ in 0..=usize::from(terms.committee.signs_set) {
        for place in answering() {
            help::run(&session, &helpers[place], &party(folder, "helper", place + 1), &machine())?;
        }
    }
    let options = UnmaskOptions { output: output.to_owned(), sums: None, budget: None };
    unmask::run(&session, &options, &server, &machine())
}

fn identities(count: usize) -> Result<Vec<Identity>, SecureError> {
    (0..count).map(|_| Ok(Identity::new()?)).collect()
}

/// The folder of a party's journal.
fn party(folder: &Path, role: &str, number: usize) -> PathBuf {
    folder.join("journals").join(format!("{role}-{number:02}"))
}

/// Some places among `count`, at random.
fn choose(random: &mut ChaCha20Rng, count: usize, chosen: usize) -> Vec<usize> {
    let mut places = shuffled(count, random);
    places.truncate(chosen);
    places
}
