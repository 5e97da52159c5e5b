//! What is wrong with a message of another party. Each fault has a code for reports.

use crate::io::model_file::OpenFault;
use crate::model::faults::Faults;
use serde::{Deserialize, Serialize};

/// The fault of a message: why a client is left out, or a file is refused.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(tag = "code", content = "found", rename_all = "kebab-case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum MessageFault {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Format(String),
    #[error("metadata `{key}` is {found}, expected `{expected}`")]
    Metadata { key: String, found: String, expected: String },
    #[error("sender `{0}` is no {1} of the manifest")]
    UnknownSender(String, String),
    #[error("file is named {0}, expected {1}: the name of its sender")]
    Misnamed(String, String),
    #[error("tensor `{tensor}`: found {found}, expected {expected}")]
    Tensor { tensor: String, found: String, expected: String },
    #[error("signature is not one of `{0}` over this file")]
    Signature(String),
    #[error("the lanes do not have the digest that `{0}` signed")]
    LanesDigest(String),
    #[error("lane {lane} is {found}, expected a number below 4294967291")]
    OutsideField { lane: u64, found: u32 },
    #[error("the envelope for helper `{0}` does not open")]
    Envelope(String),
    #[error("seed {number} in the envelope for helper `{helper}` does not have its commitment")]
    Commitment { helper: String, number: usize },
    #[error("helper `{helper}` reported: {why}")]
    Reported { helper: String, why: String },
    #[error("the text is not in the form that fedmill writes")]
    OtherForm,
}

impl MessageFault {
    /// The fault of a file that does not open as safetensors.
    pub fn of_file(faults: &Faults<OpenFault>) -> Self {
        faults.first().map_or(Self::OtherForm, |fault| match fault {
            OpenFault::Unreadable(why) => Self::Unreadable(why.to_string()),
            fault => Self::Format(fault.to_string()),
        })
    }
}

/// A client that is left out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct LeftOutClient {
    /// Its id, or the name of its file.
    pub client: String,
    /// Why.
    pub fault: MessageFault,
}
