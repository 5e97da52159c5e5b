//! The results of a run of the bench as JSON, schema `fedmill.bench/1`.

use super::limits::{DeviceLimits, HostLimits};
use super::sampling::Latency;
use crate::gpu::job::Adapter;
use crate::io::machine;
use crate::kernels::lanes::Isa;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The name of the schema.
pub const SCHEMA: &str = "fedmill.bench/1";

/// The results of a run.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Results {
    pub schema: &'static str,
    pub tool: Tool,
    pub settings: SettingsRow,
    pub machine: Machine,
    pub limits: Limits,
    pub rows: Vec<Row>,
    pub crossovers: Vec<Crossover>,
    pub left_out: Vec<LeftOut>,
}

/// The program that measured.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

impl Tool {
    /// This program.
    pub fn this() -> Self {
        Self { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") }
    }
}

/// The resolved settings of a run.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "named as on the command line")]
pub struct SettingsRow {
    pub kernels: Vec<&'static str>,
    pub rules: Vec<String>,
    pub commands: Vec<String>,
    pub clients: Vec<usize>,
    pub parameters: Vec<usize>,
    pub dtype: Vec<String>,
    pub warm_up: usize,
    pub samples: usize,
    pub threads: usize,
    pub directory: String,
}

/// The machine.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Machine {
    pub processor: String,
    pub instruction_set: String,
    pub threads: usize,
    pub operating_system: String,
    pub adapters: Vec<AdapterRow>,
}

/// A measured device.
#[derive(Serialize, Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct AdapterRow {
    pub name: String,
    pub kind: &'static str,
    pub driver: String,
    pub interface: String,
    pub memory_bytes: Option<u64>,
    /// Seconds to open it.
    pub open_s: f64,
}

impl AdapterRow {
    /// The row of a device.
    pub fn of(adapter: &Adapter, open_s: f64) -> Self {
        Self {
            name: adapter.name.clone(),
            kind: adapter.kind,
            driver: adapter.driver.clone(),
            interface: adapter.interface.clone(),
            memory_bytes: adapter.memory,
            open_s,
        }
    }
}

impl Machine {
    /// This machine.
    pub fn here(isa: Isa, threads: usize, adapters: Vec<AdapterRow>) -> Self {
        Self {
            processor: machine::processor(),
            instruction_set: isa.to_string(),
            threads,
            operating_system: machine::operating_system(),
            adapters,
        }
    }
}

/// The limits of the machine.
#[derive(Serialize, Clone, Debug)]
pub struct Limits {
    /// The limits of the host.
    pub host: HostLimits,
    /// The limits of each device, by name.
    pub devices: BTreeMap<String, DeviceLimits>,
}

/// The kind of a measurement.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A kernel over rows in memory.
    Kernel,
    /// A merge from files to file.
    Aggregate,
    /// Another command on files.
    Command,
}

/// The backend of a case, and the time that counts.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The CPU.
    Cpu,
    /// A device, with the time to send the rows.
    Gpu,
    /// A device, over rows that are in its memory already.
    GpuResident,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::GpuResident => "gpu resident",
        })
    }
}

/// The subject of cases that differ in their number of clients.
#[derive(Serialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subject {
    /// Kernel, merge or other command.
    pub work: Work,
    /// The name of the kernel, the rule or the command.
    pub name: String,
    /// The dtype of the updates.
    pub dtype: String,
    /// Number of parameters of each update.
    pub parameters: usize,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Kernel => "kernel ",
            Work::Aggregate => "aggregate ",
            Work::Command => "",
        };
        write!(f, "{work}{}, {} {}", self.name, short(self.parameters), self.dtype)
    }
}

/// The results of a case.
#[derive(Serialize, Clone, Debug)]
pub struct Row {
    /// The subject.
    #[serde(flatten)]
    pub subject: Subject,
    /// Number of clients.
    pub clients: usize,
    /// The backend.
    pub backend: Backend,
    /// The device; `None` for the CPU.
    pub adapter: Option<String>,
    /// Bytes of all updates.
    pub bytes: u64,
    /// The times.
    pub latency: Latency,
    /// Bytes of updates per second at the median time.
    pub bytes_per_s: f64,
    /// The limit on its speed.
    pub limit: Limit,
    /// The limit's time divided by the median time; 1 is the fastest possible.
    pub share_of_limit: f64,
}

/// The shortest possible time on this machine, from its measured limits.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct Limit {
    /// The limiting resource.
    pub name: &'static str,
    /// The time in seconds.
    pub seconds: f64,
}

impl Limit {
    /// The longer of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if other.seconds > self.seconds { other } else { self }
    }
}

impl Row {
    /// The row of a measured case.
    pub fn new(
        subject: Subject,
        clients: usize,
        (backend, adapter): (Backend, Option<String>),
        bytes: u64,
        latency: Latency,
        limit: Limit,
    ) -> Self {
        let median = latency.total.p50_ns as f64 / 1e9;
        let (bytes_per_s, share_of_limit) = (bytes as f64 / median, limit.seconds / median);
        Self { subject, clients, backend, adapter, bytes, latency, bytes_per_s, limit, share_of_limit }
    }
}

/// The number of clients from which a device is faster than the CPU.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Crossover {
    /// The subject.
    #[serde(flatten)]
    pub subject: Subject,
    /// The backend.
    pub backend: Backend,
    /// The device.
    pub adapter: String,
    /// The smallest measured number of clients with a median below the CPU's; `None` if there is none.
    pub clients: Option<usize>,
    /// The largest number of clients measured on both.
    pub up_to: usize,
}

impl fmt::Display for Crossover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}) ", self.subject, self.backend, self.adapter)?;
        match self.clients {
            Some(clients) => write!(f, "is faster from {clients} clients on"),
            None => write!(f, "is not faster up to {} clients", self.up_to),
        }
    }
}

/// A case that was not measured.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LeftOut {
    pub case: String,
    pub why: String,
}

/// A subject on a backend, on a device.
type SideOf<'a> = (&'a Subject, Backend, &'a str);

/// The number of clients from which each device is faster.
pub fn crossovers(rows: &[Row]) -> Vec<Crossover> {
    let mut sides: BTreeMap<SideOf, Vec<(usize, u64)>> = BTreeMap::new();
    for row in rows {
        let adapter = row.adapter.as_deref().unwrap_or_default();
        let side = sides.entry((&row.subject, row.backend, adapter)).or_default();
        side.push((row.clients, row.latency.total.p50_ns));
    }
    let cpu = |subject| sides.get(&(subject, Backend::Cpu, ""));
    let gpus = sides.iter().filter(|((_, backend, _), _)| *backend != Backend::Cpu);
    let found = gpus.filter_map(|((subject, backend, adapter), times)| {
        let cpu: BTreeMap<usize, u64> = cpu(*subject)?.iter().copied().collect();
        let both = times.iter().filter(|(clients, _)| cpu.contains_key(clients));
        Some(Crossover {
            subject: (*subject).clone(),
            backend: *backend,
            adapter: (*adapter).to_owned(),
            clients: both.clone().filter(|(n, time)| *time < cpu[n]).map(|(n, _)| *n).min(),
            up_to: both.map(|(clients, _)| *clients).max()?,
        })
    });
    found.collect()
}

/// A count, in thousands or millions where these are whole.
pub fn short(count: usize) -> String {
    match count {
        0 => "0".to_owned(),
        n if n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n.is_multiple_of(100_000) && n > 1_000_000 => format!("{:.1}M", n as f64 / 1e6),
        n if n.is_multiple_of(1000) => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}

/// Nanoseconds in a suitable unit.
pub fn duration(nanoseconds: u64) -> String {
    let ns = nanoseconds as f64;
    match ns {
        _ if ns < 1e3 => format!("{nanoseconds} ns"),
        _ if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        _ if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.3} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sampling::Percentiles;
    use super::*;

    fn row(clients: usize, backend: Backend, p50_ns: u64) -> Row {
        let total = Percentiles {
            samples: 1,
            min_ns: p50_ns,
            p50_ns,
            p90_ns: p50_ns,
            p99_ns: p50_ns,
            max_ns: p50_ns,
        };
        let subject =
            Subject { work: Work::Kernel, name: "median".into(), dtype: "F32".into(), parameters: 1000 };
        let adapter = (backend != Backend::Cpu).then(|| "A".to_owned());
        let limit = Limit { name: "memory", seconds: 1e-9 };
        let latency = Latency { total, transfer: None, compute: None };
        Row::new(subject, clients, (backend, adapter), 4000, latency, limit)
    }

    #[test]
    fn a_crossover_is_the_fewest_clients_at_which_the_device_wins() {
        let rows = [
            row(2, Backend::Cpu, 10),
            row(8, Backend::Cpu, 40),
            row(32, Backend::Cpu, 160),
            row(2, Backend::Gpu, 30),
            row(8, Backend::Gpu, 40),
            row(32, Backend::Gpu, 50),
            row(64, Backend::Gpu, 60),
            row(2, Backend::GpuResident, 11),
        ];
        let found = crossovers(&rows);
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "kernel median, 1k F32: gpu (A) is faster from 32 clients on",
                "kernel median, 1k F32: gpu resident (A) is not faster up to 2 clients",
            ]
        );
    }

    #[test]
    fn rates_and_shares_are_of_the_median() {
        let row = row(2, Backend::Cpu, 4);
        assert!((row.bytes_per_s - 1e12).abs() < 1.0);
        assert!((row.share_of_limit - 0.25).abs() < 1e-12);
    }

    #[test]
    fn figures_are_short() {
        let counts = [1, 1500, 20_000, 1_000_000, 1_500_000, 11_700_000, 100_000].map(short);
        assert_eq!(counts, ["1", "1500", "20k", "1M", "1.5M", "11.7M", "100k"]);
        let times = [999, 1_500, 2_345_678, 1_234_000_000].map(duration);
        assert_eq!(times, ["999 ns", "1.5 us", "2.35 ms", "1.234 s"]);
    }
}
