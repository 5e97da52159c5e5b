//! Compresses one update to a byte or error budget, and decompresses it.
//!
//! [`run`] is the way there: `inputs` are opened and checked; [`values`] reads what is sent, minus the base, plus what
//! earlier rounds left ([`residual`]); [`parts`] says which tensors become which vectors and by which codec; [`encode`]
//! encodes them chunk by chunk, and a GPU may help ([`offload`]); [`writer`] lays the streams out; [`quality`] measures
//! the error, and [`summary`] is the result in numbers. [`table`] tries every codec. [`decompress`] is the way back.
//!
//! To meet a target, [`auto`] makes the parts: [`survey`] estimates the size for each step of `ecsq`, [`search`] finds
//! the step by the sizes of real files.

pub mod auto;
pub mod decompress;
pub mod encode;
mod inputs;
pub mod offload;
pub mod parts;
pub mod quality;
pub mod residual;
pub mod run;
pub mod search;
pub mod summary;
pub mod survey;
pub mod table;
pub mod values;
pub mod writer;
