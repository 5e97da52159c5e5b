//! How far a session is: masked updates, helpers that checked and answered, the frozen set.

use crate::modes::secure::check::{open_masked, reports};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::set::{FrozenSet, SetMember};
use crate::parties::error::SecureError;
use crate::parties::identity::{PublicIdentity, Stage};
use crate::parties::signed_lanes::LanesReader;
use crate::record::sha256::Sha256;
use serde::Serialize;
use std::collections::BTreeSet;

/// How far a session is.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Standing {
    /// The session.
    pub session: Sha256,
    /// Clients with a masked update that they signed.
    pub masked: usize,
    /// Helpers that checked all those masked updates.
    pub checked: Vec<String>,
    /// Clients in the frozen set; `None` before it is frozen.
    pub frozen: Option<usize>,
    /// Whether the sum of their masked updates is there.
    pub is_summed: bool,
    /// Helpers that answered over the frozen set.
    pub answered: Vec<String>,
    /// The number of helpers.
    pub helpers: usize,
    /// The number of helpers that suffice.
    pub threshold: usize,
}

impl Standing {
    /// How far a session is, as its signatures tell; lanes are not read. Masked updates of other clients than these do
    /// not count.
    ///
    /// # Errors
    ///
    /// When the manifest or a message cannot be read.
    pub fn of(folder: &SessionFolder, clients: &BTreeSet<String>) -> Result<Self, SecureError> {
        let manifest = folder.manifest()?;
        let reader = LanesReader::default();
        let opened = folder.all_masked()?.into_iter().filter_map(|(sender, path)| {
            let (client, file) = open_masked(&manifest, &reader, sender.as_deref(), &path).ok()?;
            Some(SetMember { client, file: file.digest() })
        });
        let members: Vec<SetMember> = opened.filter(|member| clients.contains(&member.client)).collect();
        let mut checked = Vec::new();
        for report in reports(folder, &manifest)? {
            let bad = report.bad.iter().map(|bad| &bad.member);
            let seen: Vec<&SetMember> = report.sound.iter().chain(bad).collect();
            if members.iter().all(|member| seen.contains(&member)) {
                checked.push(report.helper);
            }
        }
        let frozen = FrozenSet::read(folder, &manifest)?;
        let server = &manifest.terms.server;
        let is_summed = |frozen: &FrozenSet| {
            let statement = manifest.statement(Stage::Sum, &server.id, Some(frozen.digest));
            reader.open(&folder.sum(), &statement, manifest.sums_shape(), &server.ed25519).is_ok()
        };
        let answered = |helper: &&PublicIdentity| {
            let Some(frozen) = &frozen else { return false };
            let statement = manifest.statement(Stage::Help, &helper.id, Some(frozen.digest));
            let path = folder.answer(&helper.id);
            reader.open(&path, &statement, manifest.sums_shape(), &helper.ed25519).is_ok()
        };
        let answered = manifest.terms.helpers.iter().filter(answered);
        Ok(Self {
            session: manifest.session,
            masked: members.len(),
            checked,
            is_summed: frozen.as_ref().is_some_and(is_summed),
            answered: answered.map(|helper| helper.id.clone()).collect(),
            frozen: frozen.map(|frozen| frozen.set.members().count()),
            helpers: manifest.terms.helpers.len(),
            threshold: manifest.terms.threshold,
        })
    }
}
