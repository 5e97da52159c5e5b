//! Why no clients are selected.

use crate::fleet::error::FleetError;
use crate::telemetry::explain::Explain;
use std::collections::BTreeMap;

/// Why no clients are selected.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SelectError {
    #[error(
        "{eligible} clients may be selected, the round needs {needed}{}{}",
        excluded_text(excluded),
        unknown_text(unknown_tiers.as_deref())
    )]
    TooFew {
        eligible: usize,
        needed: usize,
        excluded: BTreeMap<String, usize>,
        /// Tiers that are asked for and that no client has, with those that exist.
        unknown_tiers: Option<String>,
    },
    #[error("{option} makes some clients more likely than others, expected none of it with {strategy}")]
    Uneven { option: &'static str, strategy: String },
    #[error("{option} is {found}, expected {expected}")]
    Value { option: &'static str, found: String, expected: String },
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

fn excluded_text(excluded: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = excluded.iter().map(|(why, count)| format!("{count} by {why}")).collect();
    if parts.is_empty() { String::new() } else { format!("; excluded: {}", parts.join(", ")) }
}

fn unknown_text(unknown: Option<&str>) -> String {
    unknown.map_or_else(String::new, |unknown| format!("; {unknown}"))
}

impl Explain for SelectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooFew { unknown_tiers: Some(_), .. } => Some(
                "name a tier that clients have; `fedmill clients tiers` sorts clients into tiers".to_owned(),
            ),
            Self::TooFew { excluded, .. } if excluded.is_empty() => {
                Some("register more clients, or ask for fewer".to_owned())
            }
            Self::TooFew { .. } => Some("ask for fewer clients, or lift a constraint".to_owned()),
            Self::Uneven { .. } => Some(
                "amplification by sampling holds only if each client takes part independently, at one rate"
                    .to_owned(),
            ),
            Self::Value { .. } => None,
            Self::Fleet(why) => why.hint(),
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::TooFew { .. })
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Fleet(why) => why.signal(),
            _ => None,
        }
    }
}
