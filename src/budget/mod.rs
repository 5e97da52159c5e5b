//! A privacy budget on disk.
//!
//! A state directory holds these files:
//!
//! - `ledger.jsonl`: the records. They are only ever appended.
//! - `plan.lock`: the frozen plan.
//! - `head`: the number and digest of the last record.
//! - `ledger.lock`: the lock that the one writer holds.
//! - `key-N`: the key of charge N, kept until its release, so that the same bytes can be made again.
//! - `outputs-N`: the names of the outputs of charge N, and how to publish them once they are complete.
//! - `run-key`, `clients-key`: the keys of a series, for its noise and for its lists of clients.
//! - `clients-T`, `noise-T`: the clients that count in round T of a series, and the noise of the latest rounds.
//!
//! A release takes these steps:
//!
//! ```text
//! open, locked --> key, names of outputs --> charge --> noise --> outputs complete, published --> release --> key wiped
//! ```
//!
//! Each step is on disk before the next. A process that is stopped after the charge leaves the charge in the ledger,
//! and the next run of the same request goes on with it: it makes the same bytes, at no cost. The output's [`stamp`]
//! names the charge, so that [`verify`] notices a ledger from an older backup. [`recover`] explains charges whose
//! release was not recorded.
//!
//! - [`directory`], [`books`]: the files, and the ledger as readers see it.
//! - [`account`]: the ledger as its one writer sees it.
//! - [`request`]: the request of a round, and the answers.
//! - [`charge`](mod@charge), `series`, `payment`: the charge of one release or of a series, and the steps of every charge.
//! - [`secure`]: the charge of a secure sum.
//! - [`kept`]: outputs on their way to their names.
//! - `clients`: the clients that count in each round of a series.
//! - [`error`]: why a budget cannot be used.

pub mod account;
pub mod books;
pub mod charge;
mod clients;
pub mod directory;
pub mod error;
pub mod kept;
mod payment;
pub mod recover;
pub mod request;
pub mod secure;
mod series;
pub mod stamp;
pub mod verify;
