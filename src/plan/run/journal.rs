//! The journal of a run, as its directory keeps it.

use super::error::RunError;
use super::event::{Ending, Event, Line};
use crate::io::digest::{Blake3, hex};
use crate::io::journal::{JournalError, read as lines_of};
use crate::record::{Head, Record, read};
use std::path::Path;

/// The journal, in the directory of a run.
pub const JOURNAL: &str = "events.jsonl";

/// The plan, in the directory of a run.
pub const PLAN: &str = "plan.json";

/// The lock, in the directory of a run.
pub const LOCK: &str = "lock";

/// The lines of a journal.
pub struct Journal {
    /// The lines.
    pub lines: Vec<Record<Line>>,
    /// The last line.
    pub(super) head: Option<Head>,
    /// Bytes of whole lines.
    pub(super) bytes: u64,
}

impl Journal {
    /// Reads the journal in the directory of a run; a killed runner may have left a part of a line, which is left out.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or a line is damaged.
    pub fn read(root: &Path) -> Result<Self, RunError> {
        let path = root.join(JOURNAL);
        let mut journal = Self { lines: Vec::new(), head: None, bytes: 0 };
        let unreadable = |why: JournalError| match why {
            JournalError::Read { path, source } => RunError::Read { path, source },
            why => RunError::Read { path: path.clone(), source: std::io::Error::other(why.to_string()) },
        };
        let lines = lines_of(&path).map_err(unreadable)?;
        for (number, line) in lines.text.lines().enumerate() {
            let damaged = |why: crate::record::ChainFault| RunError::Damaged {
                path: path.clone(),
                line: number + 1,
                why: why.to_string(),
            };
            let (record, head) = read::<Line>(line, journal.head.as_ref()).map_err(damaged)?;
            journal.lines.push(record);
            journal.head = Some(head);
        }
        journal.bytes = lines.text.len() as u64;
        Ok(journal)
    }

    /// BLAKE3 of the first line, which no other run has; empty before it.
    pub fn digest(&self) -> String {
        let first = self.lines.first().and_then(|record| serde_json::to_string(&record.entry).ok());
        first.map_or_else(String::new, |line| hex(&Blake3::of_bytes(line.as_bytes())))
    }

    /// The digest of the plan with which the run began.
    pub fn plan(&self) -> Option<String> {
        self.lines.iter().find_map(|record| match &record.entry.data {
            Event::Start { plan, .. } => Some(plan.clone()),
            _ => None,
        })
    }

    /// When the run succeeded, in RFC 3339; `None` if it did not, or goes on.
    pub fn finished(&self) -> Option<&str> {
        let last = &self.lines.last()?.entry;
        matches!(last.data, Event::End { ending: Ending::Succeeded }).then_some(last.time.as_str())
    }

    /// The events.
    pub fn events(&self) -> Vec<Event> {
        self.lines.iter().map(|record| record.entry.data.clone()).collect()
    }
}
