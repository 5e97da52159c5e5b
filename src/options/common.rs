//! The options of every subcommand: where to compute, with how much of the machine, what to print.

use super::COMMON;
use super::failure::Failure;
use crate::compress::offload::Offload;
use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::passes::machine::Machine;
use crate::gpu;
use crate::kernels::lanes::Isa;
use crate::telemetry::console::{self, LogFormat};
use crate::telemetry::progress::Progress;
use clap::{Args, ValueEnum, value_parser};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;
use tracing::Level;

/// Sets of common options. The help of a subcommand shows [`CONSOLE`] and the sets that its row names.
pub(crate) const CONSOLE: &[&str] = &["quiet", "verbose", "log_format"];
pub(crate) const BACKEND: &[&str] = &["backend"];
pub(crate) const GPU: &[&str] = &["adapter", "gpu_slots", "gpu_checks"];
pub(crate) const CPU: &[&str] = &["threads", "isa"];

/// The most threads and the most tiles on a GPU at once that a command line may ask for. A system without room for them
/// would end the run.
pub(crate) const MOST_THREADS: i64 = 1024;
pub(crate) const MOST_SLOTS: i64 = 256;

/// Options of every subcommand.
#[derive(Args, Debug)]
#[command(next_help_heading = COMMON)]
pub(crate) struct Common {
    /// Where to compute. gpu never falls back to the CPU. auto takes a GPU if the forecast says that it is faster.
    #[arg(long, global = true, value_name = "BACKEND", default_value = "auto")]
    pub(crate) backend: BackendOption,
    /// Use the GPU whose name contains NAME. Software adapters are used only if this option names them.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// The number of tiles on the GPU at once.
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=MOST_SLOTS))]
    pub(crate) gpu_slots: Option<u16>,
    /// Keep the bounds checks and loop checks in shaders.
    #[arg(long, global = true)]
    pub(crate) gpu_checks: bool,
    /// The number of worker threads [default: one per processor].
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=MOST_THREADS))]
    pub(crate) threads: Option<u16>,
    /// The CPU instruction set, such as portable [default: the best that this processor has].
    #[arg(long, global = true, value_name = "SET", value_parser = parse_isa)]
    pub(crate) isa: Option<Isa>,
    /// Print errors only.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print each step.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// The format of messages.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum BackendOption {
    Auto,
    Cpu,
    Gpu,
}

pub(crate) fn parse_isa(name: &str) -> Result<Isa, String> {
    let known = || Isa::available().iter().map(Isa::to_string).collect::<Vec<_>>().join(", ");
    Isa::named(name).ok_or_else(|| format!("this processor has {}", known()))
}

impl Common {
    pub(crate) fn install_console(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => Level::ERROR,
            (_, true) => Level::INFO,
            _ => Level::WARN,
        };
        console::install(level, self.log_format);
    }

    pub(crate) fn pool(&self) -> Result<ThreadPool, Failure> {
        let threads = self.threads.map_or(0, usize::from);
        // Rules decide on these threads, and kernels run below them: they have the stack of a main thread.
        Ok(ThreadPoolBuilder::new().num_threads(threads).stack_size(8 << 20).build()?)
    }

    /// The GPU to use, with the options for it.
    pub(crate) fn gpu_options(&self) -> gpu::job::Options {
        gpu::job::Options {
            // Other programs on wgpu read the same variable.
            adapter: self.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok()),
            checked: self.gpu_checks,
            slots: self.gpu_slots.map(usize::from),
            ..gpu::job::Options::default()
        }
    }

    pub(crate) fn backend_name(&self) -> BackendName {
        match self.backend {
            BackendOption::Auto => BackendName::Auto,
            BackendOption::Cpu => BackendName::Cpu,
            BackendOption::Gpu => BackendName::Gpu,
        }
    }

    /// The backend that the user asked for. With `explain`, the run prints the forecast.
    pub(crate) fn backend(&self, explain: bool) -> BackendRequest {
        let options = self.gpu_options();
        BackendRequest { options, explain, ..BackendRequest::new(self.backend_name()) }
    }

    /// Refuses `--backend gpu` for a command that has no work for a GPU.
    pub(crate) fn refuse_gpu(&self, command: &str) -> Result<(), Failure> {
        match self.backend_name() {
            BackendName::Gpu => Err(Failure::no_gpu(command)),
            BackendName::Auto | BackendName::Cpu => Ok(()),
        }
    }

    /// The GPU for the codecs of a command, if `--backend gpu` asks for it.
    pub(crate) fn offload(&self, command: &str) -> Result<Option<Arc<Offload>>, Failure> {
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
    pub(crate) fn machine<'m>(&self, pool: &'m ThreadPool, progress: &'m Progress) -> Machine<'m> {
        Machine::new(self.isa(), pool, progress)
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::detect)
    }

    pub(crate) fn progress(&self) -> Progress {
        let plain = self.quiet || self.verbose || self.log_format == LogFormat::Json;
        if plain { Progress::hidden() } else { Progress::on_terminal() }
    }
}
