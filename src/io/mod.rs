//! The only room that opens files.
//!
//! Reading: [`discover`] finds updates, [`shards`] names the files of sharded models, [`shard_index`] reads what an
//! index says about them. [`header`] checks the claims of a safetensors header, [`limits`] bound it, and [`lookalike`]
//! knows files of other formats. [`source`] reads files in place, [`model_file`] joins headers and sources, [`digest`]
//! names content, [`digest::seal`] is the digest that a file carries, [`content`] is a model without its metadata.
//! Writing: [`publish`] makes whole files appear at once, [`model_writer`] streams a model into one, [`model_files`]
//! names its files, [`journal`] appends lines, [`secret`] keeps files for their owner alone, [`cache`] keeps small
//! files between runs, and [`folder`] the folders of a state directory. [`digest::store`] keeps files by their digests,
//! and [`child`] what commands print.
//!
//! [`collision`] keeps outputs off inputs. [`interrupt`] lets a signal end a run without leftovers, and [`crash`] ends
//! one where a test asks for it.
//! [`synthetic`] makes updates for measurements. [`text`] and [`machine`] are small; [`system`] finds what
//! is installed.

pub mod cache;
pub mod child;
pub mod collision;
pub mod content;
pub mod crash;
pub mod digest;
pub mod discover;
pub mod folder;
pub mod header;
pub mod interrupt;
pub mod journal;
pub mod limits;
pub mod lookalike;
pub mod machine;
pub mod model_file;
pub mod model_files;
pub mod model_writer;
pub mod publish;
pub mod secret;
pub mod shard_index;
pub mod shards;
pub mod source;
pub mod synthetic;
pub mod system;
pub mod text;
