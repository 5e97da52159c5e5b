//! Why a run published no model.

use crate::engine::aggregate::geometry::GeometryError;
use crate::engine::aggregate::kinds::LikelyDeltas;
use crate::engine::aggregate::state::StateError;
use crate::engine::decide::source::JudgeError;
use crate::engine::intake::bases::TiedBases;
use crate::engine::intake::classes::NoTensor;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::opaque::{NothingShared, REMEDY};
use crate::engine::intake::personal::PersonalError;
use crate::engine::intake::update::{BadBase, Update};
use crate::engine::intake::weights::WeightsError;
use crate::engine::passes::error::PassError;
use crate::gpu::job::GpuError;
use crate::io::collision::Collision;
use crate::io::discover::DiscoverError;
use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::rules::RuleError;
use crate::strategies::{Strategy, StrategyError};
use crate::telemetry::explain::Explain;
use crate::telemetry::report::Report;
use std::path::PathBuf;

/// Why no model was published.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Error {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Base(#[from] BadBase),
    #[error("{}", .lines.join("; "))]
    BadUpdates { lines: Vec<String>, hint: Option<String> },
    #[error(transparent)]
    Personal(#[from] PersonalError),
    #[error(transparent)]
    Classes(#[from] NoTensor),
    #[error(transparent)]
    Opaque(#[from] NothingShared),
    #[error(transparent)]
    Kinds(#[from] LikelyDeltas),
    #[error(transparent)]
    Bases(#[from] TiedBases),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    #[error("{rule}: the update of `{id}` was left out: {fault}")]
    TrustedLeftOut { rule: String, id: String, fault: String, hint: Option<&'static str> },
    #[error("{strategy} moves the base, expected --base MODEL")]
    NoBase { strategy: String },
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error(
        "the updates are LoRA adapters or the like (`{one}` and `{other}`): merged one by one, the factors do not give the mean of \
         their products"
    )]
    LoraFactors { one: String, other: String },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error("{}: exists and is not a report, expected another path", .path.display())]
    NotAReport { path: PathBuf },
    #[error("the report cannot be written as JSON: {0}")]
    Report(serde_json::Error),
    #[error("{}: cannot be drawn: {why}", .path.display())]
    Plot { path: PathBuf, why: String },
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error("{why}, after the server's step of {strategy}")]
    Step { strategy: String, why: PassError },
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The error of a mode.
    #[error("{0}")]
    Mode(Box<dyn Explain>),
    /// The operator's policy refused the run: the input is valid.
    #[error("{0}")]
    Refused(String),
    /// The end of a run that had taken updates, with the report so far.
    #[error("{source}")]
    Reported { source: Box<Self>, report: Box<Report> },
}

/// An option that a mode does not support.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{option}{} {why}", .mode.map(|mode| format!(" under {mode}:")).unwrap_or_default())]
pub struct Unsupported {
    /// The option or the input.
    pub option: String,
    /// The option that selects the mode, if the message names it.
    pub mode: Option<&'static str>,
    /// The reason.
    pub why: String,
    /// Advice for the operator.
    pub hint: Option<&'static str>,
}

impl Unsupported {
    /// The refusal of an option that needs each client's values, in a run that reads partials, which hold sums.
    pub fn beyond_sums(option: impl ToString) -> Self {
        Self {
            option: option.to_string(),
            mode: None,
            why: "cannot be done with partials: it needs every client's values, and partials hold sums"
                .to_owned(),
            hint: Some(
                "split the run by coordinates instead: `fedmill gram`, `decide`, `combine` and `merge` see every client's \
                 values",
            ),
        }
    }
}

/// Why a run did not end in a report.
#[derive(Debug)]
pub enum Stopped {
    /// Bad updates and their faults, by index: the clients, then the other inputs.
    BadUpdates(Vec<(usize, Fault)>),
    /// Any other error.
    Error(Error),
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(why: E) -> Self {
        Self::Error(why.into())
    }
}

impl From<JudgeError<GeometryError>> for Stopped {
    fn from(why: JudgeError<GeometryError>) -> Self {
        match why {
            JudgeError::Rule(why) => why.into(),
            JudgeError::Strategy(why) => why.into(),
            JudgeError::TooLarge(clients) => {
                Self::BadUpdates(clients.into_iter().map(|client| (client, Fault::TooLarge)).collect())
            }
            JudgeError::Source(GeometryError::BadUpdates(found)) => Self::BadUpdates(found),
            JudgeError::Source(GeometryError::Pass(why)) => why.into(),
        }
    }
}

/// The advice for a run that has sound updates beside bad ones.
const MERGE_OTHERS: &str = "pass --on-bad-update skip to merge the others";

/// The words of such advice that stand for the sound updates.
const OTHERS: &str = "merge the others";

/// The most faults that an error message lists. It counts the others.
const MOST_LISTED: usize = 20;

impl Error {
    /// The error of a pass. Names the strategy if the server's step brought a value past the model's dtype.
    pub(super) fn of_step(why: PassError, strategy: &dyn Strategy) -> Self {
        match why {
            PassError::DoesNotFit { .. } if !strategy.is_plain() => {
                Self::Step { strategy: strategy.to_string(), why }
            }
            why => why.into(),
        }
    }

    /// The error that lists the faults of these updates; `others` is the number of sound ones.
    pub(super) fn bad_updates(bad: &[Update], others: usize) -> Self {
        let faults = || bad.iter().flat_map(|update| update.faults.iter().map(move |fault| (update, fault)));
        let line = |(update, fault): (&Update, &Fault)| format!("{}: {fault}", update.path.display());
        let mut lines: Vec<String> = faults().take(MOST_LISTED).map(line).collect();
        let all: usize = bad.iter().map(|update| update.faults.len()).sum();
        if let Some(more) = all.checked_sub(MOST_LISTED).filter(|more| *more > 0) {
            lines.push(format!("and {more} more faults in {} updates", bad.len()));
        }
        let hint = match others {
            0 => faults().find_map(|(_, fault)| fault.hint_alone()),
            _ => faults().find_map(|(_, fault)| fault.hint()).or(Some(MERGE_OTHERS)),
        };
        let counted = if others == 1 {
            "merge the other update".to_owned()
        } else {
            format!("merge the other {others} updates")
        };
        Self::BadUpdates { lines, hint: hint.map(|hint| hint.replace(OTHERS, &counted)) }
    }
}

impl Error {
    /// The report of the run so far; `None` if it had not taken updates.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Reported { report, .. } => Some(report),
            _ => None,
        }
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Rule(why) => why.hint().map(str::to_owned),
            Self::Reported { source, .. } => source.hint(),
            Self::BadUpdates { hint, .. } => hint.clone(),
            Self::TrustedLeftOut { hint, .. } => hint.map(str::to_owned),
            Self::Bases(_) => Some(TiedBases::HINT.to_owned()),
            Self::Personal(why) => why.hint().map(str::to_owned),
            Self::Opaque(_) => Some(REMEDY.to_owned()),
            Self::Base(why) => why.hint().map(str::to_owned),
            Self::LoraFactors { .. } => Some(
                "merge each adapter into its weights and send those (merge_and_unload in PEFT); if all clients share one of \
                 the two factors, pass --allow-lora-factors"
                    .to_owned(),
            ),
            Self::Unsupported(why) => why.hint.map(str::to_owned),
            Self::Write(WriteError::NoDirectory { path }) => Some(format!("mkdir -p {}", path.display())),
            Self::State(why) => why.hint(),
            Self::Gpu(why) => why.hint().map(str::to_owned),
            Self::Pass(why) => why.hint(),
            Self::Step { .. } => Some(
                "no update alone is that large: lower the strategy's learning rate, or use a base of a wider dtype"
                    .to_owned(),
            ),
            Self::Mode(why) => why.hint(),
            Self::Kinds(why) => why.hint(),
            _ => None,
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::BadUpdates { lines, .. } => lines.clone(),
            Self::Mode(why) => why.lines(),
            Self::Reported { source, .. } => source.lines(),
            _ => Vec::new(),
        }
    }

    fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Rule(why) => why.is_refusal(),
            Self::Mode(why) => why.is_refusal(),
            Self::Reported { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Reported { source, .. } => source.signal(),
            Self::Write(WriteError::Interrupted(Interrupted { signal })) => Some(*signal),
            Self::Pass(why) => why.signal(),
            Self::Mode(why) => why.signal(),
            _ => None,
        }
    }
}
