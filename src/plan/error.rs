//! What is wrong with a plan file.

use crate::schema::faults::Fault;
use crate::settings::places::Place;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::{Path, PathBuf};

/// The most faults of a plan that a message lists.
const MOST_LISTED: usize = 20;

/// A plan file that cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PlanError {
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: found {found} bytes, expected at most {most}", .path.display())]
    TooLarge { path: PathBuf, found: u64, most: u64 },
    #[error("{}{}: {at}: is no JSON: {why}", .path.display(), of(*.place))]
    NoJson { path: PathBuf, place: Option<Place>, at: String, why: String },
    #[error("{}: $.schema: found schema {found}, expected `fedmill.plan/1`", .path.display())]
    OtherSchema { path: PathBuf, found: String },
    #[error("{}{}", lines_of(path, faults).first().map_or("", String::as_str), others(faults))]
    Malformed { path: PathBuf, faults: Vec<(Option<Place>, Fault)> },
}

/// A line for each fault.
fn lines_of(path: &Path, faults: &[(Option<Place>, Fault)]) -> Vec<String> {
    let line = |(place, Fault { at, why }): &(Option<Place>, Fault)| {
        format!("{}{}: {at}: {why}", path.display(), of(*place))
    };
    faults.iter().map(line).collect()
}

/// How many faults there are beside the first.
fn others(faults: &[(Option<Place>, Fault)]) -> String {
    match faults.len() {
        0 | 1 => String::new(),
        2 => " (and 1 more fault)".to_owned(),
        count => format!(" (and {} more faults)", count - 1),
    }
}

/// A place behind the name of its file, as compilers write it.
pub fn of(place: Option<Place>) -> String {
    place.map_or_else(String::new, |place| format!(":{}:{}", place.line, place.column))
}

impl Explain for PlanError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::OtherSchema { .. } => Some("a newer fedmill may have written the plan".to_owned()),
            Self::Malformed { .. } => Some("`fedmill plan schema` prints what a plan may hold".to_owned()),
            _ => None,
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Malformed { path, faults } => {
                let mut lines = lines_of(path, faults);
                let more = lines.len().saturating_sub(MOST_LISTED);
                lines.truncate(MOST_LISTED);
                lines.extend((more > 0).then(|| format!("{}: found {more} more faults", path.display())));
                lines
            }
            _ => Vec::new(),
        }
    }
}
