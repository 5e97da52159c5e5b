//! The command line: one file per subcommand, with its arguments and the call that runs it.
//!
//! A subcommand is its file, a `mod` line and a row of `subcommands!`. Subcommands share `aggregation`, `classes`
//! and `reporting` (options), `failure` and `usage` (exit status) and
//! `rates` (the table of codecs).

/// Declares subcommands: the name, the arguments, and the common options that the subcommand reads.
macro_rules! subcommands {
    ($($name:ident: $arguments:ty, reads [$($options:expr),*];)*) => {
        #[derive(clap::Subcommand, Debug)]
        pub(in crate::cli) enum Command {
            $($name(Box<$arguments>),)*
        }

        impl Command {
            /// The name of each subcommand, and the common options that it reads.
            pub(in crate::cli) const READS: crate::cli::Reads = &[$((stringify!($name), &[$($options),*]),)*];

            pub(in crate::cli) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
                match self {
                    $(Self::$name(arguments) => arguments.run(common),)*
                }
            }
        }
    };
}

mod agents;
mod aggregate;
mod aggregation;
mod bench;
mod classes;
mod clients;
mod completions;
mod compress;
mod decompress;
mod doctor;
mod failure;
mod inspect;
mod man;
mod personalize;
mod plan;
mod privacy;
mod rates;
mod reporting;
mod round;
mod secagg;
mod shards;
mod usage;

use crate::compress::offload::Offload;
use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::intake::claims::{Claims, ClientIdFrom, OnDuplicateContent};
use crate::engine::passes::machine::Machine;
use crate::gpu;
use crate::io::collision::{arguments, target};
use crate::io::interrupt;
use crate::kernels::lanes::Isa;
use crate::model::client_id::IdSource;
use crate::settings::size;
use crate::telemetry::console::{self, LogFormat, print_account, print_path};
use crate::telemetry::progress::Progress;
use crate::updates::metadata::UpdateKind;
use clap::{
    Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, ValueEnum, value_parser,
};
use failure::Failure;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tracing::Level;

/// The groups of options in the help.
const INPUTS: &str = "Inputs";
const RULE: &str = "Rule";
const SERVER_STEP: &str = "Server step";
const PRIVACY: &str = "Privacy";
const CODEC: &str = "Codec";
const OUTPUT: &str = arguments::HEADING;
const COMMON: &str = "Common";

/// Names of subcommands, each with the sets of common options that it reads.
type Reads = &'static [(&'static str, &'static [&'static [&'static str]])];

/// Sets of common options. The help of a subcommand shows [`CONSOLE`] and the sets that its row names.
const CONSOLE: &[&str] = &["quiet", "verbose", "log_format"];
const BACKEND: &[&str] = &["backend"];
const GPU: &[&str] = &["adapter", "gpu_slots", "gpu_checks"];
const CPU: &[&str] = &["threads", "isa"];

/// The most threads and the most tiles on a GPU at once that a command line may ask for. A system without room for them
/// would end the run.
const MOST_THREADS: i64 = 1024;
const MOST_SLOTS: i64 = 256;

/// The server side of federated learning: reads files, writes files.
///
/// Exit status: 0 for success, 1 if a limit or a check refused a valid input, 2 for an error. The command publishes its
/// output only with status 0.
#[derive(Parser, Debug)]
#[command(
    name = "fedmill",
    version,
    max_term_width = 100,
    disable_help_flag = true,
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

subcommands! {
    Aggregate: aggregate::Arguments, reads [BACKEND, GPU, CPU];
    Inspect: inspect::Arguments, reads [BACKEND, GPU, CPU];
    Compress: compress::Arguments, reads [BACKEND, GPU, CPU];
    Decompress: decompress::Arguments, reads [BACKEND, GPU, CPU];
    Personalize: personalize::Arguments, reads [CPU];
    Privacy: privacy::Arguments, reads [];
    Secagg: secagg::Arguments, reads [];
    Clients: clients::Arguments, reads [];
    Agents: agents::Arguments, reads [];
    Round: round::Arguments, reads [];
    Plan: plan::Arguments, reads [];
    Doctor: doctor::Arguments, reads [GPU, CPU];
    Bench: bench::Arguments, reads [BACKEND, GPU, CPU];
    Gram: shards::gram::Arguments, reads [BACKEND, GPU, CPU];
    Decide: shards::decide::Arguments, reads [CPU];
    Combine: shards::combine::Arguments, reads [BACKEND, GPU, CPU];
    Merge: shards::merge::Arguments, reads [CPU];
    Completions: completions::Arguments, reads [];
    Man: man::Arguments, reads [];
}

/// The place of the first option in the help, behind all positional arguments.
const OPTIONS_FROM: usize = 1000;

/// Options of every subcommand.
#[derive(Args, Debug)]
#[command(next_help_heading = COMMON)]
struct Common {
    /// Where to compute. gpu never falls back to the CPU. auto takes a GPU if the forecast says that it is faster.
    #[arg(long, global = true, value_name = "BACKEND", default_value = "auto")]
    backend: BackendOption,
    /// Use the GPU whose name contains NAME. Software adapters are used only if this option names them.
    #[arg(long, global = true, value_name = "NAME")]
    adapter: Option<String>,
    /// The number of tiles on the GPU at once.
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=MOST_SLOTS))]
    gpu_slots: Option<u16>,
    /// Keep the bounds checks and loop checks in shaders.
    #[arg(long, global = true)]
    gpu_checks: bool,
    /// The number of worker threads [default: one per processor].
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=MOST_THREADS))]
    threads: Option<u16>,
    /// The CPU instruction set, such as portable [default: the best that this processor has].
    #[arg(long, global = true, value_name = "SET", value_parser = parse_isa)]
    isa: Option<Isa>,
    /// Print errors only.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print each step.
    #[arg(long, short, global = true)]
    verbose: bool,
    /// The format of messages.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum BackendOption {
    Auto,
    Cpu,
    Gpu,
}

fn parse_isa(name: &str) -> Result<Isa, String> {
    let known = || Isa::available().iter().map(Isa::to_string).collect::<Vec<_>>().join(", ");
    Isa::named(name).ok_or_else(|| format!("this processor has {}", known()))
}

/// How a subcommand ended without an error.
enum Outcome {
    /// It succeeded: exit status 0.
    Done,
    /// A limit or check of the user refused the input, with the reason: exit status 1.
    Refused(String),
    /// It has to wait for others, with the reason: exit status 1.
    Waiting(String),
}

/// Parses the command line, runs the command, and returns its exit status.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = command();
    let parsed = command.try_get_matches_from_mut(&arguments);
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(why) => return usage::tell(&why, &arguments),
    };
    cli.common.install_console();
    if let Err(why) = arguments::check_line(&command, &matches) {
        usage::write_report(&arguments, why.to_string());
        return Failure::from(why).tell();
    }
    if let Err(why) = leave_standard_output(&command, &matches) {
        return why.tell();
    }
    match cli.execute() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused(why)) => {
            tracing::error!("refused: {why}");
            ExitCode::from(1)
        }
        Ok(Outcome::Waiting(why)) => {
            if !cli.common.quiet {
                console::tell(&format!("waiting: {why}"));
            }
            ExitCode::from(1)
        }
        Err(failure) => failure.tell(),
    }
}

impl Cli {
    fn execute(&self) -> Result<Outcome, Failure> {
        interrupt::listen()?;
        self.command.run(&self.common)
    }
}

impl Common {
    fn install_console(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => Level::ERROR,
            (_, true) => Level::INFO,
            _ => Level::WARN,
        };
        console::install(level, self.log_format);
    }

    fn pool(&self) -> Result<ThreadPool, Failure> {
        let threads = self.threads.map_or(0, usize::from);
        // Rules decide on these threads, and kernels run below them: they have the stack of a main thread.
        Ok(ThreadPoolBuilder::new().num_threads(threads).stack_size(8 << 20).build()?)
    }

    /// The GPU to use, with the options for it.
    fn gpu_options(&self) -> gpu::job::Options {
        gpu::job::Options {
            // Other programs on wgpu read the same variable.
            adapter: self.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok()),
            checked: self.gpu_checks,
            slots: self.gpu_slots.map(usize::from),
            ..gpu::job::Options::default()
        }
    }

    fn backend_name(&self) -> BackendName {
        match self.backend {
            BackendOption::Auto => BackendName::Auto,
            BackendOption::Cpu => BackendName::Cpu,
            BackendOption::Gpu => BackendName::Gpu,
        }
    }

    /// The backend that the user asked for. With `explain`, the run prints the forecast.
    fn backend(&self, explain: bool) -> BackendRequest {
        let options = self.gpu_options();
        BackendRequest { options, explain, ..BackendRequest::new(self.backend_name()) }
    }

    /// Refuses `--backend gpu` for a command that has no work for a GPU.
    fn refuse_gpu(&self, command: &str) -> Result<(), Failure> {
        match self.backend_name() {
            BackendName::Gpu => Err(Failure::no_gpu(command)),
            BackendName::Auto | BackendName::Cpu => Ok(()),
        }
    }

    /// The GPU for the codecs of a command, if `--backend gpu` asks for it.
    fn offload(&self, command: &str) -> Result<Option<Arc<Offload>>, Failure> {
        match self.backend_name() {
            BackendName::Cpu => Ok(None),
            BackendName::Auto => {
                tracing::info!("{command} runs on the CPU; --backend gpu runs codecs with shaders on a GPU");
                Ok(None)
            }
            BackendName::Gpu => {
                let opened = Offload::open(&self.gpu_options());
                opened.map(Some).map_err(|why| Failure { hint: why.hint().map(str::to_owned), ..why.into() })
            }
        }
    }

    /// The processor's instruction set, threads and progress bar for a run.
    fn machine<'m>(&self, pool: &'m ThreadPool, progress: &'m Progress) -> Machine<'m> {
        Machine::new(self.isa(), pool, progress)
    }

    fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::detect)
    }

    fn progress(&self) -> Progress {
        let plain = self.quiet || self.verbose || self.log_format == LogFormat::Json;
        if plain { Progress::hidden() } else { Progress::on_terminal() }
    }
}

/// The updates to read.
#[derive(Args, Debug)]
struct UpdatePaths {
    /// Update files (.safetensors), indexes of sharded updates (.safetensors.index.json), or directories of them.
    #[arg(value_name = "UPDATE", help_heading = INPUTS)]
    updates: Vec<PathBuf>,
    /// Read more update paths from FILE, one per line. `-` is standard input.
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    files_from: Option<PathBuf>,
    /// What names the client of an update: auto, metadata, stem, parent or path.
    ///
    /// metadata is `client_id`. stem is the name of the file without its ending, parent the name of its folder, and
    /// path the path as given. With those three, a `client_id` that differs is a fault. auto takes the metadata, else
    /// the stem; if updates of several folders have one stem, it takes the folder.
    #[arg(long, value_name = "SOURCE", default_value = "auto", hide_possible_values = true, help_heading = INPUTS)]
    client_id_from: IdOption,
    /// What the updates hold: auto takes the word of their metadata.
    ///
    /// With auto an update is weights unless its metadata says `delta`. One that says nothing and looks like a delta of
    /// the base is a bad update; if most are such, the run ends. With weights or delta, metadata that says otherwise is
    /// a fault.
    #[arg(long, value_name = "KIND", default_value = "auto", hide_possible_values = true, help_heading = INPUTS)]
    kind: KindOption,
    /// What to do with updates of several clients whose tensors hold the same bytes: keep warns, reject leaves all of
    /// them out as bad updates.
    #[arg(long, value_name = "ACTION", default_value = "keep", help_heading = INPUTS)]
    on_duplicate_content: CopyOption,
}

/// What names the client of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum IdOption {
    Auto,
    Metadata,
    Stem,
    Parent,
    Path,
}

/// What the updates hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum KindOption {
    Auto,
    Weights,
    Delta,
}

/// What to do with updates that hold the same tensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum CopyOption {
    Keep,
    Reject,
}

impl From<IdOption> for ClientIdFrom {
    fn from(option: IdOption) -> Self {
        match option {
            IdOption::Auto => Self::Auto,
            IdOption::Metadata => Self::Only(IdSource::Metadata),
            IdOption::Stem => Self::Only(IdSource::Stem),
            IdOption::Parent => Self::Only(IdSource::Parent),
            IdOption::Path => Self::Only(IdSource::Path),
        }
    }
}

impl UpdatePaths {
    /// What the run believes of what updates say of themselves.
    fn claims(&self) -> Claims {
        Claims {
            client_id_from: self.client_id_from.into(),
            kind: match self.kind {
                KindOption::Auto => None,
                KindOption::Weights => Some(UpdateKind::Weights),
                KindOption::Delta => Some(UpdateKind::Delta),
            },
            on_duplicate_content: match self.on_duplicate_content {
                CopyOption::Keep => OnDuplicateContent::Keep,
                CopyOption::Reject => OnDuplicateContent::Reject,
            },
            ..Claims::default()
        }
    }

    fn resolve(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = self.updates.clone();
        if let Some(list) = &self.files_from {
            paths.extend(crate::io::discover::paths_from(list)?);
        }
        Ok(paths)
    }
}

/// Whether an output that the operator names is standard output.
fn is_stdout(path: &Path) -> bool {
    target::is_standard_output(path)
}

/// Prints the text that the command was asked for. A closed pipe is no error.
fn print(text: &str) -> Result<(), Failure> {
    Ok(console::print(text)?)
}

/// Leaves standard output to the output of the command line that goes there. Refuses JSON beside it.
fn leave_standard_output(command: &clap::Command, matches: &ArgMatches) -> Result<(), Failure> {
    let (command, matches) = arguments::innermost(command, matches);
    let Some(option) = arguments::on_standard_output(command, matches) else { return Ok(()) };
    if matches.try_get_one::<bool>("json").is_ok_and(|json| json == Some(&true)) {
        return Err(anyhow::anyhow!(
            "--{option}: found standard output, which has what --json prints, expected the path of a file"
        )
        .into());
    }
    console::leave_standard_output();
    Ok(())
}

/// The command line as clap parses it, for the program, for tests and for generated help.
///
/// Every subcommand accepts every common option. Its help hides those that it ignores.
pub fn command() -> clap::Command {
    let flag = |name: &'static str, action| Arg::new(name).long(name).action(action).help_heading(COMMON);
    let help =
        flag("help", ArgAction::Help).short('h').global(true).help("Print help: -h in short, --help in full");
    let version = flag("version", ArgAction::Version).short('V').help("Print the version");
    let program = Cli::command().arg(help).arg(version);
    let common: Vec<Arg> = program.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    let show = |part: clap::Command, reads: &[&[&str]]| {
        let is_read = |id: &str| id == "help" || reads.iter().chain([&CONSOLE]).any(|ids| ids.contains(&id));
        let common = common.iter().map(|option| option.clone().hide(!is_read(option.get_id().as_str())));
        // Positional arguments first: clap lists them after the options of their group.
        let (mut place, name) = (0, part.get_name().to_owned());
        let part = part.mut_args(|argument| {
            place += 1;
            let is_option = !argument.is_positional();
            // The parser of the option says what is wrong with a negative number.
            let takes_value = is_option && argument.get_action().takes_values();
            let argument = arguments::with_target(&name, argument).allow_negative_numbers(takes_value);
            argument.display_order(place + if is_option { OPTIONS_FROM } else { 0 })
        });
        part.args(common)
    };
    let show_each = |part: clap::Command, rows: Reads| {
        rows.iter().fold(part, |part, (name, reads)| {
            part.mut_subcommand(name.to_lowercase(), |subcommand| show(subcommand, reads))
        })
    };
    show_each(program, Command::READS)
        .mut_subcommand("privacy", |privacy| show_each(privacy, privacy::Command::READS))
        .mut_subcommand("clients", |clients| show_each(clients, clients::Command::READS))
        .mut_subcommand("round", |round| show_each(round, round::Command::READS))
        .mut_subcommand("plan", |plan| show_each(plan, plan::Command::READS))
        .mut_subcommand("agents", |agents| show_each(agents, agents::Command::READS))
        .mut_subcommand("secagg", |secagg| show_each(secagg, secagg::Command::READS))
}
