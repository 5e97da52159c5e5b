//! Admits updates to a run: which clients take part, and with which weights.
//!
//! [`opening`] opens the inputs: [`update`] reads one, [`identity`] names its client by the operator's [`claims`], and
//! [`copies`] finds the same tensors under several names. [`admit`] checks them against the operator's [`policy`] and an expected layout
//! ([`reference`](mod@reference)). [`personal`] layers stay with clients. [`weights`] weighs clients, and [`sparse`]
//! finds sparse updates that mislead a rule. [`cohort`] holds what the clients report, [`taken`] is the result, and
//! [`fault`] lists what keeps an update out.

pub mod admit;
pub mod claims;
pub mod cohort;
pub mod copies;
pub mod fault;
pub mod identity;
pub mod opening;
pub mod personal;
pub mod policy;
pub mod reference;
pub mod sparse;
pub mod taken;
pub mod update;
pub mod weights;
