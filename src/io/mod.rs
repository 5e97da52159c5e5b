//! The only room that opens files.
//!
//! [`discover`] finds updates, [`shards`] names the files of sharded ones, [`header`] checks what a safetensors file claims about itself, [`source`] reads files in
//! place, [`model_file`] puts header and sources together, [`digest`] names a file's content;
//! [`publish`] makes whole files appear at once, [`model_writer`] streams a model into one, and
//! [`interrupt`] lets a signal end a run without leaving anything behind. [`cache`] keeps small files from run to run. [`crash`] dies
//! where a test wants to see what that leaves. [`journal`] grows by a line at a time, [`secret`] is for
//! its owner alone.
//! [`synthetic`] makes updates to measure with; [`text`], [`memory`] and [`machine`] are small; [`system`] looks at what
//! is installed.

pub mod cache;
pub mod crash;
pub mod digest;
pub mod discover;
pub mod header;
pub mod interrupt;
pub mod journal;
pub mod machine;
pub mod memory;
pub mod model_file;
pub mod model_writer;
pub mod publish;
pub mod secret;
pub mod shards;
pub mod source;
pub mod synthetic;
pub mod system;
pub mod text;
