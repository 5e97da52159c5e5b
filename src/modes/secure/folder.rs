//! The folder of a session, which all parties share.
//!
//! ```text
//! manifest.json                 the terms, signed by the server
//! masked/CLIENT.safetensors     a masked update, signed by its client
//! checks/HELPER.json            which envelopes open, signed by a helper
//! set.json                      the frozen set of clients, signed by the server
//! masked-sum.safetensors        the sum of the masked updates, signed by the server
//! witnesses/HELPER.json         a helper saw this set, if the manifest asks for it
//! answers/HELPER.safetensors    the share of the sum of masks, signed by a helper
//! transcript.json               who answered, and the digest of the mean, signed by the server
//! ```

use crate::io::folder::{EntryKind, entries, make_folder_of};
use crate::io::publish::resolved;
use crate::modes::secure::manifest::Manifest;
use crate::parties::error::SecureError;
use std::path::{Path, PathBuf};

/// The folder of a session.
#[derive(Clone, Debug)]
pub struct SessionFolder {
    path: PathBuf,
}

/// The ending of files with lanes.
pub const LANES: &str = ".safetensors";
/// The ending of signed texts.
const TEXT: &str = ".json";

/// What the folder has messages of parties in.
const MESSAGES: [&str; 8] = [
    "manifest.json",
    "masked",
    "checks",
    "set.json",
    "masked-sum.safetensors",
    "witnesses",
    "answers",
    "transcript.json",
];

impl SessionFolder {
    /// The session in a folder.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the manifest.
    ///
    /// # Errors
    ///
    /// As [`Manifest::read`].
    pub fn manifest(&self) -> Result<Manifest, SecureError> {
        Manifest::read(&self.manifest_path())
    }

    /// The path of the manifest.
    pub fn manifest_path(&self) -> PathBuf {
        self.path.join("manifest.json")
    }

    /// The path of a client's masked update.
    pub fn masked(&self, client: &str) -> PathBuf {
        self.path.join("masked").join(format!("{client}{LANES}"))
    }

    /// The path of a helper's report on envelopes.
    pub fn check(&self, helper: &str) -> PathBuf {
        self.path.join("checks").join(format!("{helper}{TEXT}"))
    }

    /// The path of the frozen set.
    pub fn set(&self) -> PathBuf {
        self.path.join("set.json")
    }

    /// The path of the sum of masked updates.
    pub fn sum(&self) -> PathBuf {
        self.path.join("masked-sum.safetensors")
    }

    /// The path of a helper's signature of the set.
    pub fn witness(&self, helper: &str) -> PathBuf {
        self.path.join("witnesses").join(format!("{helper}{TEXT}"))
    }

    /// The path of a helper's answer.
    pub fn answer(&self, helper: &str) -> PathBuf {
        self.path.join("answers").join(format!("{helper}{LANES}"))
    }

    /// The path of the transcript.
    pub fn transcript(&self) -> PathBuf {
        self.path.join("transcript.json")
    }

    /// The masked updates that are there: the name of each file without its ending, and its path. Other names come with
    /// the path alone.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed.
    pub fn all_masked(&self) -> Result<Vec<(Option<String>, PathBuf)>, SecureError> {
        let folder = self.path.join("masked");
        let found = entries(&folder).map_err(SecureError::io(&folder))?;
        let named = |(name, kind): (String, EntryKind)| {
            let sender = name.strip_suffix(LANES).filter(|_| kind == EntryKind::File).map(str::to_owned);
            (sender, folder.join(name))
        };
        Ok(found.into_iter().map(named).collect())
    }

    /// Refuses an output in the place of a message of the session, other than the party's `own`.
    ///
    /// # Errors
    ///
    /// When it is such a place.
    pub fn refuse_message(&self, output: &Path, own: Option<&Path>) -> Result<(), SecureError> {
        let (manifest, resolved_output) = (resolved(&self.manifest_path()), resolved(output));
        let below = manifest.parent().and_then(|folder| resolved_output.strip_prefix(folder).ok());
        let Some(below) = below else { return Ok(()) };
        let is_own = own.is_some_and(|own| own.strip_prefix(&self.path) == Ok(below));
        if is_own || !below.iter().next().is_some_and(|first| MESSAGES.iter().any(|name| first == *name)) {
            return Ok(());
        }
        let why =
            format!("{} is the place of a message of the session, expected another path", output.display());
        Err(SecureError::terms("output", why))
    }

    /// Creates the folder of one of its files.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn make_room(&self, path: &Path) -> Result<(), SecureError> {
        make_folder_of(path).map_err(SecureError::io(path))
    }
}
