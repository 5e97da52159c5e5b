//! `fedmill secagg open`: the server opens a session.

use super::super::{Common, Failure, Outcome, print_path};
use super::party::{KeyOption, PARTY, SessionOption};
use super::terms::{PrivacyOptions, TermOptions};
use crate::modes::secure::groups::borne_by;
use crate::modes::secure::manifest::SessionTerms;
use crate::modes::secure::open;
use crate::modes::secure::privacy::PrivacyTerms;
use crate::parties::identity::read_identities;
use crate::privacy::ledger::record::NoiseFrom;
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Open a session: write and sign its manifest, as the server.
///
/// Prints the path of the manifest. Its digest is the session: publish it where clients can compare it, since a server
/// that shows each client another manifest or base can learn their updates.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    session: SessionOption,
    #[command(flatten)]
    key: KeyOption,
    /// Your name, as in your public key.
    #[arg(long, value_name = "ID", default_value = "server")]
    id: String,
    /// Public keys of the clients that may take part: files, or folders of files that end in .pub.
    #[arg(long, value_name = "PUB", num_args = 1.., required = true)]
    clients: Vec<PathBuf>,
    /// Public keys of the helpers: files, or folders of files that end in .pub.
    #[arg(long, value_name = "PUB", num_args = 1.., required = true)]
    helpers: Vec<PathBuf>,
    #[command(flatten)]
    terms: TermOptions,
    #[command(flatten)]
    privacy: PrivacyOptions,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let identity = self.key.identity()?;
        let mut options = self.terms.options(self.privacy.request()?)?;
        options.clients = read_identities(&self.clients).map_err(Failure::of)?;
        options.committee.helpers = read_identities(&self.helpers).map_err(Failure::of)?;
        let (pool, progress) = (common.pool()?, common.progress());
        let (folder, machine) = (self.session.folder(), common.machine(&pool, &progress));
        let manifest = open::run(&folder, &options, (&identity, &self.id), machine).map_err(Failure::of)?;
        if !common.quiet {
            let terms = &manifest.terms;
            console::tell(&format!("session {}", manifest.session));
            console::tell(&format!(
                "{} clients{}, at least {} in a sum, {} levels",
                terms.clients.len(),
                groups_text(terms),
                terms.min_survivors,
                terms.grid.levels
            ));
            if let Some(keep) = terms.keep {
                let all = keep as usize + terms.values() - terms.sent();
                console::tell(&format!("clients send {keep} of the {all} values of parameters"));
            }
            if terms.groups > 1 {
                console::tell(&anonymity_text(terms));
            }
            console::tell(&format!(
                "{} of {} helpers suffice; {}",
                terms.threshold,
                terms.helpers.len(),
                corrupt_text(terms.tolerates_corrupt)
            ));
        }
        if let (false, Some(privacy)) = (common.quiet, &manifest.terms.privacy) {
            console::tell(&privacy_text(privacy, &manifest.terms));
        }
        print_path(&folder.manifest_path());
        Ok(Outcome::Done)
    }
}

/// What corrupt helpers do for a lying server.
fn corrupt_text(tolerated: usize) -> String {
    match tolerated {
        0 => "a lying server needs one corrupt helper for a second sum".to_owned(),
        _ => format!("with up to {tolerated} corrupt ones a lying server gets no second sum"),
    }
}

/// Among how many clients an update hides, and how many hostile clients the groups bear.
fn anonymity_text(terms: &SessionTerms) -> String {
    let sizes = terms.group_sizes();
    let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
    format!(
        "an update hides among {} to {most} clients, not {}; most groups have no hostile client while fewer than {:.1} % are hostile",
        terms.min_survivors.min(*least),
        terms.clients.len(),
        100.0 * borne_by(*most)
    )
}

/// How the sum is private.
fn privacy_text(privacy: &PrivacyTerms, terms: &SessionTerms) -> String {
    let who = match privacy.mode {
        NoiseFrom::Central => "the server adds the noise to the sum that it sees;".to_owned(),
        NoiseFrom::Distributed => format!(
            "each client adds noise; with {} honest clients or more in the sum",
            privacy.honest(terms.min_survivors)
        ),
    };
    format!(
        "{} noise: norms up to {}, values up to {:.3e}; {who} the multiplier is at least {}",
        privacy.mode, privacy.clip_norm, terms.clip, privacy.noise_multiplier
    )
}

/// The number of groups and their sizes; empty for one group.
fn groups_text(terms: &SessionTerms) -> String {
    let sizes = terms.group_sizes();
    let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
    match (terms.groups, least == most) {
        (1, _) => String::new(),
        (groups, true) => format!(" in {groups} groups of {least}"),
        (groups, false) => format!(" in {groups} groups of {least} or {most}"),
    }
}
