//! Why a round stopped.

use crate::io::interrupt::Interrupted;
use crate::io::journal::JournalError;
use crate::round::layout;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::PathBuf;

/// Why a round stopped.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum RoundError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path}: cannot be written: {source}")]
    Write { path: String, source: io::Error },
    #[error("{}: holds no federation, expected {} and {}/", .directory.display(), layout::CONFIG, layout::ROUNDS)]
    NoState { directory: PathBuf },
    #[error("{}: holds a federation already", .directory.display())]
    Exists { directory: PathBuf },
    #[error("{}: another command runs here: {holder}", .directory.display())]
    Locked { directory: PathBuf, holder: String },
    #[error("{path}: line {line} is damaged or was changed: {fault}")]
    Damaged { path: String, line: usize, fault: String },
    #[error("{path}: found format {found}, this version of fedmill knows formats up to {known}")]
    Newer { path: String, found: u32, known: u32 },
    #[error("{path}: found {found}, expected {expected}")]
    Unexpected { path: String, found: String, expected: String },
    #[error("{path}: found {found}, expected {expected}")]
    Torn { path: String, found: String, expected: String, remedy: String },
    #[error(
        "the journal ends at round {journal}, and {found}: a part of the state directory is from a backup"
    )]
    Restored { journal: u64, found: String },
    #[error("{}: found a file, expected a link to {}", layout::CURRENT, layout::model(.current))]
    NoLink { current: String },
    #[error("{}: {key}: {why}", layout::CONFIG)]
    Setting { key: &'static str, why: String },
    #[error("{}: {key} is {found}: {why}{}", layout::CONFIG, and_more(.more))]
    Lint { key: &'static str, found: String, why: String, more: usize },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Work(Box<dyn Explain>),
}

fn and_more(more: &usize) -> String {
    if *more == 0 { String::new() } else { format!(" (and {more} more)") }
}

impl RoundError {
    /// The error of a file that cannot be read.
    pub(crate) fn reading(path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    /// The error of a file of fedmill that does not parse, as a disk that lost its last writes may leave it. `remedy` says
    /// which file to restore or delete, and what is then lost.
    pub(crate) fn torn(path: &str, why: &serde_json::Error, expected: &'static str, remedy: String) -> Self {
        let found = match why.is_eof() && why.column() == 0 {
            true => "an empty file".to_owned(),
            false => why.to_string(),
        };
        Self::Torn { path: path.to_owned(), found, expected: expected.to_owned(), remedy }
    }

    /// The error of a file that cannot be written.
    pub(crate) fn writing(path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    /// The error of a setting that cannot be used.
    pub(crate) fn setting<E: std::fmt::Display>(key: &'static str) -> impl Fn(E) -> Self {
        move |why| Self::Setting { key, why: why.to_string() }
    }

    /// The error of another room.
    pub(crate) fn work(why: impl Explain) -> Self {
        Self::Work(Box::new(why))
    }

    /// The error of a current model that is a file, in place of a link into the store. `current` is the digest of the
    /// model that the journal knows as current.
    pub(crate) fn no_link(current: &str) -> Self {
        Self::NoLink { current: current.to_owned() }
    }

    /// The reason, if the operator's policy refused what is valid; else the error.
    pub(crate) fn refusal(self) -> Result<String, Self> {
        match self {
            Self::Refused(why) => Ok(why),
            Self::Work(why) if why.is_refusal() => Ok(why.to_string()),
            other => Err(other),
        }
    }
}

impl Explain for RoundError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoState { directory } => {
                Some(format!("`fedmill round init {}` makes one", directory.display()))
            }
            Self::Newer { .. } => Some("use the version of fedmill that wrote it, or a later one".to_owned()),
            Self::Damaged { .. } => {
                Some("restore the state directory from a backup; docs/rounds.md says how".to_owned())
            }
            Self::Torn { remedy, .. } => Some(remedy.clone()),
            Self::Restored { .. } => Some(
                "restore the whole state directory from one backup; docs/rounds.md says how to go on without"
                    .to_owned(),
            ),
            Self::NoLink { current } => Some(format!(
                "move the file away, and make the link anew in the state directory: `ln -s {} {}`; a copy of the directory \
                 must keep links (`rsync -l`)",
                layout::model(current),
                layout::CURRENT
            )),
            Self::Lint { .. } => {
                Some("`fedmill round check DIR` lists all findings, each with its remedy".to_owned())
            }
            Self::Work(why) => why.hint(),
            _ => None,
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Work(why) => why.lines(),
            _ => Vec::new(),
        }
    }

    fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Locked { .. } | Self::Lint { .. } => true,
            Self::Work(why) => why.is_refusal(),
            _ => false,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Work(why) => why.signal(),
            Self::Journal(JournalError::Interrupted(Interrupted { signal })) => Some(*signal),
            _ => None,
        }
    }
}
