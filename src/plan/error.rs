//! What is wrong with a plan file.

use crate::settings::places::Place;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::PathBuf;

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
    #[error("{}{}: {at}: {why}", .path.display(), of(*.place))]
    Malformed { path: PathBuf, place: Option<Place>, at: String, why: String },
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
}
