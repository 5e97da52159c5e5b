//! One update as a file, whatever its encoding, and the set of updates that a run reads.
//!
//! [`open`] opens any update. The result reads like a plain model, and tiles of encoded tensors are decoded in place.
//! [`open_plain`] opens a model that must not be encoded. [`encoded`] checks the directory against the file, `streams`
//! finds the bytes, `part` decodes a run of a vector. [`metadata`] parses what a client says about its update.
//!
//! A [`set`] has the updates, base and layout of a run; a [`source`] has the places of a model's tensors, which
//! [`placement`] finds, or a [`fault`]; `names` tell why tensors do not fit. [`likely_kind`] tells deltas from weights.

pub mod encoded;
pub mod fault;
pub mod likely_kind;
pub mod metadata;
mod names;
mod part;
pub mod placement;
pub mod set;
pub mod source;
mod streams;

pub use encoded::{limits, open, open_plain, open_plain_within, open_to_merge, open_within};
