//! The server side of federated learning: client updates in, one merged model and a report out.
//!
//! Every rule is a function of statistics of the clients, or acts on each coordinate by itself. So no rule needs
//! the updates in memory: rules decide on statistics, and passes stream tiles.
//!
//! ```text
//! update files --open--> UpdateSet --statistics--> rule --> Recipe + Verdicts
//!                            |                                |
//!                            +--------tiles, pass 2-----------+--> merged tiles --> writer --> merged model
//!                                                                                  report
//! ```
//!
//! The rooms, in the order that data flows; arrows between them go one way, and a test holds them to it:
//!
//! - [`cli`]: arguments as typed, then resolved, then run; one file a subcommand.
//! - [`mod@bench`]: measures kernels and whole merges, on the CPU and on GPUs, side by side.
//! - [`round`]: one round from update files to a published model; streams the tiles.
//! - [`rules`]: one file an aggregation rule: statistics in, recipe out.
//! - [`strategies`]: one file a server strategy: merged delta and what is kept in, new model out.
//! - [`updates`]: one update as a file: opened however it is encoded, compressed, decompressed.
//! - [`codecs`]: one file an encoding: values to bytes and back.
//! - [`privacy`]: clipping to a grid, what releases cost, the records of a budget; no files.
//! - [`gpu`]: the same primitives as shaders; adapters, and the slots that tiles pass through.
//! - [`kernels`]: the numeric primitives, one file each, on every instruction set.
//! - [`model`]: dtypes, layouts, tiles; no files.
//! - [`io`]: the only room that opens files; called from `cli`, `bench`, `round` and `updates`.
//! - [`telemetry`]: the report, progress, messages; called from `cli`, `bench`, `round` and `updates`.

pub mod bench;
pub mod budget;
pub mod cli;
pub mod codecs;
pub mod compress;
pub mod engine;
pub mod gpu;
pub mod inspect;
pub mod io;
pub mod kernels;
pub mod model;
pub mod modes;
pub mod personalize;
pub mod privacy;
pub mod record;
pub mod rules;
pub mod settings;
pub mod strategies;
pub mod telemetry;
pub mod updates;
