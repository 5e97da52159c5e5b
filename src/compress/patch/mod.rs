//! Exact patches: a file that turns one model into another bit for bit, with all metadata.
//!
//! A server publishes a patch beside a model, and a client that has the model before downloads the patch instead. A
//! patch names both models by their BLAKE3 digests. It is a safetensors file that carries its own digest too.
//!
//! | what | file |
//! |---|---|
//! | the errors | [`error`] |
//! | what a patch file holds | `format` |
//! | a block of values against another, as bytes | `exact` |
//! | a model as its header and blocks of values | `side` |
//! | make a patch, and check it | [`make`](mod@make) |
//! | decode the blocks of a patch | `rebuild` |
//! | apply a patch | [`apply`](mod@apply) |

pub mod apply;
pub mod error;
mod exact;
mod format;
pub mod make;
mod rebuild;
mod side;

pub use apply::{apply, apply_within};
pub use error::PatchError;
pub use format::is_patch;
pub use make::{make, make_sized};
