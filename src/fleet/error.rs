//! Why a registry cannot be read or changed.

use crate::fleet::wait::PATIENCE;
use crate::io::interrupt::Interrupted;
use crate::io::machine;
use crate::io::model_writer::WriteError;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::{Path, PathBuf};

/// Why a registry cannot be read or changed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum FleetError {
    #[error("{}: there is no registry", .path.display())]
    Missing { path: PathBuf },
    #[error("{}: is not a registry of clients: {why}", .path.display())]
    Foreign { path: PathBuf, why: String },
    #[error("{}: the registry has version {found}, this fedmill reads versions up to {known}", .path.display())]
    OtherVersion { path: PathBuf, found: i64, known: i64 },
    #[error("{}: cannot be used: {holder}, and did so for {} s", .path.display(), PATIENCE.as_secs())]
    Busy { path: PathBuf, holder: String },
    #[error("{}: {source}", .path.display())]
    Sql { path: PathBuf, source: rusqlite::Error },
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Output(#[from] WriteError),
    #[error("{}: no client has id `{id}`", .path.display())]
    Unknown { path: PathBuf, id: String },
    #[error("{}: no agent is named `{name}`", .path.display())]
    UnknownAgent { path: PathBuf, name: String },
    #[error("{}: an agent is named `{name}` already: no agent was added", .path.display())]
    AgentExists { path: PathBuf, name: String },
    #[error("{}: line {line}: {why}", .path.display())]
    Broken { path: PathBuf, line: u64, why: String },
    #[error("{}: {bad} of {rows} rows are bad, expected none: no client was registered", .path.display())]
    BadRows { path: PathBuf, bad: u64, rows: u64 },
    #[error("{}: found no client, expected a JSON object for each client", .path.display())]
    NoClient { path: PathBuf },
    #[error("{}: the format is unknown, expected a name that ends in .json, .jsonl or .csv", .path.display())]
    NoFormat { path: PathBuf },
    #[error("{0}")]
    Scale(String),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl FleetError {
    /// The error of SQLite at a registry.
    pub(super) fn sql(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| {
            let holder = is_busy(&source).then(|| held_by(path, "holds the registry"));
            let path = path.to_owned();
            if let Some(holder) = holder {
                return Self::Busy { path, holder };
            }
            match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::NotADatabase) => {
                    Self::Foreign { path, why: "it is not an SQLite file".to_owned() }
                }
                _ => Self::Sql { path, source },
            }
        }
    }

    /// The error of a file.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Whether an error of SQLite says that another process holds the file.
pub(super) fn is_busy(why: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(why.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

/// The processes that hold a registry, as far as this machine knows them, and what they do.
pub(super) fn held_by(path: &Path, does: &str) -> String {
    let holders = machine::holders(path);
    match holders.is_empty() {
        true => format!("another process {does}"),
        false => format!("{} {does}", holders.join(" and ")),
    }
}

impl Explain for FleetError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } => "`fedmill clients add`, `clients import` and `agents add` make one",
            Self::OtherVersion { found, known, .. } if found > known => {
                "use the newer fedmill that wrote it, or restore a backup from before"
            }
            Self::OtherVersion { .. } => "export it with the fedmill that wrote it, and import it anew",
            Self::Busy { .. } => {
                "try again when that process has ended: another fedmill, or a program that reads or changes the file \
                 with SQLite"
            }
            Self::BadRows { .. } => {
                "correct these rows; `clients import --skip-bad` registers the others, and --update changes clients"
            }
            Self::AgentExists { .. } => "--update gives it the new description; it keeps its counts",
            Self::UnknownAgent { .. } => "`fedmill agents list` shows all agents",
            Self::NoFormat { .. } => "pass --format json, jsonl or csv",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Interrupted(interrupted) => Some(interrupted.signal),
            _ => None,
        }
    }
}
