//! Admits updates to a run: which clients take part, and with which weights.
//!
//! [`opening`] opens the inputs: [`update`] reads one, [`identity`] names its client by the operator's [`claims`], and
//! [`copies`] finds the same tensors under several names. [`room`] bounds their memory together. [`admit`] checks them against the operator's [`policy`] and an
//! expected layout ([`reference`](mod@reference)). [`personal`] layers stay with clients. [`weights`] weighs clients, and
//! [`sparse`] finds sparse updates that mislead a rule. [`classes`] tells parameters, statistics and opaque tensors
//! apart, and [`opaque`] compares the bytes of the last. [`cohort`] holds what the clients report, [`taken`] is the
//! result, and [`fault`] lists what keeps an update out. [`lora`] knows adapters by their names. [`agreed`] is the value
//! that most updates state, such as the base that they name in [`bases`].

pub mod admit;
pub mod agreed;
pub mod bases;
pub mod claims;
pub mod classes;
pub mod cohort;
pub mod copies;
pub mod fault;
pub mod identity;
pub mod lora;
pub mod opaque;
pub mod opening;
pub mod personal;
pub mod policy;
pub mod reference;
pub mod room;
pub mod sparse;
pub mod taken;
pub mod update;
pub mod weights;
