//! The integration tests: one binary, which runs the real `fedmill`.
//!
//! What belongs where:
//!
//! - `harness`: a fresh folder for each test, files good and broken, the program and what it said. No tests.
//! - `bad_input`: updates that cannot be merged, each refused, skipped, and counted against the quorum.
//! - `bad_file`: the same for files that are broken as files: headers and shard indexes.
//! - `bad_request`: requests that cannot be met whatever the updates: settings, bases, weights, lists.
//! - `bad_output`: outputs that cannot be written, or must not be; full disks.
//! - `roster`: who takes part and what updates are held against: file names, client ids, the shared layout.
//! - `dtypes`: every dtype, alone and mixed, against values computed by hand.
//! - `deltas`: updates that are deltas, and what a merged file keeps of its base.
//! - `output`: what a run leaves behind: shards, reports, messages, temporaries.
//! - `partials`: trees of aggregators against one merge of all, and what partials are refused for.
//! - `tiers`: clients in tiers, each merged by its rule, against merges of each tier that are averaged in f64.
//! - `personal`: personal layers, left out of what is merged and measured, and kept as the base has them.
//! - `personalize`: the model of one client, against values worked out by hand.
//! - `hostile_updates`: encoded updates from attackers, cut off, changed at random, and made up.
//! - `inspect`: what `fedmill inspect` shows and finds.
//! - `compress`: updates compressed and decompressed, files to files, and encoded ones in a merge.
//! - `doctor`: what `fedmill doctor` shows, tests and advises.
//! - `bench`: what `fedmill bench` measures and draws; nothing timed is held to anything.
//! - `durability`: what commands publish is on disk before they say so, as `strace` sees it.
//! - `kill`: runs that are killed at random moments.
//! - `help`: the help texts, as snapshots.
//! - `reference`: the oracle, naive and in f64, and cases that show it right.
//! - `kernels`: every kernel against the oracle, on every instruction set.
//! - `gpu`: the GPU backend, on every adapter there is.
//! - `rules`: every rule, files to file, against the oracle; properties.
//! - `robust`: the same for the rules that judge whole clients: oracles, bounds, symmetries, the real round.
//! - `pre`: the steps before a rule, against their oracles; properties.
//! - `privacy`: what releases cost, how a budget is kept, and rounds that are paid for.
//! - `golden_rules`: rules, steps and metrics against vectors made by ByzFL, Flower and NumPy.
//! - `digests`: digests of outputs over a matrix of runs, against recorded ones.
//! - `same_bits`: file order, threads, instruction sets and reruns change no bit.
//! - `residual`: error feedback of clients on disk, against its definition, killed and run again.
//! - `resume`: rounds that keep a state, cut off before every durable step and run again.
//! - `state`: what centred clipping keeps between rounds.
//! - `strategies`: server strategies over ten rounds against the oracle.
//! - `shards`: rounds cut into shards, against the bytes of one process; partials that do not fit together.
//! - `quality`: the error of codecs for their bytes, on vectors of four distributions.
//! - `sparse`: codecs that send few values in merges, and rules that refuse them.
//! - `compressed_tensors`: files that compressed-tensors decodes, and what it is told.
//! - `upstream_mistakes`: what widely used code was seen to get wrong.
//! - `architecture`: the rules of the source: rooms and the arrows between them, circles, sizes, names, maps, prose.
//! - `fuzz_seeds`: the seeds of the fuzz targets.
//! - `tables`: the tables in `docs` that show a registry.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod architecture;
mod bad_file;
mod bad_input;
mod bad_output;
mod bad_request;
mod bench;
mod compress;
mod compressed_tensors;
mod deltas;
mod digests;
mod doctor;
mod dtypes;
mod durability;
mod fuzz_seeds;
mod golden_rules;
#[cfg(feature = "gpu")]
mod gpu;
mod harness;
mod help;
mod hostile_updates;
mod inspect;
mod kernels;
mod kill;
mod output;
mod partials;
mod personal;
mod personalize;
mod pre;
mod privacy;
mod quality;
mod reference;
mod residual;
mod resume;
mod robust;
mod roster;
mod rules;
mod same_bits;
mod shards;
mod sparse;
mod state;
mod strategies;
mod tables;
mod tiers;
mod upstream_mistakes;
