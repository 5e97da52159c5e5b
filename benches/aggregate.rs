//! Whole merges against the read floor.
//!
//! The floor is the time in which the same process reads the same bytes once with positioned reads, from a warm page
//! cache.
//!
//! `cargo bench --bench aggregate [-- FILTER]` prints a table; `--json` prints one line per row. The bench makes
//! updates once, under `target/bench-data`, and keeps them. For rules that need a first pass, it also prints that pass
//! over the floor, and as a part of the multiply-add peak of the same threads: with reading, and for computing alone.
//! Floor and merge take turns in one process. A ratio belongs to one pair, printed as median (minimum to maximum). The
//! output's own write and fsync are left out. Peak memory is that of `fedmill aggregate` in its own process on the same
//! files.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::engine::aggregate::request::Request;
use fedmill::engine::aggregate::run::run;
use fedmill::engine::decide::method::Method;
use fedmill::engine::passes::machine::Machine;
use fedmill::io::source::{OpenFiles, SourceFile};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::peak::multiply_adds;
use fedmill::model::tile::TileBuffer;
use fedmill::rules::{self, pre};
use fedmill::settings::Definition;
use fedmill::telemetry::progress::Progress;
use fedmill::telemetry::report::Report;
use rayon::{ThreadPool, ThreadPoolBuilder};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Timed pairs of floor and merge for each row.
const PAIRS: usize = 7;

/// Bytes that the floor reads at a time, into one buffer that starts on a cache line: the fastest of the powers of
/// two from 32 KiB to 1 MiB.
const FLOOR_CHUNK_BYTES: usize = 1 << 20;

struct Row {
    rule: &'static str,
    pre: &'static [&'static str],
    byzantine: Option<&'static str>,
    clients: usize,
    parameters: usize,
    dtype: Dtype,
    bar: Bar,
}

/// The limit of a row.
#[derive(Clone, Copy)]
enum Bar {
    /// The whole merge over the read floor.
    Merge(f64),
    /// The first pass over the read floor.
    GeometryPass(f64),
    /// The first pass as a part of the multiply-add peak.
    Peak(f64),
    /// No limit.
    None,
}

const LARGE: Row = Row {
    rule: "mean",
    pre: &[],
    byzantine: None,
    clients: 32,
    parameters: 11_700_000,
    dtype: Dtype::F32,
    bar: Bar::None,
};
const MANY: Row = Row { clients: 256, parameters: 1_000_000, ..LARGE };

const ROWS: [Row; 19] = [
    Row { rule: "mean", bar: Bar::Merge(1.5), ..LARGE },
    Row { rule: "median", bar: Bar::Merge(2.5), ..LARGE },
    Row { rule: "trimmed-mean:cut=0.2", bar: Bar::Merge(2.5), ..LARGE },
    Row { rule: "median", bar: Bar::Merge(8.0), ..MANY },
    Row {
        rule: "median",
        clients: 8,
        parameters: 100_000_000,
        dtype: Dtype::BF16,
        bar: Bar::Merge(2.0),
        ..LARGE
    },
    Row { rule: "krum", byzantine: Some("0.2"), bar: Bar::GeometryPass(3.0), ..LARGE },
    Row { rule: "multi-krum", byzantine: Some("0.2"), bar: Bar::GeometryPass(3.0), ..LARGE },
    Row { rule: "bulyan", byzantine: Some("0.2"), bar: Bar::GeometryPass(3.0), ..LARGE },
    Row { rule: "geometric-median", byzantine: Some("0.2"), bar: Bar::GeometryPass(3.0), ..LARGE },
    Row { rule: "caf", byzantine: Some("0.2"), bar: Bar::GeometryPass(3.0), ..LARGE },
    Row { rule: "distance-trim", ..LARGE },
    Row { rule: "meamed", byzantine: Some("0.2"), ..LARGE },
    Row { rule: "trimmed-mean", pre: &["nnm"], byzantine: Some("0.2"), ..LARGE },
    Row { rule: "krum", byzantine: Some("0.2"), bar: Bar::Peak(0.6), ..MANY },
    Row { rule: "geometric-median", bar: Bar::Peak(0.6), ..MANY },
    Row { rule: "bulyan", byzantine: Some("0.2"), bar: Bar::Peak(0.6), ..MANY },
    Row {
        rule: "krum",
        byzantine: Some("0.2"),
        clients: 64,
        parameters: 4_000_000,
        bar: Bar::Peak(0.6),
        ..LARGE
    },
    Row {
        rule: "krum",
        byzantine: Some("0.2"),
        clients: 128,
        parameters: 2_000_000,
        bar: Bar::Peak(0.6),
        ..LARGE
    },
    Row {
        rule: "krum",
        byzantine: Some("0.2"),
        clients: 16,
        parameters: 11_700_000,
        bar: Bar::GeometryPass(3.0),
        ..LARGE
    },
];

fn main() {
    // `cargo bench` passes --bench. Other arguments filter rows.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let as_json = arguments.iter().any(|a| a == "--json");
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let pool = ThreadPoolBuilder::new().build().expect("threads can be started");
    if !as_json {
        println!("{} with {} threads, {}", processor(), pool.current_num_threads(), Isa::detect());
        println!(
            "{:<58} {:>6} {:>22} {:>22} {:>9} {:>12} {:>8} {:>8} {:>9}",
            "work",
            "floor",
            "merge / floor",
            "first pass / floor",
            "FMA peak",
            "bar",
            "write",
            "fsync",
            "memory"
        );
    }
    for row in ROWS {
        let name = row.name();
        if filters.iter().all(|filter| name.contains(filter.as_str())) {
            row.measure(&pool).print(&name, &row, as_json);
        }
    }
}

struct Measured {
    floors: Vec<f64>,
    merges: Vec<f64>,
    first_passes: Vec<f64>,
    /// The time of the first pass without reading.
    computes: Vec<f64>,
    /// Multiply-adds per second of all threads together.
    peaks: Vec<f64>,
    reads: f64,
    writes: Vec<f64>,
    syncs: Vec<f64>,
    bytes: u64,
    peak_bytes: u64,
}

impl Row {
    fn name(&self) -> String {
        let millions = self.parameters as f64 / 1e6;
        let steps: Vec<&str> = self.pre.iter().copied().chain([self.rule]).collect();
        format!("{}, {} updates of {millions} M {:?}", steps.join(" "), self.clients, self.dtype)
    }

    fn measure(&self, pool: &ThreadPool) -> Measured {
        let directory = make_updates(self);
        let files = OpenFiles::raise_limit();
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&directory).expect("listed").map(|entry| entry.expect("entry").path()).collect();
        paths.sort();
        let sources: Vec<SourceFile> =
            paths.iter().map(|path| SourceFile::open(path, &files).expect("update opens")).collect();
        let output = directory.with_extension("merged.safetensors");
        let mut measured = Measured {
            floors: Vec::new(),
            merges: Vec::new(),
            first_passes: Vec::new(),
            computes: Vec::new(),
            peaks: Vec::new(),
            reads: 0.0,
            writes: Vec::new(),
            syncs: Vec::new(),
            bytes: sources.iter().map(SourceFile::bytes).sum(),
            peak_bytes: self.peak_bytes(&directory, &output),
        };
        read_floor(pool, &sources);
        for _ in 0..PAIRS {
            measured.floors.push(read_floor(pool, &sources));
            let report = self.merge(pool, &directory, &output);
            let timings = report.timings;
            measured.reads = report.bytes.read as f64 / measured.bytes as f64;
            if timings.first_pass_s > 0.0 {
                measured.peaks.push(multiply_add_peak(pool));
                measured.first_passes.push(timings.first_pass_s);
                measured.computes.push(timings.first_compute_s);
            }
            measured.merges.push(timings.total_s - timings.write_s - timings.sync_s);
            measured.writes.push(timings.write_s);
            measured.syncs.push(timings.sync_s);
        }
        fs::remove_file(output).expect("merged model can be removed");
        measured
    }

    fn merge(&self, pool: &ThreadPool, updates: &Path, output: &Path) -> Report {
        let request = Request::new(vec![updates.to_owned()], self.method(), output.to_owned());
        run(request, Machine::new(Isa::detect(), pool, &Progress::hidden())).expect("the updates merge")
    }

    fn method(&self) -> Method {
        Method {
            pre: self.pre.iter().map(|step| pre::parse(step).expect("a step")).collect(),
            byzantine: self.byzantine.map(|share| share.parse().expect("a share")),
            ..Method::new(rules::parse(self.rule, Definition::Paper).expect("a rule"))
        }
    }

    /// Runs the command once, which also warms the page cache.
    fn peak_bytes(&self, updates: &Path, output: &Path) -> u64 {
        let report = output.with_extension("json");
        let status = Command::new(env!("CARGO_BIN_EXE_fedmill"))
            .args(["aggregate", "--quiet", "--rule", self.rule])
            .args(self.pre.iter().flat_map(|step| ["--pre", step]))
            .args(self.byzantine.iter().flat_map(|share| ["--byzantine", share]))
            .args(["--metrics", "none", "--report"])
            .args([&report, &updates.to_owned()])
            .arg("-o")
            .arg(output)
            .stdout(std::process::Stdio::null())
            .status()
            .expect("fedmill runs");
        assert!(status.success());
        let text = fs::read_to_string(&report).expect("report was written");
        fs::remove_file(report).expect("report can be removed");
        let report: serde_json::Value = serde_json::from_str(&text).expect("report is JSON");
        report["peak_resident_bytes"].as_u64().unwrap_or(0)
    }
}

impl Measured {
    fn print(&self, name: &str, row: &Row, as_json: bool) {
        let over_floor =
            |times: &[f64]| -> Vec<f64> { times.iter().zip(&self.floors).map(|(t, f)| t / f).collect() };
        let pairs = (row.clients * (row.clients + 1) / 2 * row.parameters) as f64;
        let of_peak = |times: &[f64]| -> Vec<f64> {
            times.iter().zip(&self.peaks).map(|(t, p)| pairs / t / p).collect()
        };
        let merge = spread(&over_floor(&self.merges));
        let first = (!self.first_passes.is_empty()).then(|| spread(&over_floor(&self.first_passes)));
        let peak = first.map(|_| (spread(&of_peak(&self.first_passes)), spread(&of_peak(&self.computes))));
        let [floor, write, sync] = [&self.floors, &self.writes, &self.syncs].map(|times| spread(times).1);
        if as_json {
            println!(
                "{}",
                json!({
                    "work": name, "processor": processor(), "isa": Isa::detect().to_string(), "floor_s": floor,
                    "ratio": merge.1, "ratio_min": merge.0, "ratio_max": merge.2,
                    "first_pass_ratio": first.map(|f| f.1), "first_pass_of_peak": peak.map(|p| p.0.1),
                    "first_pass_computing_of_peak": peak.map(|p| p.1.1), "reads": self.reads,
                    "bytes": self.bytes, "write_s": write, "fsync_s": sync, "peak_bytes": self.peak_bytes,
                })
            );
            return;
        }
        let range = |(low, middle, high): (f64, f64, f64)| format!("{middle:.2} ({low:.2} to {high:.2})");
        let bar = match row.bar {
            Bar::Merge(most) => format!("merge {most}"),
            Bar::GeometryPass(most) => format!("pass {most}"),
            Bar::Peak(least) => format!("peak {:.0} %", least * 100.0),
            Bar::None => String::new(),
        };
        println!(
            "{name:<58} {floor:>5.3}s {:>22} {:>22} {:>9} {bar:>12} {write:>7.3}s {sync:>7.3}s {:>5} MiB",
            range(merge),
            first.map_or_else(String::new, range),
            peak.map_or_else(String::new, |(pass, compute)| {
                format!("{:.0}/{:.0} %", pass.1 * 100.0, compute.1 * 100.0)
            }),
            self.peak_bytes >> 20,
        );
    }
}

/// Multiply-adds per second of all threads together.
fn multiply_add_peak(pool: &ThreadPool) -> f64 {
    let rates = pool.broadcast(|_| {
        let started = Instant::now();
        let (count, sum) = multiply_adds(Isa::detect(), 1_000_000);
        std::hint::black_box(sum);
        count as f64 / started.elapsed().as_secs_f64()
    });
    rates.iter().sum()
}

/// Minimum, median, maximum.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

/// Seconds in which all threads read every byte once.
fn read_floor(pool: &ThreadPool, sources: &[SourceFile]) -> f64 {
    let largest = sources.iter().map(SourceFile::bytes).max().unwrap_or(0) as usize;
    let chunks = largest.div_ceil(FLOOR_CHUNK_BYTES);
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    pool.broadcast(|_| {
        let mut buffer = TileBuffer::new(1, FLOOR_CHUNK_BYTES);
        let buffer = buffer.row_mut(0);
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            let (file, chunk) = (piece / chunks, piece % chunks);
            let Some(source) = sources.get(file) else { return };
            let offset = (chunk * FLOOR_CHUNK_BYTES) as u64;
            let len = (source.bytes().saturating_sub(offset) as usize).min(FLOOR_CHUNK_BYTES);
            source.read_exact_at(&mut buffer[..len], offset).expect("update reads");
        }
    });
    started.elapsed().as_secs_f64()
}

/// Makes the updates of a row if they do not exist: nearly normal values in a few tensors of uneven size.
fn make_updates(row: &Row) -> PathBuf {
    let name = format!("{}x{}-{:?}", row.clients, row.parameters, row.dtype);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data").join(name);
    if directory.is_dir() {
        return directory;
    }
    let partial = directory.with_extension("partial");
    fs::create_dir_all(&partial).expect("directory can be made");
    for client in 0..row.clients {
        write_update(&partial.join(format!("client-{client:04}.safetensors")), row, client).expect("written");
    }
    fs::rename(&partial, &directory).expect("renamed");
    directory
}

fn write_update(path: &Path, row: &Row, client: usize) -> std::io::Result<()> {
    let size = row.dtype.bitsize() / 8;
    let mut tensors = BTreeMap::new();
    let (mut begin, mut left, mut layer) = (0, row.parameters, 0);
    while left > 0 {
        // Tensors of a real model differ in size by orders of magnitude.
        let len = if layer % 2 == 0 { 512 } else { 1_000_003 << (layer % 4) }.min(left);
        let data_offsets = (begin, begin + len * size);
        tensors.insert(
            format!("layer.{layer:03}"),
            TensorInfo { dtype: row.dtype, shape: vec![len], data_offsets },
        );
        (begin, left, layer) = (begin + len * size, left - len, layer + 1);
    }
    let mut header = serde_json::to_value(tensors).expect("a header");
    header["__metadata__"] = json!({ "num_examples": (100 + client).to_string() });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(client as u64 + 1);
    for _ in 0..row.parameters {
        // The sum of four uniform numbers is close enough to a normal one.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let sum: u64 = (0..4).map(|i| (state >> (16 * i)) & 0xffff).sum();
        let value = (sum as f32 / 65536.0 - 2.0) * 0.05;
        match row.dtype {
            Dtype::BF16 => file.write_all(&half::bf16::from_f32(value).to_le_bytes())?,
            _ => file.write_all(&value.to_le_bytes())?,
        }
    }
    file.flush()
}

fn processor() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    model.and_then(|line| line.split(':').nth(1)).map_or("unknown processor", str::trim).to_owned()
}
