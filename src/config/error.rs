//! Why `fedmill.toml` cannot be used.

use crate::io::folder;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::{Path, PathBuf};

/// A fault of the file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// The line, from 1; `None` for a default that does not suit another value.
    pub line: Option<usize>,
    /// What was found, and what was expected.
    pub what: String,
}

/// Why the file cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ConfigError {
    #[error("{}: is missing", .path.display())]
    Missing { path: PathBuf },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}", lines(.path, .faults).join("; "))]
    Bad { path: PathBuf, faults: Vec<Fault> },
}

/// A line for each fault, with the path and the line of the file.
fn lines(path: &Path, faults: &[Fault]) -> Vec<String> {
    let line = |Fault { line, what }: &Fault| {
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        format!("{}{line}: {what}", path.display())
    };
    faults.iter().map(line).collect()
}

impl ConfigError {
    pub(super) fn of_file(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::File { path, source },
        }
    }
}

impl Explain for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { path } => {
                let directory = path.parent().unwrap_or(path);
                Some(match folder::is_folder(&directory.join("rounds")) {
                    true => {
                        "restore it from a backup: the rounds of this federation need its settings".to_owned()
                    }
                    false => {
                        format!("`fedmill round init {}` writes one with every key", directory.display())
                    }
                })
            }
            Self::File { .. } => None,
            Self::Bad { .. } => Some("docs/configuration.md has every key".to_owned()),
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Bad { path, faults } => lines(path, faults),
            _ => Vec::new(),
        }
    }
}
