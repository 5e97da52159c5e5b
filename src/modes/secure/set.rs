//! The frozen set of clients: who is in the sum, and who is left out with which fault.

use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::manifest::Manifest;
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::Stage;
use crate::parties::signed_text::SignedText;
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A client in the sum.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SetMember {
    /// Its id.
    pub client: String,
    /// The digest of its masked update.
    pub file: Hex<32>,
}

/// The clients of the sums of a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct ClientSet {
    /// The protocol.
    pub protocol: String,
    /// The session.
    pub session: Sha256,
    /// The members of each group, in order of id; none of a group that is too small.
    pub groups: Vec<Vec<SetMember>>,
    /// The clients of groups that are too small.
    pub in_small_groups: Vec<String>,
    /// The clients that are left out.
    pub left_out: Vec<LeftOutClient>,
}

/// A frozen set whose signature is verified, with the digest of its bytes.
#[derive(Clone, Debug)]
pub struct FrozenSet {
    /// The clients.
    pub set: ClientSet,
    /// The SHA-256 digest of its bytes.
    pub digest: Sha256,
}

impl ClientSet {
    /// The set of these members; groups below the manifest's minimum have none.
    pub fn new(manifest: &Manifest, members: Vec<SetMember>, left_out: Vec<LeftOutClient>) -> Self {
        let mut groups = vec![Vec::new(); manifest.terms.groups];
        for member in members {
            if let Some(client) = manifest.client(&member.client) {
                groups[client.group].push(member);
            }
        }
        let mut in_small_groups = Vec::new();
        for group in groups.iter_mut().filter(|group| group.len() < manifest.terms.min_survivors) {
            in_small_groups.extend(group.drain(..).map(|member| member.client));
        }
        in_small_groups.sort_unstable();
        let protocol = SECAGG_PROTOCOL.to_owned();
        Self { protocol, session: manifest.session, groups, in_small_groups, left_out }
    }

    /// All members, group by group.
    pub fn members(&self) -> impl Iterator<Item = &SetMember> {
        self.groups.iter().flatten()
    }

    /// Checks a set that the server signed against the manifest.
    ///
    /// # Errors
    ///
    /// When it names a client twice or in another group, or has a group that is too small.
    pub fn check(&self, manifest: &Manifest) -> Result<(), MessageFault> {
        let fault = |why: String| Err(MessageFault::Format(why));
        if self.protocol != SECAGG_PROTOCOL || self.session != manifest.session {
            return fault(format!("session is {}, expected {}", self.session, manifest.session));
        }
        if self.groups.len() != manifest.terms.groups {
            return fault(format!("found {} groups, expected {}", self.groups.len(), manifest.terms.groups));
        }
        let mut seen = BTreeSet::new();
        for (number, group) in self.groups.iter().enumerate() {
            let least = manifest.terms.min_survivors;
            if !group.is_empty() && group.len() < least {
                return fault(format!(
                    "group {number} has {} clients, expected none or at least {least}",
                    group.len()
                ));
            }
            for member in group {
                let id = &member.client;
                if manifest.client(id).is_none_or(|client| client.group != number) {
                    return Err(MessageFault::UnknownSender(id.clone(), format!("client of group {number}")));
                }
                if !seen.insert(id) {
                    return fault(format!("client `{id}` is in it twice"));
                }
            }
        }
        if seen.is_empty() { fault("it has no client".to_owned()) } else { Ok(()) }
    }
}

impl FrozenSet {
    /// Reads the frozen set of a session; `None` if it is not frozen yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read, the server did not sign it, or it breaks the manifest's terms.
    pub fn read(folder: &SessionFolder, manifest: &Manifest) -> Result<Option<Self>, SecureError> {
        let path = folder.set();
        let text = match SignedText::read(&path) {
            Err(SecureError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            text => text?,
        };
        Self::of(&text, manifest).map(Some).map_err(SecureError::file(&path))
    }

    /// The frozen set of a signed text.
    ///
    /// # Errors
    ///
    /// When the server did not sign it, or it breaks the manifest's terms.
    pub fn of(text: &SignedText, manifest: &Manifest) -> Result<Self, MessageFault> {
        let server = &manifest.terms.server;
        let set: ClientSet = text.verified(Stage::Set, &server.id, &server.ed25519)?;
        set.check(manifest)?;
        Ok(Self { set, digest: Sha256::of(text.bytes()) })
    }

    /// The frozen set of a session, which must be there.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and when it is not frozen yet.
    pub fn expect(folder: &SessionFolder, manifest: &Manifest) -> Result<Self, SecureError> {
        let hint = Some("the server runs `fedmill secagg sum` first");
        let why = || SecureError::refused(format!("{}: is not there yet", folder.set().display()), hint);
        Self::read(folder, manifest)?.ok_or_else(why)
    }
}
