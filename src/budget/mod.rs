//! A privacy budget on disk.
//!
//! A state directory holds `ledger.jsonl`, to which records are only ever appended; `plan.lock`, the plan that was
//! frozen; `head`, where the ledger ends; `ledger.lock`, which one writer holds; and `key-N` while charge N may be run
//! again for the same bytes. [`directory`] reads it, [`account`] is what a run goes through:
//!
//! ```text
//! open, locked --> charge, on disk --> key drawn --> noise --> output published --> release, on disk --> key wiped
//! ```
//!
//! Rounds with correlated noise are one [`series`] that is paid for once. `run-key` and `clients-key` are the keys of its
//! noise and of its lists of clients; `clients-T` stands for each round and `noise-T` for the last ones.
//!
//! A run that is cut off after the charge leaves the charge in the ledger. A [`stamp`] names the charge in the output, so
//! that [`verify`] notices a ledger from an older backup. [`recover`] explains charges whose release was not recorded.

pub mod account;
pub mod charge;
pub mod clients;
pub mod directory;
pub mod recover;
pub mod series;
pub mod stamp;
pub mod verify;

pub use account::Account;
