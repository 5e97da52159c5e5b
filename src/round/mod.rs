//! One round, from update files to a published model.
//!
//! [`roster`] opens the updates and says who takes part, [`passes`] streams their tiles, [`combine`] is the
//! second pass, [`survey`] measures each update, and [`merge`] is the whole job in order.

pub mod combine;
pub mod fault;
pub mod inspect;
pub mod merge;
pub mod metadata;
pub mod passes;
pub mod roster;
pub mod survey;
pub mod weights;
