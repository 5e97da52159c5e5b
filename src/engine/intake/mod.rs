//! Admits updates to a run: who takes part, what each update must say and hold, and what each client weighs.
//!
//! [`update`] opens updates, [`admit`] sorts them by the operator's [`policy`] against an expected layout ([`reference`](mod@reference)).
//! [`personal`] layers stay with clients. [`weights`] weighs clients, [`sparse`] finds sparse updates that mislead a rule,
//! [`cohort`] is what the clients report, [`taken`] the result, and [`fault`] says what keeps an update out.

pub mod admit;
pub mod cohort;
pub mod fault;
pub mod personal;
pub mod policy;
pub mod reference;
pub mod sparse;
pub mod taken;
pub mod update;
pub mod weights;
