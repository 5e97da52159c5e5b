//! The server side of federated learning: client updates in, one merged model and a report out.
//!
//! Every rule is a function of statistics of the clients, or acts on each coordinate by itself. So no rule needs the
//! updates in memory: rules decide on statistics, and passes stream tiles. docs/architecture.md walks one update through.
//!
//! ```text
//! update files --intake--> UpdateSet --pass 1--> geometry --decide--> recipe, verdicts
//!                              |                                        |
//!                              +--------------- pass 2 -----------------+--> model, state, report
//! ```
//!
//! The rooms (the top-level modules) from the top down. A room uses only rooms below it; `tests/architecture` checks
//! this:
//!
//! - [`cli`]: arguments as typed become a request; one file per subcommand. `options`: the options that
//!   subcommands share. [`mod@bench`]: times kernels and merges. [`doctor`]: examines the devices of the machine.
//! - [`round`]: the rounds of a federation, phase by phase, on a state directory. [`config`]: its `fedmill.toml`, and
//!   [`mod@lint`]: what does not fit together in it. [`fleet`]: its clients, and who is selected.
//! - [`templates`]: makes plans. [`review`]: looks at plans without running them. [`watch`]: looks at runs, and
//!   ends them. [`tasks`]: plans that another program schedules, task by task. [`plan`]: workflows as files, and their
//!   runner. [`endpoint`]: requests to the servers and models that a plan asks. [`language`]: the conditions and
//!   references in a plan. [`schema`]: the types of a plan. [`tuning`]: how a loop's parameter is changed.
//!   [`measures`]: what describes a round or a run as a whole.
//! - [`modes`]: where a run may differ from the plain run: `tiers`, `gaps`, `tree`, `shards`, `dp`, `secure`, `he`.
//!   No mode knows another.
//! - [`engine`]: one aggregate run, in the order of the data: `intake` admits updates, `passes` stream tiles, `decide`
//!   judges, `aggregate` is the run; `backend` chooses the CPU or the GPU.
//! - [`compress`], [`inspect`], [`personalize`]: other jobs on updates. [`budget`]: a privacy budget on disk.
//! - [`parties`]: what parties that do not trust each other share: keys, signatures, journals, updates as integers.
//! - [`updates`]: one update, however it is encoded, and the set of a run.
//! - [`strategies`], [`rules`], [`codecs`], [`privacy`]: the mathematics, one file per idea; no files, no clocks.
//! - [`gpu`] and [`kernels`]: the numeric primitives, as shaders and on every instruction set.
//! - [`io`]: the only room that opens files. [`telemetry`]: report, progress, messages. [`record`]: sealed lines.
//!   [`parallel`]: loops whose results depend on no thread. [`settings`]: `name:key=value`. [`model`]: dtypes, layouts,
//!   tiles, state tensors.

pub mod bench;
pub mod budget;
pub mod cli;
pub mod codecs;
pub mod compress;
pub mod config;
pub mod doctor;
pub mod endpoint;
pub mod engine;
pub mod fleet;
pub mod gpu;
pub mod inspect;
pub mod io;
pub mod kernels;
pub mod language;
pub mod lint;
pub mod measures;
pub mod model;
pub mod modes;
mod options;
pub mod parallel;
pub mod parties;
pub mod personalize;
pub mod plan;
pub mod privacy;
pub mod record;
pub mod review;
pub mod round;
pub mod rules;
pub mod schema;
pub mod settings;
pub mod strategies;
pub mod tasks;
pub mod telemetry;
pub mod templates;
pub mod tuning;
pub mod updates;
pub mod watch;
