//! The command line: one file a subcommand, its arguments as typed, then resolved, then run.

mod aggregate;
mod aggregation;
mod bench;
mod combine;
mod compress;
mod decide;
mod decompress;
mod doctor;
mod failure;
mod gram;
mod inspect;
mod merge;
mod personalize;
mod privacy;
mod rates;
mod size;

use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::passes::machine::Machine;
use crate::gpu;
use crate::io::interrupt;
use crate::kernels::lanes::Isa;
use crate::telemetry::console::{self, LogFormat};
use crate::telemetry::progress::Progress;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use failure::Failure;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing::Level;

/// The server side of federated learning, files to files.
///
/// Exit status: 0 done; 1 a valid run that policy refused; 2 an error. Nothing is published unless it is 0.
#[derive(Parser, Debug)]
#[command(name = "fedmill", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
enum Command {
    Aggregate(Box<aggregate::Arguments>),
    Inspect(inspect::Arguments),
    Compress(compress::Arguments),
    Decompress(decompress::Arguments),
    Personalize(personalize::Arguments),
    Privacy(privacy::Arguments),
    Doctor(doctor::Arguments),
    Bench(bench::Arguments),
    Gram(Box<gram::Arguments>),
    Decide(Box<decide::Arguments>),
    Combine(Box<combine::Arguments>),
    Merge(Box<merge::Arguments>),
}

/// Options of every subcommand.
#[derive(Args, Debug)]
struct Common {
    /// Where to compute. gpu never falls back to the CPU; auto takes a GPU where it is predicted to be faster.
    #[arg(
        long,
        global = true,
        value_name = "BACKEND",
        default_value = "auto",
        help_heading = "Common options"
    )]
    backend: BackendOption,
    /// Use the GPU whose name contains this; the only way to use a software adapter.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Common options")]
    adapter: Option<String>,
    /// Tiles that are on their way through the GPU at once.
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    gpu_slots: Option<NonZeroUsize>,
    /// Keep the checks of bounds and loops in shaders.
    #[arg(long, global = true, help_heading = "Common options")]
    gpu_checks: bool,
    /// Worker threads [default: one a processor].
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    threads: Option<NonZeroUsize>,
    /// CPU instruction set [default: the best there is].
    #[arg(long, global = true, value_name = "SET", value_parser = parse_isa, help_heading = "Common options")]
    isa: Option<Isa>,
    /// Say nothing but errors.
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Common options")]
    quiet: bool,
    /// Say what is done.
    #[arg(long, short, global = true, help_heading = "Common options")]
    verbose: bool,
    /// Messages for people, or one JSON object a line.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Common options"
    )]
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
    /// It did what it was asked to.
    Done,
    /// Policy refused, for this reason.
    Refused(String),
}

/// Parses the command line, runs the command, and says how it ended.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    cli.common.install_console();
    match cli.execute() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused(why)) => {
            tracing::error!("refused: {why}");
            ExitCode::from(1)
        }
        Err(failure) => failure.tell(),
    }
}

impl Cli {
    fn execute(&self) -> Result<Outcome, Failure> {
        interrupt::listen()?;
        match &self.command {
            Command::Aggregate(arguments) => arguments.run(&self.common),
            Command::Compress(arguments) => arguments.run(&self.common),
            Command::Decompress(arguments) => arguments.run(&self.common),
            Command::Inspect(arguments) => arguments.run(&self.common),
            Command::Personalize(arguments) => arguments.run(&self.common),
            Command::Privacy(arguments) => arguments.run(&self.common),
            Command::Doctor(arguments) => arguments.run(&self.common),
            Command::Bench(arguments) => arguments.run(&self.common),
            Command::Gram(arguments) => arguments.run(&self.common),
            Command::Decide(arguments) => arguments.run(&self.common),
            Command::Combine(arguments) => arguments.run(&self.common),
            Command::Merge(arguments) => arguments.run(&self.common),
        }
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
        let threads = self.threads.map_or(0, NonZeroUsize::get);
        Ok(ThreadPoolBuilder::new().num_threads(threads).build()?)
    }

    /// Which GPU to use, and how.
    fn gpu_options(&self) -> gpu::job::Options {
        gpu::job::Options {
            // As other programs on wgpu have it.
            adapter: self.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok()),
            checked: self.gpu_checks,
            slots: self.gpu_slots.map(NonZeroUsize::get),
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

    /// The backend to compute on.
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

    /// The machine to compute on.
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

/// Which updates to read.
#[derive(Args, Debug)]
struct UpdatePaths {
    /// Update files (.safetensors), indexes of sharded updates (.safetensors.index.json), or
    /// directories of either.
    #[arg(value_name = "UPDATE")]
    updates: Vec<PathBuf>,
    /// Read more update paths from a file, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
}

impl UpdatePaths {
    fn resolve(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = self.updates.clone();
        if let Some(list) = &self.files_from {
            paths.extend(crate::io::discover::paths_from(list)?);
        }
        Ok(paths)
    }
}

/// Writes data to standard output. A reader that went away is no error.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => Err(why.into()),
        _ => Ok(()),
    }
}

/// The command line as clap sees it, for tests and generated help.
pub fn command() -> clap::Command {
    Cli::command()
}
