//! What the operator decides about the claims of updates: who sent them, and what they hold.

use crate::model::client_id::IdSource;
use crate::updates::metadata::UpdateKind;
use std::fmt;

/// What the run believes of what an update says of itself.
#[derive(Clone, Default, Debug)]
pub struct Claims {
    /// Whether no update's fault may depend on what another update states.
    pub judges_alone: bool,
    /// Whether an update that states no round is of this one, since its place says so.
    pub round_by_place: bool,
    /// What names the clients.
    pub client_id_from: ClientIdFrom,
    /// What the server does about updates of several clients with the same tensors.
    pub on_duplicate_content: OnDuplicateContent,
    /// The kind of all updates; `None` if their metadata decides.
    pub kind: Option<UpdateKind>,
    /// The most examples that count as a client's weight; `None` without `--max-examples`.
    pub max_examples: Option<f64>,
}

/// The operator's choice of what names clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ClientIdFrom {
    /// The metadata, else the stem; for a stem that updates of several folders have, the folder.
    #[default]
    Auto,
    /// One source for all updates.
    Only(IdSource),
}

impl fmt::Display for ClientIdFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Only(source) => source.name(),
        })
    }
}

/// What the server does about updates of several clients with the same tensors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OnDuplicateContent {
    /// Warns.
    #[default]
    Keep,
    /// All of them are bad updates: no one knows which came first.
    Reject,
}
