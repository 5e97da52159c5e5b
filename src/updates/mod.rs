//! One update as a file, opened however it is encoded.
//!
//! [`open`] opens every update: the result reads like a plain model, and tiles of encoded tensors are decoded in place;
//! [`open_plain`] opens a model that must not be encoded. [`encoded`] checks the directory against the file, `streams`
//! finds the bytes, `part` decodes a range of a vector. [`metadata`] is what updates say about themselves.

pub mod encoded;
pub mod fault;
pub mod metadata;
pub mod part;
pub mod placement;
pub mod set;
pub mod source;
pub mod streams;

pub use encoded::{open, open_plain, open_to_merge};
