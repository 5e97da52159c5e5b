//! Admits updates to a run: who takes part, what each update must say and hold, and what each client weighs.
//!
//! [`admit`] opens and sorts updates, [`reference`] holds them against a layout, [`personal`] names layers that stay with
//! clients, [`weights`] weighs clients, [`sparse`] finds sparse updates that mislead a rule, [`fault`] says what is wrong.

pub mod admit;
pub mod fault;
pub mod personal;
pub mod reference;
pub mod sparse;
pub mod weights;
