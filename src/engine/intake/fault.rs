//! The faults that keep an update out of a run.

use crate::engine::intake::lora::is_factor;
use crate::engine::intake::opaque::REMEDY;
use crate::io::model_file::OpenFault;
use crate::model::client_id::{self, IdSource};
use crate::model::shown::Shown;
use crate::strategies::MissingMetadata;
use crate::updates::fault::{BadValue, Inexact, LayoutFault, Negative, NonFinite, Overflow, Unfit};
use crate::updates::metadata::{MetadataFault, OtherPurpose, SCAFFOLD_CONTROL, UpdateKind};
use std::io;
use std::path::PathBuf;

/// A fault that keeps an update out of a run.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Fault {
    #[error(transparent)]
    Open(#[from] OpenFault),
    #[error(transparent)]
    Metadata(#[from] MetadataFault),
    #[error(transparent)]
    OtherPurpose(#[from] OtherPurpose),
    #[error(
        "update lists {tensors} tensors in {bytes} bytes: such lists of all updates together would take more memory than expected, at most {} MiB beyond the bytes of their files", .most >> 20
    )]
    TooMuchMemory { tensors: usize, bytes: u64, most: u64 },
    #[error("update holds no tensor")]
    NoTensor,
    #[error("client id `{id}` is also the id of {}", .other.display())]
    DuplicateClient { id: String, other: PathBuf, by: IdSource },
    #[error("metadata `kind` is {found}, expected {expected} because of --kind {expected}")]
    ForcedKind { found: UpdateKind, expected: UpdateKind },
    #[error("update states no `kind` and looks like a delta: it is far nearer to zero than to the base")]
    LikelyDelta,
    #[error("metadata `client_id` is missing, expected it because --client-id-from is metadata")]
    NoClientId,
    #[error("metadata `client_id` is `{found}`, expected `{expected}` by --client-id-from {by}")]
    OtherClientId { found: String, expected: String, by: &'static str },
    #[error("client id `{id}` from the {by}: expected {}", client_id::EXPECTED)]
    BadClientId { id: String, by: &'static str },
    #[error("its tensors hold the same bytes as those of {}", .other.display())]
    SameContent { other: PathBuf },
    #[error("other updates claim the client id `{id}` too")]
    ClaimedTwice { id: String },
    #[error("metadata `round` is missing, expected {expected}, since other updates state theirs")]
    NoRound { expected: u64 },
    #[error("update is of round {found}, expected round {expected}")]
    OtherRound { found: u64, expected: u64 },
    #[error(
        "update of round {found} holds weights, expected `kind` `delta`, because round {expected} has another base"
    )]
    StaleWeights { found: u64, expected: u64 },
    #[error("update started from base {found}, expected {expected}")]
    OtherBase { found: String, expected: String },
    #[error("update holds a {found}, but most others hold {expected}; without --base both cannot be merged")]
    OtherKind { found: UpdateKind, expected: UpdateKind },
    #[error(transparent)]
    Layout(#[from] LayoutFault),
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    #[error(transparent)]
    Inexact(#[from] Inexact),
    #[error(transparent)]
    Negative(#[from] Negative),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Overflow(#[from] Overflow),
    #[error(
        "its values are too large: their squares do not fit f64, so its distance to other updates cannot be measured"
    )]
    TooLarge,
    #[error(
        "its values are too large: the largest, {}, does not fit f64 once the weights of all clients, {}, multiply it",
        Shown(*.value), Shown(*.weights)
    )]
    TooLargeToSum { value: f64, weights: f64 },
    #[error("metadata `num_examples` is missing, expected it for weighting by examples")]
    NoExamples,
    #[error(
        "metadata `{key}` is {}, expected a number from 0 to 2^53, as the weight",
        .found.as_ref().map_or_else(|| "missing".to_owned(), |found| format!("`{found}`"))
    )]
    NoNumber { key: String, found: Option<String> },
    #[error("client `{id}` has no weight in the weights file")]
    NoWeight { id: String },
    #[error(transparent)]
    Lacking(#[from] MissingMetadata),
    #[error(
        "update is encoded by {codec}: the client chose the {percent:.3} % of values that are sent, expected at least 50 %, or a choice that all clients share, for {rule}, which compares clients"
    )]
    OwnChoice { codec: &'static str, percent: f64, rule: String },
    #[error(
        "update is encoded by {codec} with another choice of values than most others, expected one that all clients share, for {rule}, which compares clients"
    )]
    OtherChoice { codec: &'static str, rule: String },
    #[error(
        "tensor `{tensor}` is opaque, and its bytes are not those of {from}{}: packed weights cannot be averaged",
        more_tensors(*.more)
    )]
    OpaqueDiffers { tensor: String, from: &'static str, more: usize },
    #[error("tensor `{tensor}` is opaque, but a codec encoded it, expected its bytes")]
    OpaqueEncoded { tensor: String },
    #[error("update is a sketch, expected tensors, which can be added to a base")]
    SketchOntoBase,
    #[error("update is {found}, expected {expected}")]
    OtherSketch { found: &'static str, expected: &'static str },
    #[error("update is a sketch, expected values for {rule}: sketches can only be averaged")]
    SketchUnderRule { rule: String },
    /// A fault of an input that only a mode reads.
    #[error("{fault}")]
    Mode { fault: Box<dyn std::error::Error + Send + Sync>, is_relative: bool, hint: Option<&'static str> },
    #[error("cannot be read: {0}")]
    Read(io::Error),
}

/// How the operator tells clients apart that share a name of this source.
fn other_names(by: IdSource) -> &'static str {
    match by {
        IdSource::Metadata => {
            "keep one of them, or name clients by what you choose: --client-id-from stem, parent or path"
        }
        IdSource::Stem => {
            "keep one of them, or name clients by their folders or paths: --client-id-from parent or path"
        }
        IdSource::Parent => "keep one of them, or name clients by their paths: --client-id-from path",
        IdSource::Path => "keep one of them",
    }
}

fn more_tensors(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (nor those of {more} more tensors)") }
}

impl From<BadValue> for Fault {
    fn from(found: BadValue) -> Self {
        match found {
            BadValue::NonFinite(found) => found.into(),
            BadValue::Inexact(found) => found.into(),
            BadValue::Unfit(found) => found.into(),
            BadValue::Negative(found) => found.into(),
        }
    }
}

impl Fault {
    /// Whether the fault depends on the other updates. Each admission finds such faults again, or no longer.
    pub fn is_relative(&self) -> bool {
        matches!(
            self,
            Self::DuplicateClient { .. }
                | Self::NoRound { .. }
                | Self::OtherRound { .. }
                | Self::StaleWeights { .. }
                | Self::OtherBase { .. }
                | Self::OtherKind { .. }
                | Self::Layout(_)
                | Self::SketchOntoBase
                | Self::OtherSketch { .. }
                | Self::Mode { is_relative: true, .. }
        )
    }

    /// Advice for the user where no other update could be merged, if there is any.
    pub fn hint_alone(&self) -> Option<&'static str> {
        match self {
            Self::Layout(LayoutFault::MissingTensor { .. }) => {
                Some("--missing base or present merges what the update has")
            }
            Self::Inexact(_) => {
                Some("pass --opaque PATTERN to copy a tensor that is the same in all updates")
            }
            Self::Unfit(_) => Some("pass --dtype for a model of a wider dtype"),
            other => other.hint(),
        }
    }

    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open(why) => why.hint(),
            Self::NoExamples => Some("pass --weights uniform, or a file of weights"),
            Self::DuplicateClient { by, .. } => Some(other_names(*by)),
            Self::OtherPurpose(fault) => fault.hint(),
            Self::Mode { hint, .. } => *hint,
            Self::OtherKind { .. } => Some("pass the model that the deltas started from as --base"),
            Self::StaleWeights { .. } => {
                Some("send the change from the model that the client started from, as a delta")
            }
            Self::OwnChoice { .. } => Some(
                "compress by randk, whose choice all clients share, or by a codec that sends all values, such as \
                 ecsq or eden; --allow-sparse-robust merges such updates all the same",
            ),
            Self::SketchOntoBase => Some(
                "merge the sketches without --base, decompress the result, and aggregate that onto the base",
            ),
            Self::LikelyDelta => Some(
                "clients state metadata `kind` = `delta`; if all updates are deltas, pass --kind delta, and if they are \
                 models, --kind weights",
            ),
            Self::OpaqueDiffers { .. } | Self::OpaqueEncoded { .. } => Some(REMEDY),
            Self::SketchUnderRule { .. } => Some("pass --rule mean, or decompress each update first"),
            Self::OtherChoice { .. } => Some(
                "compress the updates of a round with the same --seed and the same settings; --allow-sparse-robust \
                 merges them all the same",
            ),
            Self::Layout(LayoutFault::MissingTensor { tensor, .. })
                if tensor.starts_with(SCAFFOLD_CONTROL) =>
            {
                Some(
                    "with --strategy scaffold clients send the change of their control variates, one for each float",
                )
            }
            Self::Layout(LayoutFault::MissingTensor { .. }) => Some(
                "pass --on-bad-update skip to merge the others; --missing base or present merges what the update has",
            ),
            Self::Inexact(_) => Some(
                "pass --opaque PATTERN to copy a tensor that is the same in all updates, or --on-bad-update skip to \
                 merge the others",
            ),
            Self::Unfit(_) => {
                Some("pass --on-bad-update skip to merge the others, or --dtype for a model of a wider dtype")
            }
            Self::Layout(LayoutFault::Wrapped { .. } | LayoutFault::NotWrapped { .. }) => Some(
                "save the model inside its wrapper: model.module under DataParallel, model._orig_mod under torch.compile",
            ),
            Self::Layout(LayoutFault::TiedMissing { .. } | LayoutFault::TiedExtra { .. }) => {
                Some("all clients must tie the two weights, or none (tie_word_embeddings)")
            }
            Self::Layout(LayoutFault::ExtraTensor { tensor, .. }) if is_factor(tensor) => Some(
                "the update is a LoRA adapter: merge it into its weights first (merge_and_unload in PEFT)",
            ),
            Self::Layout(LayoutFault::ExtraTensor { tensor, .. }) if tensor.starts_with(SCAFFOLD_CONTROL) => {
                Some("pass --strategy scaffold, which takes the changes of control variates")
            }
            _ => None,
        }
    }
}
