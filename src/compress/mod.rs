//! Compresses one update to a byte or error budget, and decompresses it.
//!
//! | step of a run | file |
//! |---|---|
//! | the request and the order of the steps | [`run`], [`method`], `goal` |
//! | open and check the inputs | `inputs` |
//! | read the values: update minus base plus residual | [`values`], [`residual`] |
//! | map tensors to vectors and codecs | `parts` |
//! | encode chunk by chunk; a GPU may help | `encode`, `chunks`, `batches`, [`offload`] |
//! | lay the streams out in a file | [`writer`], `sink` |
//! | measure the error, and report | [`quality`], [`summary`], `attempt` |
//! | forecast the bytes from a layout | [`forecast`] |
//! | meet a target | `auto`, with estimates (`survey`) and a search over real files (`search`) |
//!
//! [`table`] compares all codecs on one update. [`decompress`] is the inverse of a run. [`error`] has the errors of a
//! run. [`patch`] turns one model into another without loss.

mod attempt;
mod auto;
mod batches;
mod chunks;
pub mod decompress;
mod encode;
pub mod error;
pub mod forecast;
mod goal;
mod inputs;
pub mod method;
pub mod offload;
mod parts;
pub mod patch;
pub mod quality;
pub mod residual;
pub mod run;
mod search;
mod sink;
pub mod summary;
mod survey;
pub mod table;
pub mod values;
pub mod writer;
