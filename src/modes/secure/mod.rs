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
//! holds the terms. [`keys`] are who holds which seeds, and [`mask_stream`] adds masks. [`groups`] puts clients in groups,
//! and [`kept`] draws the values that all clients send. [`folder`] names the files of a session, and [`set`] is the frozen
//! set of clients. [`answers`] compares the answers of helpers, [`integers`] writes what was masked or summed, and [`parts`]
//! splits a sum or an answer over machines. [`privacy`] is the noise and the bound of clients in sessions under a budget,
//! [`norm`] bounds one client, and [`payment`] charges the budget.
//!
//! docs/secure.md has the mathematics and the threat model. Paper of the sharing: Cramer, Damgard and Ishai, TCC 2005.

pub mod answers;
pub mod check;
pub mod folder;
pub mod groups;
pub mod help;
pub mod integers;
pub mod kept;
pub mod keys;
pub mod manifest;
pub mod mask;
pub mod mask_stream;
pub mod norm;
pub mod open;
pub mod params;
pub mod parts;
pub mod payment;
pub mod privacy;
pub mod set;
pub mod simulate;
pub mod standing;
pub mod sum;
pub mod unmask;
pub mod verify;
