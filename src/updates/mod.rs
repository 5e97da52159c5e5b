//! One update as a file: opened however it is encoded, compressed, decompressed.
//!
//! [`open`] is how every update is opened: what it gives reads like a plain model, and tiles of tensors that are encoded
//! are decoded in place; [`open_plain`] opens what must not be encoded. [`encoded`] holds the directory against the
//! file, `streams` finds the bytes, `part` decodes any run of a vector. [`metadata`] is what updates say of themselves.
//!
//! [`compress`] is the way there: `inputs` are opened and checked; [`values`] reads what is sent, minus the base, plus what
//! earlier rounds left ([`residual`]); [`plan`] says which tensors become which vectors and by which codec; [`encode`]
//! runs the looks and the chunks, a [`device`] may help; [`file`](mod@file) lays the streams out; [`quality`] is how near
//! that is, and [`account`] all that is told of it. [`table`] does it with every codec. [`decompress`] is the way back.
//!
//! To meet a target, [`auto`] makes the plans: [`survey`] estimates what each step of `ecsq` comes to, [`search`] finds the
//! step by what files come to.

pub mod account;
pub mod auto;
pub mod compress;
pub mod decompress;
pub mod device;
pub mod encode;
pub mod encoded;
pub mod file;
mod inputs;
pub mod metadata;
mod part;
pub mod plan;
pub mod quality;
pub mod residual;
pub mod search;
mod streams;
pub mod survey;
pub mod table;
pub mod values;

pub use encoded::{open, open_plain, open_to_merge};
