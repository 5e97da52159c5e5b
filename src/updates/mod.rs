//! One update as a file: opened however it is encoded, compressed, decompressed.
//!
//! [`open`] is how every update is opened: what it gives reads like a plain model, and tiles of tensors that are encoded
//! are decoded in place ([`encoded`]); [`open_plain`] opens what must not be encoded. [`compress`] is the way there: [`values`] reads what is sent (minus the base, plus
//! what earlier rounds left), [`plan`] says which tensors become which vectors and by which codec, or [`auto`] does to meet a target, [`encode`] runs the
//! looks and the chunks, [`file`] lays the streams out; [`device`] lends encoders a GPU. [`decompress`] is the way back. [`metadata`] is what updates say
//! of themselves.

pub mod auto;
pub mod compress;
pub mod decompress;
pub mod device;
pub mod encode;
pub mod encoded;
pub mod file;
pub mod metadata;
mod part;
pub mod plan;
pub mod quality;
pub mod residual;
mod streams;
pub mod table;
pub mod values;

pub use encoded::{open, open_plain, open_to_merge};
