//! One round, from update files to a published model.
//!
//! [`roster`] opens the updates and says who takes part ([`metadata`], [`weights`], [`fault`] are its words).
//! [`tiles`] cuts their layout, [`passes`] streams the tiles, each worker in its [`workspace`]; [`combine`] is the
//! second pass, [`survey`] measures each update. [`merge`] and [`inspect`] are the whole jobs, in order;
//! [`refusal`] says why a merge published nothing.

pub mod combine;
pub mod fault;
pub mod inspect;
pub mod merge;
pub mod metadata;
pub mod passes;
pub mod refusal;
pub mod roster;
pub mod survey;
pub mod tiles;
pub mod weights;
pub mod workspace;
