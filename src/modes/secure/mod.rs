//! Secure aggregation: the server learns the sum of the clients' updates, and no update.
//!
//! A client adds a mask to its quantised update and sends it once. Helpers, of whom a threshold suffices, compute the sum of
//! all masks from seeds, and the server subtracts it. Every message is a signed file in the folder of a session:
//!
//! ```text
//! open --> mask (each client) --> check (helpers) --> sum --> help (t helpers) --> unmask --> mean of the updates
//! ```
//!
//! Those are the files [`open`], [`mask`], [`check`], [`sum`], [`help`] and [`unmask`]; [`verify`] audits a session,
//! [`simulate`] plays every role, [`params`] prints the costs, and [`standing`] says how far a session is. A [`manifest`]
//! holds the terms. [`keys`] are who signs and who holds which seeds, [`grid`] turns values into lanes, and [`mask_stream`]
//! adds masks. [`signed_text`] and [`signed_lanes`] are the two forms of files, [`folder`] names them, and [`set`] is the
//! frozen set of clients. [`answers`] compares the answers of helpers, [`reading`] reads an update against the base, and
//! [`integers`] writes what was masked or summed. [`journal`] is what a party remembers between runs. [`fault`] says what
//! is wrong with a file, and [`error`] why a command ended. `he` is homomorphic encryption, in builds with the feature
//! `he`.
//!
//! docs/secure.md has the mathematics and the threat model. Paper of the sharing: Cramer, Damgard and Ishai, TCC 2005.

pub mod answers;
pub mod check;
pub mod error;
pub mod fault;
pub mod folder;
pub mod grid;
#[cfg(feature = "he")]
pub mod he;
pub mod help;
pub mod integers;
pub mod journal;
pub mod keys;
pub mod manifest;
pub mod mask;
pub mod mask_stream;
pub mod open;
pub mod params;
pub mod reading;
pub mod set;
pub mod signed_lanes;
pub mod signed_text;
pub mod simulate;
pub mod standing;
pub mod sum;
pub mod unmask;
pub mod verify;

/// The name of the protocol, which every message carries.
pub const PROTOCOL: &str = "fedmill-secagg/1";

/// The name of the protocol of homomorphic encryption.
pub const HE_PROTOCOL: &str = "fedmill-he/1";
