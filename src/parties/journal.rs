//! What a party remembers between runs: what it did in which session, and its secrets.
//!
//! The journal is written, and on disk, before the message that it tells of is published. So a party that was stopped
//! writes the same message again, and refuses to write another. A journal that was set back to an older copy forgets: the
//! files that its party published before are then the only witnesses.

use crate::io::folder::make_private;
use crate::io::journal::{Journal, Lock};
use crate::io::secret;
use crate::parties::error::SecureError;
use crate::parties::hex::Hex;
use crate::parties::identity::Stage;
use crate::record::sha256::Sha256;
use crate::record::{self, Entry, Head};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// The name of the journal in a party's folder.
pub const JOURNAL: &str = "journal.jsonl";

/// What a party did in a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Deed {
    /// The session.
    pub session: Sha256,
    /// The stage of the message that the party made.
    pub stage: Stage,
    /// The digest of what the message depends on: an update, or a set.
    pub subject: Hex<32>,
}

impl Entry for Deed {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A party's journal, open for this run alone.
#[derive(Debug)]
pub struct PartyJournal {
    folder: PathBuf,
    journal: Journal,
    head: Option<Head>,
    deeds: Vec<Deed>,
}

impl PartyJournal {
    /// Opens or creates the journal in a folder.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, or a line was changed.
    pub fn open(folder: &Path) -> Result<Self, SecureError> {
        make_private(folder).map_err(SecureError::io(folder))?;
        let path = folder.join(JOURNAL);
        let lock = Lock::take(&folder.join("lock"))?;
        let (journal, lines) = Journal::open(&path, lock)?;
        let records = record::verify::<Deed>(lines.iter());
        let records = records.map_err(|source| SecureError::Chain { path: path.clone(), source })?;
        let head = records.last().map(|(_, head)| *head);
        let deeds = records.into_iter().map(|(record, _)| record.entry).collect();
        Ok(Self { folder: folder.to_owned(), journal, head, deeds })
    }

    /// What the party did of a stage in a session; `None` if nothing.
    pub fn of(&self, session: &Sha256, stage: Stage) -> Option<&Deed> {
        self.deeds.iter().find(|deed| (&deed.session, deed.stage) == (session, stage))
    }

    /// The number of deeds of a stage.
    pub fn count(&self, stage: Stage) -> usize {
        self.deeds.iter().filter(|deed| deed.stage == stage).count()
    }

    /// A deed of the same stage about the same subject in another session.
    pub fn elsewhere(&self, deed: &Deed) -> Option<&Deed> {
        let is_same = |other: &&Deed| {
            (other.stage, &other.subject) == (deed.stage, &deed.subject) && other.session != deed.session
        };
        self.deeds.iter().find(is_same)
    }

    /// Notes a deed, on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn note(&mut self, deed: &Deed) -> Result<(), SecureError> {
        let seconds = seconds_now();
        let sealed = record::seal(self.head.as_ref(), seconds, deed);
        let (line, head) = sealed.map_err(|fault| SecureError::terms("journal", fault.to_string()))?;
        self.journal.append(&line)?;
        self.head = Some(head);
        self.deeds.push(deed.clone());
        Ok(())
    }

    /// The secret of the party for a session; `None` if it has none.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn secret(&self, session: &Sha256) -> Result<Option<Zeroizing<[u8; 32]>>, SecureError> {
        let path = self.kept(session, "secret");
        let kept = secret::read_key(&path).map_err(SecureError::io(&path))?;
        Ok(kept.map(Zeroizing::new))
    }

    /// Draws a new secret of the party for a session. One that is there without a deed is wiped: a deed that was lost with
    /// the end of the journal may have used it, and two messages never share a secret.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn new_secret(&self, session: &Sha256) -> Result<Zeroizing<[u8; 32]>, SecureError> {
        let path = self.kept(session, "secret");
        secret::wipe(&path).map_err(SecureError::io(&path))?;
        let mut fresh = Zeroizing::new([0; 32]);
        getrandom::fill(fresh.as_mut_slice())?;
        secret::write_key(&path, &fresh).map_err(SecureError::io(&path))?;
        Ok(fresh)
    }

    /// The path of a file that the party keeps for a session.
    pub fn kept(&self, session: &Sha256, name: &str) -> PathBuf {
        self.folder.join(format!("{session}.{name}"))
    }
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
