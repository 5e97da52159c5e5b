//! The set of clients that several machines of the server add up before it is frozen.
//!
//! The first machine writes the draft, and all others add up the same clients. It is not signed: a signed set is one that
//! helpers answer over. Clients that come later are not in it, as in a set that is frozen.

use crate::engine::passes::machine::Machine;
use crate::io::folder::{exists, make_folder_of};
use crate::io::journal::Lock;
use crate::io::publish::{resolved, stage};
use crate::io::source::read_at_most;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::set::{ClientSet, FrozenSet, SetMember};
use crate::modes::secure::sum::{check_quorum, collect};
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::identity::{Identity, Stage};
use crate::parties::signed_text::SignedText;
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The most bytes of a draft.
const MOST_BYTES: u64 = 256 << 20;

/// Refuses a folder of parts that other parties see.
///
/// # Errors
///
/// When it is the session's, or one in which the session has messages.
pub fn refuse_session(parts: &Path, folder: &SessionFolder) -> Result<(), SecureError> {
    folder.refuse_message(&parts.join("part"), None)?;
    if resolved(parts) != resolved(folder.path()) {
        return Ok(());
    }
    let why = format!(
        "{} is the folder of the session, expected one that your machines alone share",
        parts.display()
    );
    Err(SecureError::terms("--parts", why))
}

/// The clients that the machines of a server add up.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    session: Sha256,
    members: Vec<SetMember>,
    left_out: Vec<LeftOutClient>,
}

impl Draft {
    /// The path of the draft in a folder of parts.
    fn path(parts: &Path) -> PathBuf {
        parts.join("draft.json")
    }

    /// Reads the draft in a folder of parts; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is of another session.
    pub fn read(parts: &Path, manifest: &Manifest) -> Result<Option<Self>, SecureError> {
        let path = Self::path(parts);
        if !exists(&path) {
            return Ok(None);
        }
        let fault = |why: String| SecureError::file(&path)(MessageFault::Format(why));
        let bytes = read_at_most(&path, MOST_BYTES).map_err(SecureError::io(&path))?;
        let draft: Self = serde_json::from_slice(&bytes).map_err(|why| fault(why.to_string()))?;
        if draft.session != manifest.session {
            return Err(fault(format!("session is {}, expected {}", draft.session, manifest.session)));
        }
        Ok(Some(draft))
    }

    /// Reads the draft in a folder of parts. If there is none, writes one of the masked updates that are there.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, or too few clients are there.
    pub fn read_or_write(
        parts: &Path,
        folder: &SessionFolder,
        manifest: &Manifest,
        machine: &Machine,
    ) -> Result<Self, SecureError> {
        let path = Self::path(parts);
        refuse_session(parts, folder)?;
        make_folder_of(&path).map_err(SecureError::io(&path))?;
        let _alone = Lock::take(&parts.join("lock"))?;
        if let Some(draft) = Self::read(parts, manifest)? {
            return Ok(draft);
        }
        let (files, left_out) = collect(folder, manifest, machine)?;
        let members =
            files.iter().map(|(client, file)| SetMember { client: client.clone(), file: file.digest() });
        let draft = Self { session: manifest.session, members: members.collect(), left_out };
        check_quorum(manifest, &draft.set(manifest))?;
        draft.write(parts)?;
        Ok(draft)
    }

    /// Leaves out the clients whose files changed since, or that helpers reported since, and writes the draft. Returns them:
    /// parts that have them must be added up again.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or the draft cannot be written.
    pub fn without_bad(
        self,
        parts: &Path,
        folder: &SessionFolder,
        manifest: &Manifest,
        machine: &Machine,
    ) -> Result<(Self, Vec<LeftOutClient>), SecureError> {
        let (files, left_out) = collect(folder, manifest, machine)?;
        let is_same =
            |member: &SetMember| files.get(&member.client).is_some_and(|file| file.digest() == member.file);
        let gone = || MessageFault::Format("the file is gone, or another one took its place".to_owned());
        let fault = |member: &SetMember| {
            let client = member.client.clone();
            let found = left_out.iter().find(|one| one.client == client);
            LeftOutClient { client, fault: found.map_or_else(gone, |one| one.fault.clone()) }
        };
        let bad: Vec<LeftOutClient> =
            self.members.iter().filter(|member| !is_same(member)).map(fault).collect();
        match bad.is_empty() {
            true => Ok((self, bad)),
            false => Ok((self.leave_out(parts, &bad)?, bad)),
        }
    }

    /// Leaves out clients, and writes the draft.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn leave_out(mut self, parts: &Path, faults: &[LeftOutClient]) -> Result<Self, SecureError> {
        self.members.retain(|member| faults.iter().all(|fault| fault.client != member.client));
        self.left_out.extend_from_slice(faults);
        self.write(parts)?;
        Ok(self)
    }

    fn write(&self, parts: &Path) -> Result<(), SecureError> {
        let path = Self::path(parts);
        let bytes = serde_json::to_vec(self).map_err(|why| SecureError::terms("draft", why.to_string()))?;
        let staged = stage(&path, &bytes).map_err(SecureError::io(&path))?;
        staged.publish_on_disk(&path).map_err(SecureError::io(&path))
    }

    /// The set that it becomes when it is frozen.
    fn set(&self, manifest: &Manifest) -> ClientSet {
        ClientSet::new(manifest, self.members.clone(), self.left_out.clone())
    }

    /// The set that it becomes when it is frozen, and its signed text.
    ///
    /// # Errors
    ///
    /// When it breaks the manifest's terms.
    pub fn signed(
        &self,
        parts: &Path,
        manifest: &Manifest,
        identity: &Identity,
    ) -> Result<(FrozenSet, SignedText), SecureError> {
        let set = self.set(manifest);
        check_quorum(manifest, &set)?;
        let text = SignedText::sign(&set, Stage::Set, identity)?;
        let frozen = FrozenSet::of(&text, manifest).map_err(SecureError::file(&Self::path(parts)))?;
        Ok((frozen, text))
    }
}
