//! Rounds that are paid for from a privacy budget.
//!
//! A state directory holds `ledger.jsonl`, to which records are only ever appended; `plan.lock`, the plan that was
//! frozen; `head`, where the ledger ends; `ledger.lock`, which one writer holds; and `key-N` while charge N may be run
//! again for the same bytes. [`directory`] reads it, [`account`] is what a run goes through:
//!
//! ```text
//! open, locked --> charge, on disk --> key drawn --> noise --> output published --> release, on disk --> key wiped
//! ```
//!
//! Where noise is correlated, rounds are one [`run`] that is paid for once. There are `run-key` and `clients-key`, whose bytes
//! noise and lists of clients come from, `clients-T` for each round and `noise-T` for the last ones.
//!
//! Cut off anywhere behind the charge, the charge stands. [`marks`] are what an output says of its charge, so that a
//! ledger that was taken from an older backup is noticed; [`verify`] checks everything, [`recover`] explains charges whose
//! release was not recorded.

pub mod account;
pub mod clips;
pub mod count;
pub mod directory;
pub mod edge;
mod gather;
mod history;
pub mod marks;
pub mod noise;
mod participants;
pub mod recover;
pub mod release;
pub mod run;
pub mod sum;
pub mod transaction;
pub mod verify;

pub use account::Account;
