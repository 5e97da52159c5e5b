//! How far a session is: masked updates, helpers that checked and answered, the frozen set.

use crate::modes::secure::check::{open_masked, reports};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::set::{FrozenSet, SetMember};
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::identity::{PublicIdentity, Stage};
use crate::parties::signed_lanes::LanesReader;
use crate::record::sha256::Sha256;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// How far a session is.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Standing {
    /// The session.
    pub session: Sha256,
    /// Clients with a masked update that they signed.
    pub masked: usize,
    /// Files among the masked updates that count for no client.
    pub bad: Vec<LeftOutClient>,
    /// Helpers that checked all those masked updates, or those of the frozen set.
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

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} masked updates", self.masked)?;
        if let Some(first) = self.bad.first() {
            write!(f, ", {} bad files, such as {}: {}", self.bad.len(), first.client, first.fault)?;
        }
        write!(f, ", {} of {} helpers checked", self.checked.len(), self.helpers)?;
        if let Some(clients) = self.frozen {
            write!(f, ", a set of {clients} clients")?;
        }
        write!(f, ", {} answered of the {} that suffice", self.answered.len(), self.threshold)
    }
}

impl Standing {
    /// How far a session is, with all clients that may take part.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn of_all(folder: &SessionFolder) -> Result<Self, SecureError> {
        let clients = folder.manifest()?.terms.clients;
        Self::of(folder, &clients.into_iter().map(|client| client.id).collect())
    }

    /// How far a session is, as its signatures tell; lanes are not read. Masked updates of other clients than these do
    /// not count.
    ///
    /// # Errors
    ///
    /// When the manifest or a message cannot be read.
    pub fn of(folder: &SessionFolder, clients: &BTreeSet<String>) -> Result<Self, SecureError> {
        let manifest = folder.manifest()?;
        let reader = LanesReader::default();
        let (mut members, mut bad) = (Vec::new(), Vec::new());
        for (sender, path) in folder.all_masked()? {
            match open_masked(&manifest, &reader, sender.as_deref(), &path) {
                Ok((client, file)) if clients.contains(&client) => {
                    members.push(SetMember { client, file: file.digest() });
                }
                Ok(_) => {}
                Err(left_out) => bad.push(left_out),
            }
        }
        let frozen = FrozenSet::read(folder, &manifest)?;
        // After the freeze others do not matter.
        let wanted: Vec<&SetMember> = match &frozen {
            Some(frozen) => frozen.set.members().collect(),
            None => members.iter().collect(),
        };
        let mut checked = Vec::new();
        for report in reports(folder, &manifest)? {
            let reported = report.bad.iter().map(|bad| &bad.member);
            let seen: Vec<&SetMember> = report.sound.iter().chain(reported).collect();
            if wanted.iter().all(|member| seen.contains(member)) {
                checked.push(report.helper);
            }
        }
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
            bad,
            checked,
            is_summed: frozen.as_ref().is_some_and(is_summed),
            answered: answered.map(|helper| helper.id.clone()).collect(),
            frozen: frozen.map(|frozen| frozen.set.members().count()),
            helpers: manifest.terms.helpers.len(),
            threshold: manifest.terms.threshold,
        })
    }
}
