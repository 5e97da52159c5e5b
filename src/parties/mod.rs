//! What parties that do not trust each other share: identities, signed files, journals.
//!
//! [`identity`] names and signs, [`envelope`] seals bytes for one receiver, and [`hex`] is bytes as text. [`signed_text`] and
//! [`signed_lanes`] are the two forms of files. [`journal`] is what a party remembers between runs. [`tensors`] is the list
//! of tensors that all agree on, [`reading`] reads an update against the base, and [`grid`] makes integers of its values.
//! [`fault`] says what is wrong with a file, and [`error`] why a command ended.
//!
//! Secure aggregation and homomorphic encryption build on it.

pub mod envelope;
pub mod error;
pub mod fault;
pub mod grid;
pub mod hex;
pub mod identity;
pub mod journal;
pub mod reading;
pub mod signed_lanes;
pub mod signed_text;
pub mod tensors;

/// The name of the protocol of secure aggregation, which every message carries.
pub const SECAGG_PROTOCOL: &str = "fedmill-secagg/1";

/// The name of the protocol of homomorphic encryption.
pub const HE_PROTOCOL: &str = "fedmill-he/1";
