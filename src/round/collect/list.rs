//! The list of a round: where each file of the inbox goes, and why. The list comes first.

use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::world::Files;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;

/// Where a file goes, and why.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Its path before.
    pub from: String,
    /// Its path behind the move.
    pub to: String,
    /// The client that the name of the file states.
    pub id: String,
    /// The round that it was put in for.
    pub round: u64,
    /// What it is.
    pub fate: Fate,
    /// What the system knew of the file as it was listed: with another value the path has another file. `None` for a folder,
    /// and in lists of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
}

/// What a file is.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The update of a client.
    Arrived {
        /// Seconds from the opening to the moment at which the file came to the server.
        after_s: f64,
    },
    /// An update that came too late for its round.
    Late,
    /// No update of the round.
    Rejected {
        /// The reason.
        why: String,
    },
    /// A folder. It stays where it is if it cannot be moved.
    Foreign {
        /// The reason.
        why: String,
    },
    /// An update that came too late for its round, and that no round merges.
    Stale {
        /// The reason.
        why: String,
    },
}

impl Move {
    /// Whether the file is the update of a client.
    pub fn has_arrived(&self) -> bool {
        matches!(self.fate, Fate::Arrived { .. })
    }

    /// Whether the file is the update of a client, in time or late.
    fn is_update(&self) -> bool {
        matches!(self.fate, Fate::Arrived { .. } | Fate::Late)
    }

    /// Whether the file was never moved or is gone since, and another one has its path.
    fn is_replaced(&self, files: &impl Files) -> bool {
        let Some(stamp) = &self.stamp else { return false };
        files.bytes(&self.to).is_err() && files.stamp(&self.from).is_ok_and(|found| found != *stamp)
    }
}

/// The file that says where the files of the inbox went.
const LIST: &str = "collect.json";

/// Reads the list of a round.
///
/// # Errors
///
/// When it cannot be read, or does not parse.
pub fn read(files: &(impl Files + ?Sized), round: u64) -> Result<Vec<Move>, RoundError> {
    let path = layout::of_round(round, LIST);
    let Some(bytes) = files.read(&path).map_err(RoundError::reading(&path))? else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes).map_err(|why| {
        let remedy = format!(
            "restore {path} from a backup. Or delete it, by `rm {path}` in the state directory: the next run takes the \
             updates in {} up again, as on time; nothing else is lost than the reasons of files in quarantine",
            layout::of_round(round, "updates")
        );
        RoundError::torn(&path, &why, "the list that fedmill wrote", remedy)
    })
}

/// Writes the list of a round.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(files: &mut impl Files, round: u64, moves: &[Move]) -> Result<(), RoundError> {
    let path = layout::of_round(round, LIST);
    let list = serde_json::to_vec(moves).unwrap_or_default();
    files.write(&path, &list).map_err(RoundError::writing(&path))
}

/// Carries out the moves of earlier runs, each for the file that was listed. Where another file has its path, an update
/// is decided anew, and the reason of a rejected file stays.
///
/// # Errors
///
/// When a file cannot be moved.
pub fn replay(files: &mut impl Files, moves: &mut Vec<Move>) -> Result<(), RoundError> {
    moves.retain(|moved| !(moved.is_update() && moved.is_replaced(files)));
    let whole: Vec<Move> = moves.iter().filter(|moved| !moved.is_replaced(files)).cloned().collect();
    carry_out(files, &whole)
}

/// A path in quarantine for a file. Where a restored list begins to count anew, the number follows the largest one.
pub fn quarantine_path(files: &(impl Files + ?Sized), round: u64, from: &str, number: usize) -> String {
    let folder = layout::of_round(round, "quarantine");
    let name = short(from.rsplit('/').next().unwrap_or_default());
    let path = |number: usize| format!("{folder}/{number:04}-{name}");
    if files.bytes(&path(number)).is_err() {
        return path(number);
    }
    let entries = files.list(&folder).unwrap_or_default();
    let numbers = entries.iter().filter_map(|entry| entry.name.split('-').next()?.parse::<usize>().ok());
    path(numbers.max().unwrap_or(number) + 1 + number)
}

/// The end of a name, which fits behind a number.
fn short(name: &str) -> &str {
    let from = name.len().saturating_sub(LONGEST_NAME);
    let from = (from..name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    &name[from..]
}

/// Bytes of a name in quarantine, without its number.
const LONGEST_NAME: usize = 200;

/// Whether a change failed because of the disk, and not of what it should change.
fn is_of_disk(why: &std::io::Error) -> bool {
    matches!(why.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::Other)
}

/// Moves files, unless an earlier run did. A client may have taken its file back.
///
/// # Errors
///
/// When one cannot be moved.
pub fn carry_out(files: &mut impl Files, moves: &[Move]) -> Result<(), RoundError> {
    let paths: Vec<(&str, &str)> = moves.iter().map(|moved| (&*moved.from, &*moved.to)).collect();
    let done = files.rename_all(&paths).map_err(RoundError::writing(layout::INBOX))?;
    done.into_iter().zip(moves).try_for_each(|(done, moved)| match done {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        // No client stops a round by a folder that only its owner may move.
        Err(why) if matches!(moved.fate, Fate::Foreign { .. }) && !is_of_disk(&why) => Ok(()),
        done => done.map_err(RoundError::writing(&moved.to)),
    })
}
