//! Runs all cases: every kernel, rule and command, at every size, on the CPU and every device.

use super::BenchError;
use super::aggregate::{self, Side};
use super::command::Command;
use super::device::{DeviceCase, HostMatrix};
use super::host::HostRows;
use super::kernel::{Kernel, Value};
use super::limits::{DeviceLimits, HostLimits, ReadFloor};
use super::private;
use super::results::{
    AdapterRow, Backend, LeftOut, Limit, Limits, Machine, Results, Row, SCHEMA, SettingsRow, Subject, Tool,
    Work, crossovers,
};
use super::sampling::{Latency, Repeats, sample, timed};
use crate::engine::aggregate::error::Error;
use crate::gpu::Gpu;
use crate::gpu::job::{GpuError, Options};
use crate::io::machine;
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::settings::SpecError;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::path::PathBuf;
use std::sync::Arc;

/// The cases of a run.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Kernels, over rows in memory.
    pub kernels: Vec<Kernel>,
    /// Rules, as merges from files to file; and [`private::NAME`].
    pub rules: Vec<String>,
    /// Other commands, from files to files.
    pub commands: Vec<Command>,
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// Numbers of parameters.
    pub parameters: Vec<usize>,
    /// Dtypes of updates, among those of [`DTYPES`](super::kernel::DTYPES).
    pub dtypes: Vec<Dtype>,
    /// Runs of each case.
    pub repeats: Repeats,
    /// The devices to measure beside the CPU.
    pub devices: Vec<Options>,
    /// The folder for updates and merged models; `None` means the system's folder for temporary files.
    pub directory: Option<PathBuf>,
    /// The instruction set of the CPU.
    pub isa: Isa,
}

/// Divisor of the available memory; the quotient is the most that the rows of a case may take.
const MEMORY_PART: u64 = 3;

struct Device {
    gpu: Arc<Gpu>,
    limits: DeviceLimits,
}

struct Run<'a> {
    grid: &'a Grid,
    pool: &'a ThreadPool,
    progress: &'a Progress,
    host: HostLimits,
    devices: Vec<Device>,
    rows: Vec<Row>,
    left_out: Vec<LeftOut>,
}

/// Numbers of clients and parameters, and a dtype.
#[derive(Clone, Copy)]
struct Size {
    clients: usize,
    parameters: usize,
    dtype: Dtype,
}

impl Size {
    fn bytes(self) -> u64 {
        (self.clients as u64).saturating_mul(self.parameters as u64).saturating_mul(self.dtype.bytes() as u64)
    }

    fn subject(self, work: Work, name: &str) -> Subject {
        Subject { work, name: name.to_owned(), dtype: self.dtype.to_string(), parameters: self.parameters }
    }
}

impl Grid {
    /// Measures all cases.
    ///
    /// # Errors
    ///
    /// When a device fails, updates cannot be written or merged, or a signal asked to stop.
    pub fn run(&self, pool: &ThreadPool, progress: &Progress) -> Result<Results, BenchError> {
        let mut adapters = Vec::new();
        let mut devices = Vec::new();
        for options in &self.devices {
            let (time, gpu) = timed(|| Gpu::open(options));
            let gpu = gpu?;
            adapters.push(AdapterRow::of(gpu.adapter(), time.as_secs_f64()));
            devices.push(Device { limits: DeviceLimits::measure(&gpu)?, gpu: Arc::new(gpu) });
        }
        let host = HostLimits::measure(self.isa, pool);
        let mut run =
            Run { grid: self, pool, progress, host, devices, rows: Vec::new(), left_out: Vec::new() };
        progress.start("measuring", run.all_bytes());
        let done = run.go_through();
        progress.finish();
        done.map(|()| run.results(adapters))
    }

    fn settings(&self, threads: usize) -> SettingsRow {
        let directory = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        SettingsRow {
            kernels: self.kernels.iter().map(|kernel| kernel.name()).collect(),
            rules: self.rules.clone(),
            commands: self.commands.iter().map(ToString::to_string).collect(),
            clients: self.clients.clone(),
            parameters: self.parameters.clone(),
            dtype: self.dtypes.iter().map(ToString::to_string).collect(),
            warm_up: self.repeats.warm_up,
            samples: self.repeats.samples,
            threads,
            directory: directory.display().to_string(),
        }
    }

    fn sizes(&self) -> Vec<Size> {
        let mut sizes = Vec::new();
        for dtype in &self.dtypes {
            for parameters in &self.parameters {
                sizes.extend(self.clients.iter().map(|clients| Size {
                    clients: *clients,
                    parameters: *parameters,
                    dtype: *dtype,
                }));
            }
        }
        sizes
    }
}

impl Run<'_> {
    fn go_through(&mut self) -> Result<(), BenchError> {
        let most = machine::available_memory().unwrap_or(u64::MAX) / MEMORY_PART;
        for size in self.grid.sizes() {
            if size.bytes() > most {
                let (found, most) = (size.bytes() >> 20, most >> 20);
                let why = format!("its rows are {found} MiB, expected at most {most} MiB");
                self.leave_out(
                    format!("{} clients, {}", size.clients, size.subject(Work::Kernel, "all")),
                    why,
                );
                continue;
            }
            match size.dtype {
                Dtype::BF16 => self.run_kernels::<bf16>(size),
                Dtype::F16 => self.run_kernels::<f16>(size),
                _ => self.run_kernels::<f32>(size),
            }?;
            self.run_on_files(size)?;
        }
        Ok(())
    }

    fn all_bytes(&self) -> u64 {
        let on_files = self.grid.rules.len() + self.grid.commands.len();
        let devices = self.devices.len();
        let cases = self.grid.kernels.len() * (1 + 2 * devices) + on_files * (1 + devices);
        self.grid.sizes().iter().map(|size| size.bytes()).sum::<u64>() * cases as u64
    }

    fn leave_out(&mut self, case: String, why: String) {
        tracing::warn!("{case}: not measured: {why}");
        self.left_out.push(LeftOut { case, why });
    }

    fn run_kernels<E: Value>(&mut self, size: Size) -> Result<(), BenchError> {
        for kernel in self.grid.kernels.clone() {
            tracing::info!(
                "{} on the CPU, {} clients",
                size.subject(Work::Kernel, kernel.name()),
                size.clients
            );
            let rows = HostRows::<E>::new(kernel, size.clients, size.parameters);
            let run = || Ok::<_, BenchError>(rows.run(kernel, self.grid.isa, self.pool));
            let latency = sample(self.grid.repeats, run)?;
            let limit = self.host_limit(kernel, size);
            self.add(size.subject(Work::Kernel, kernel.name()), size, (Backend::Cpu, None), latency, limit);
        }
        if !self.devices.is_empty() && !self.grid.kernels.is_empty() {
            let matrix = HostMatrix::new::<E>(size.clients, size.parameters);
            for device in 0..self.devices.len() {
                for kernel in self.grid.kernels.clone() {
                    self.run_on_device::<E>(device, kernel, size, &matrix)?;
                }
            }
        }
        Ok(())
    }

    fn run_on_device<E: Value>(
        &mut self,
        device: usize,
        kernel: Kernel,
        size: Size,
        matrix: &HostMatrix,
    ) -> Result<(), BenchError> {
        let (gpu, limits) = (Arc::clone(&self.devices[device].gpu), self.devices[device].limits);
        let (name, subject) = (gpu.adapter().name.clone(), size.subject(Work::Kernel, kernel.name()));
        tracing::info!("{subject} on {name}, {} clients", size.clients);
        let case = match DeviceCase::new::<E>(kernel, &gpu, matrix, self.pool.current_num_threads()) {
            Ok(case) => case,
            // A kernel that a driver cannot run must not hide the others.
            Err(
                why
                @ (GpuError::TooMany { .. } | GpuError::OutOfMemory { .. } | GpuError::NotCompiled { .. }),
            ) => {
                self.leave_out(format!("{} clients, {subject} on {name}", size.clients), why.to_string());
                return Ok(());
            }
            Err(why) => return Err(why.into()),
        };
        let latency = sample(self.grid.repeats, || case.stream(self.pool))?;
        let on_device = device_limit(kernel, size, &limits);
        let brought =
            Limit { name: "host memory", seconds: size.bytes() as f64 / self.host.memory_bytes_per_s };
        let (streamed, resident) = ((Backend::Gpu, Some(name.clone())), (Backend::GpuResident, Some(name)));
        self.add(subject.clone(), size, streamed, latency, on_device.or(brought));
        if case.fits() {
            let inputs = case.upload()?;
            let latency = sample(self.grid.repeats, || case.run_resident(&inputs))?;
            self.add(subject, size, resident, latency, on_device);
        }
        Ok(())
    }

    fn run_on_files(&mut self, size: Size) -> Result<(), BenchError> {
        if self.grid.rules.is_empty() && self.grid.commands.is_empty() {
            return Ok(());
        }
        let directory = self.grid.directory.as_deref();
        let updates = SyntheticUpdates::write(directory, size.clients, size.parameters, size.dtype)
            .map_err(BenchError::NotWritten)?;
        let floor = ReadFloor::of(&updates)?;
        let seconds = floor.bytes() as f64 / floor.bytes_per_s(self.pool)?;
        let limit = Limit { name: "read floor", seconds };
        let gpus: Vec<Arc<Gpu>> = self.devices.iter().map(|device| Arc::clone(&device.gpu)).collect();
        let sides = || std::iter::once(Side::Cpu).chain(gpus.iter().map(Side::Gpu));
        for rule in self.grid.rules.clone() {
            sides().try_for_each(|side| self.run_rule(&rule, size, &updates, limit, side))?;
        }
        for command in self.grid.commands.clone() {
            command.prepare(&updates, self.grid.isa, self.pool)?;
            sides().try_for_each(|side| self.run_command(&command, size, &updates, limit, side))?;
        }
        Ok(())
    }

    fn run_command(
        &mut self,
        command: &Command,
        size: Size,
        updates: &SyntheticUpdates,
        floor: Limit,
        side: Side,
    ) -> Result<(), BenchError> {
        let (subject, backend) = (size.subject(Work::Command, &command.to_string()), backend_of(side));
        let case = on_side(size, &subject, &backend);
        if matches!(side, Side::Gpu(_)) && !command.has_shaders() {
            self.leave_out(case, "a device does no part of it".to_owned());
            return Ok(());
        }
        tracing::info!("{case}");
        let written = size.bytes() as f64 / self.host.memory_bytes_per_s;
        let limit = match command.reads_updates() {
            true => floor,
            false => Limit { name: "host memory", seconds: written },
        };
        let run = || command.run(updates, side, self.grid.isa, self.pool);
        let latency = sample(self.grid.repeats, run)?;
        self.add(subject, size, backend, latency, limit);
        Ok(())
    }

    fn run_rule(
        &mut self,
        rule: &str,
        size: Size,
        updates: &SyntheticUpdates,
        limit: Limit,
        side: Side,
    ) -> Result<(), BenchError> {
        let (subject, backend) = (size.subject(Work::Aggregate, rule), backend_of(side));
        let case = on_side(size, &subject, &backend);
        tracing::info!("{case}");
        let run = || match rule {
            private::NAME => private::release(updates, size.parameters, side, self.grid.isa, self.pool),
            _ => aggregate::merge(rule, updates, side, self.grid.isa, self.pool),
        };
        match sample(self.grid.repeats, run) {
            Ok(latency) => self.add(subject, size, backend, latency, limit),
            // A rule may need more clients than a case has.
            Err(BenchError::Merge(Error::Rule(why))) => {
                self.leave_out(case, why.to_string());
            }
            Err(why) => return Err(why),
        }
        Ok(())
    }

    fn add(
        &mut self,
        subject: Subject,
        size: Size,
        backend: (Backend, Option<String>),
        latency: Latency,
        limit: Limit,
    ) {
        self.progress.advance(size.bytes());
        self.rows.push(Row::new(subject, size.clients, backend, size.bytes(), latency, limit));
    }

    fn host_limit(&self, kernel: Kernel, size: Size) -> Limit {
        let sums = kernel.multiply_adds(size.clients, size.parameters) / self.host.multiply_adds_per_s;
        let seconds = size.bytes() as f64 / self.host.memory_bytes_per_s;
        Limit { name: "host memory", seconds }.or(Limit { name: "host multiply-adds", seconds: sums })
    }

    fn results(self, adapters: Vec<AdapterRow>) -> Results {
        let threads = self.pool.current_num_threads();
        let devices = self.devices.iter();
        let devices = devices.map(|device| (device.gpu.adapter().name.clone(), device.limits)).collect();
        Results {
            schema: SCHEMA,
            tool: Tool::this(),
            settings: self.grid.settings(threads),
            machine: Machine::here(self.grid.isa, threads, adapters),
            limits: Limits { host: self.host, devices },
            crossovers: crossovers(&self.rows),
            rows: self.rows,
            left_out: self.left_out,
        }
    }
}

fn backend_of(side: Side) -> (Backend, Option<String>) {
    match side {
        Side::Cpu => (Backend::Cpu, None),
        Side::Gpu(gpu) => (Backend::Gpu, Some(gpu.adapter().name.clone())),
    }
}

/// A case on files, in messages.
fn on_side(size: Size, subject: &Subject, backend: &(Backend, Option<String>)) -> String {
    format!("{} clients, {subject} on {}", size.clients, backend.1.as_deref().unwrap_or("the CPU"))
}

fn device_limit(kernel: Kernel, size: Size, limits: &DeviceLimits) -> Limit {
    let sums = kernel.multiply_adds(size.clients, size.parameters) / limits.multiply_adds_per_s;
    let seconds = size.bytes() as f64 / limits.memory_bytes_per_s;
    Limit { name: "device memory", seconds }.or(Limit { name: "device multiply-adds", seconds: sums })
}

/// Checks a rule before the measurement.
///
/// # Errors
///
/// When the rule does not exist.
pub fn check_rule(rule: &str) -> Result<(), SpecError> {
    match rule {
        private::NAME => Ok(()),
        _ => crate::rules::parse(rule, crate::settings::Definition::Paper).map(drop),
    }
}
