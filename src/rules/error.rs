//! Errors of rules and of the steps before them.

/// Why a rule cannot decide on these clients.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum RuleError {
    #[error("{rule} tolerates at most {most} hostile of {clients} clients, but --byzantine says {byzantine}")]
    TooManyByzantine { rule: String, byzantine: usize, clients: usize, most: usize },
    #[error(
        "{what} needs at least {least} clients, found {clients}: the fraction of them rounds down to no client"
    )]
    Unprotected { what: String, clients: usize, least: usize },
    #[error("{rule} needs at least {least} clients, found {clients}")]
    TooFewClients { rule: String, clients: usize, least: usize },
    #[error(
        "{rule} cuts {cut} values on each side of {clients}, which leaves none; the most it can cut is {most}"
    )]
    NothingLeft { rule: String, cut: usize, clients: usize, most: usize },
    #[error("{rule}: {key} is {found}, expected {expected}")]
    BadSetting { rule: String, key: &'static str, found: String, expected: String },
    #[error("{rule}: no client is called `{id}`; the trusted client must be among those merged")]
    NoSuchClient { rule: String, id: String },
    #[error(
        "{rule}: the search for the best {kept} of {clients} clients stopped after {work} {unit}; multi-krum, \
         and any rule after --pre nnm, withstand the same attacks without a search"
    )]
    TooMuchWork { rule: String, kept: usize, clients: usize, work: u64, unit: &'static str },
    #[error("{what} were not measured")]
    NotMeasured { what: &'static str },
    #[error("after --pre {steps}, which made {rows} updates of {clients}: {source}")]
    AfterPre { steps: String, rows: usize, clients: usize, source: Box<Self> },
}

impl RuleError {
    /// Whether the run would have no protection. The input is valid.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Unprotected { .. } => true,
            Self::AfterPre { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    /// Whether the rule could decide on other clients, or more of them.
    pub fn is_of_clients(&self) -> bool {
        match self {
            Self::TooManyByzantine { .. }
            | Self::Unprotected { .. }
            | Self::TooFewClients { .. }
            | Self::NothingLeft { .. }
            | Self::NoSuchClient { .. } => true,
            Self::AfterPre { source, .. } => source.is_of_clients(),
            Self::BadSetting { .. } | Self::TooMuchWork { .. } | Self::NotMeasured { .. } => false,
        }
    }

    /// Advice for the operator, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        self.is_refusal().then_some(
            "wait for more clients, give a count instead of the fraction, or pass --allow-unprotected to merge without \
             protection",
        )
    }
}
