//! The integration tests: one binary, which runs the real `fedmill`.
//!
//! Each module has the tests of one subject:
//!
//! - `harness`: a fresh folder for each test, good and broken files, the program and its output. No tests.
//! - `rng`: numbers from a seed, for simulators. No tests.
//! - `bad_input`: updates that cannot be merged: refused, skipped, and counted against the quorum.
//! - `bad_file`: the same for files with a broken format: headers and shard indexes.
//! - `bad_request`: requests that fail with any updates: bad settings, bases, weights or lists.
//! - `bad_output`: outputs that cannot be written, or must not be; full disks.
//! - `roster`: the clients of a run, and the model that updates are compared with: file names, ids, layout.
//! - `dtypes`: every dtype, alone and mixed, against values computed by hand.
//! - `agents`: the registry of agents, their scores, and plans that get them.
//! - `clients`: the registry of clients, and who is selected, against exact probabilities.
//! - `classes`: statistics take the merged value, and opaque tensors are copied, whatever the server does.
//! - `deltas`: updates that are deltas, and the parts of a base that a merged file keeps.
//! - `outputs`: outputs that are inputs, links, pipes and devices; standard streams that cannot be written.
//! - `faults`: what file systems refuse, as `strace` plays it.
//! - `output`: the output of a run: shards, reports, messages, temporary files.
//! - `plots`: the plots of `aggregate` and `inspect`: what they show, and outputs that they refuse.
//! - `partials`: trees of aggregators against one merge of all updates, and refused partials.
//! - `partial_claims`: what a partial says of its round, its kind and its sums, held against the run.
//! - `hostile_updates`: encoded updates from attackers, cut off, changed at random, and made up.
//! - `identity`: what names a client, and what updates may claim of themselves.
//! - `hostile_statistics`: wild values of statistics, in the distances of rules and the lengths of strategies.
//! - `hostile_files`: files that ask for too much, act on the terminal, or are not what they seem.
//! - `many_clients`: rules that judge whole clients, for up to 300, against their definitions.
//! - `memory`: lists of tensors in memory: one table a layout, and a bound on all lists together.
//! - `inputs`: lists, tables and settings on the command line: pipes and devices in their place.
//! - `inspect`: the output of `fedmill inspect`.
//! - `compress`: updates compressed and decompressed, files to files, and encoded updates in a merge.
//! - `doctor`: the output of `fedmill doctor`: adapters, tests, advice.
//! - `bench`: the output of `fedmill bench`. No test compares times.
//! - `monitoring`: what rounds and runs export, read by Prometheus, node_exporter, TensorBoard, OpenTelemetry and a browser.
//! - `mutations`: files changed at random, through every command that reads them.
//! - `durability`: published files are on disk before the command reports them, as `strace` sees it.
//! - `kill`: runs that a signal ends at random moments.
//! - `he`: homomorphic encryption, in builds with the feature `he`: sums, and what each party refuses.
//! - `help`: the help texts, as snapshots.
//! - `reference`: the oracle, in f64 and without optimisation, and cases that check it.
//! - `kernels`: every kernel against the oracle, on every instruction set.
//! - `gpu`: the GPU backend, on every adapter.
//! - `round_config`: `fedmill.toml`: its keys, its faults, and settings that do not fit together.
//! - `rules`: every rule, files to file, against the oracle; properties.
//! - `robust`: rules that judge whole clients: oracles, bounds, symmetries, the real round.
//! - `patches`: exact patches between models, and what damaged or hostile ones do.
//! - `personal`: personal layers: neither merged nor measured.
//! - `personalize`: the model of one client: personal layers on the global body, or a mixture.
//! - `tiers`: tiers of clients, each with its own rule.
//! - `gaps`: updates that lack tensors of the model, against a naive merge of those that have them.
//! - `pre`: steps before a rule, against their oracles; properties.
//! - `protection`: fractions of few clients, quorums, lost states, reports of failed runs, very large values.
//! - `plan`: plan files, and the runner that executes them.
//! - `privacy`: the cost of releases, budgets, and rounds under a budget.
//! - `golden_rules`: rules, steps and metrics against vectors made by ByzFL, Flower and NumPy.
//! - `digests`: digests of outputs over a matrix of runs, against recorded ones.
//! - `same_bits`: file order, threads, instruction sets and reruns change no bit.
//! - `round`: the rounds of a federation, on the real program and in a simulated world.
//! - `residual`: error feedback of clients on disk, against its definition, killed and run again.
//! - `resume`: rounds that keep a state, killed before every durable step and run again.
//! - `state`: the state of centred clipping over several rounds.
//! - `strategies`: server strategies over ten rounds against the oracle.
//! - `secure`: secure aggregation: sessions, dishonest parties, damage, kills.
//! - `seals`: files that carry a digest: damage to any part of them is found.
//! - `shards`: rounds cut into shards, against the bytes of one process; shard files that do not fit together.
//! - `quality`: the error of codecs relative to their bytes, on vectors of four distributions.
//! - `shells`: completions in bash, fish and zsh, and pages of `man`.
//! - `sparse`: merges of codecs that send few values, and rules that refuse them.
//! - `compressed_tensors`: files that the library compressed-tensors decodes, and their configuration.
//! - `unfit`: finite values that the merged model cannot hold.
//! - `overflow`: values and claims that overflow the server's step, its state, or a sum.
//! - `upstream_mistakes`: mistakes seen in widely used code.
//! - `architecture`: the rules of the source: rooms and the arrows between them, circles, sizes, names, maps, prose.
//! - `fuzz_seeds`: the seeds of the fuzz targets.
//! - `tables`: the tables in `docs` that show a registry.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod agents;
mod architecture;
mod bad_file;
mod bad_input;
mod bad_output;
mod bad_request;
mod bench;
mod classes;
mod clients;
mod compress;
mod compressed_tensors;
mod deltas;
mod digests;
mod doctor;
mod dtypes;
mod durability;
mod faults;
mod fuzz_seeds;
mod gaps;
mod golden_rules;
#[cfg(feature = "gpu")]
mod gpu;
mod harness;
#[cfg(feature = "he")]
mod he;
mod help;
mod hostile_files;
mod hostile_statistics;
mod hostile_updates;
mod identity;
mod inputs;
mod inspect;
mod kernels;
mod kill;
mod many_clients;
mod memory;
mod monitoring;
mod mutations;
mod output;
mod outputs;
mod overflow;
mod partial_claims;
mod partials;
mod patches;
mod personal;
mod personalize;
mod plan;
mod plots;
mod pre;
mod privacy;
mod protection;
mod quality;
mod reference;
mod residual;
mod resume;
mod rng;
mod robust;
mod roster;
mod round;
mod round_config;
mod rules;
mod same_bits;
mod seals;
mod secure;
mod shards;
mod shells;
mod sparse;
mod state;
mod strategies;
mod tables;
mod tiers;
mod unfit;
mod upstream_mistakes;
