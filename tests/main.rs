//! The integration tests: one binary, which runs the real `fedmill`.
//!
//! What belongs where:
//!
//! - `harness`: a fresh folder for each test, files good and broken, the program and what it said. No tests.
//! - `bad_input`: updates that cannot be merged, each refused, skipped, and counted against the quorum.
//! - `bad_file`: the same for files that are broken as files: headers and shard indexes.
//! - `bad_request`: everything else a run can ask for in vain: settings, outputs, bases, weights, disks.
//! - `dtypes`: every dtype, alone and mixed, against values computed by hand; deltas; what a merged file keeps.
//! - `output`: what a run leaves behind: shards, reports, messages, temporaries.
//! - `inspect`: what `fedmill inspect` shows and finds.
//! - `kill`: runs that are killed at random moments.
//! - `help`: the help texts, as snapshots.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_file;
mod bad_input;
mod bad_request;
mod dtypes;
mod harness;
mod help;
mod inspect;
mod kill;
mod output;
