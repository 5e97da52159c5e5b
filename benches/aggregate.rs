//! Whole merges against the read floor: the time in which the same process reads the same bytes once with
//! positioned reads, page cache warm.
//!
//! `cargo bench --bench aggregate [-- FILTER]` prints a table; `--json` prints one line a row. Updates are made
//! once, under `target/bench-data`, and stay there. Floor and merge take turns in one process; ratios are
//! of the pair, quoted as median (minimum to maximum). The output's own write and fsync are apart. Peak
//! memory is that of `fedmill aggregate` as a process of its own on the same files.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::io::source::{OpenFiles, SourceFile};
use fedmill::kernels::lanes::Isa;
use fedmill::model::tile::TileBuffer;
use fedmill::round::merge::{Job, OnBadUpdate};
use fedmill::round::roster::Expectations;
use fedmill::round::weights::Weighting;
use fedmill::rules;
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
    clients: usize,
    parameters: usize,
    dtype: Dtype,
    bar: f64,
}

const ROWS: [Row; 5] = [
    Row { rule: "mean", clients: 32, parameters: 11_700_000, dtype: Dtype::F32, bar: 1.5 },
    Row { rule: "median", clients: 32, parameters: 11_700_000, dtype: Dtype::F32, bar: 2.5 },
    Row { rule: "trimmed-mean:cut=0.2", clients: 32, parameters: 11_700_000, dtype: Dtype::F32, bar: 2.5 },
    Row { rule: "median", clients: 256, parameters: 1_000_000, dtype: Dtype::F32, bar: 8.0 },
    Row { rule: "median", clients: 8, parameters: 100_000_000, dtype: Dtype::BF16, bar: 2.0 },
];

fn main() {
    // `cargo bench` passes --bench; what else there is filters rows.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let as_json = arguments.iter().any(|a| a == "--json");
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let pool = ThreadPoolBuilder::new().build().expect("threads can be started");
    if !as_json {
        println!("{} with {} threads, {}", processor(), pool.current_num_threads(), Isa::detect());
        println!(
            "{:<52} {:>6} {:>22} {:>5} {:>9} {:>9} {:>9} {:>9}",
            "work", "floor", "merge / floor", "bar", "GB/s", "write", "fsync", "peak"
        );
    }
    for row in ROWS {
        let name = row.name();
        if filters.iter().all(|filter| name.contains(filter.as_str())) {
            let measured = row.measure(&pool);
            measured.print(&name, row.bar, as_json);
        }
    }
}

struct Measured {
    floors: Vec<f64>,
    merges: Vec<f64>,
    writes: Vec<f64>,
    syncs: Vec<f64>,
    bytes: u64,
    peak_bytes: u64,
}

impl Row {
    fn name(&self) -> String {
        let millions = self.parameters as f64 / 1e6;
        format!("{}, {} updates of {millions} M {:?}", self.rule, self.clients, self.dtype)
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
            writes: Vec::new(),
            syncs: Vec::new(),
            bytes: sources.iter().map(SourceFile::bytes).sum(),
            peak_bytes: self.peak_bytes(&directory, &output),
        };
        read_floor(pool, &sources);
        for _ in 0..PAIRS {
            measured.floors.push(read_floor(pool, &sources));
            let timings = self.merge(pool, &directory, &output).timings;
            measured.merges.push(timings.total_s - timings.write_s - timings.sync_s);
            measured.writes.push(timings.write_s);
            measured.syncs.push(timings.sync_s);
        }
        fs::remove_file(output).expect("merged model can be removed");
        measured
    }

    fn merge(&self, pool: &ThreadPool, updates: &Path, output: &Path) -> Report {
        let job = Job {
            updates: vec![updates.to_owned()],
            base: None,
            rule: rules::parse(self.rule).expect("a rule").into(),
            byzantine: None,
            weighting: Weighting::Default,
            min_clients: 1,
            on_bad_update: OnBadUpdate::Fail,
            expected: Expectations::default(),
            output: output.to_owned(),
            max_shard_bytes: None,
            report: None,
            other_inputs: Vec::new(),
            isa: Isa::detect(),
        };
        job.run(pool, &Progress::hidden()).expect("the updates merge")
    }

    /// Runs the command once, which also warms the page cache.
    fn peak_bytes(&self, updates: &Path, output: &Path) -> u64 {
        let report = output.with_extension("json");
        let status = Command::new(env!("CARGO_BIN_EXE_fedmill"))
            .args(["aggregate", "--quiet", "--rule", self.rule, "--report"])
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
    fn print(&self, name: &str, bar: f64, as_json: bool) {
        let ratios: Vec<f64> = self.merges.iter().zip(&self.floors).map(|(m, f)| m / f).collect();
        let (low, ratio, high) = spread(&ratios);
        let (_, floor, _) = spread(&self.floors);
        let (_, merge, _) = spread(&self.merges);
        let (_, write, _) = spread(&self.writes);
        let (_, sync, _) = spread(&self.syncs);
        let gigabytes = self.bytes as f64 / merge / 1e9;
        let mebibytes = self.peak_bytes >> 20;
        if as_json {
            println!(
                "{}",
                json!({
                    "work": name, "processor": processor(), "isa": Isa::detect().to_string(), "floor_s": floor,
                    "merge_s": merge, "ratio": ratio, "ratio_min": low, "ratio_max": high, "bar": bar,
                    "bytes": self.bytes, "write_s": write, "fsync_s": sync, "peak_bytes": self.peak_bytes,
                })
            );
            return;
        }
        println!(
            "{name:<52} {floor:>5.3}s {:>22} {bar:>5} {gigabytes:>9.1} {write:>8.3}s {sync:>8.3}s {mebibytes:>5} MiB",
            format!("{ratio:.2} ({low:.2} to {high:.2})"),
        );
    }
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

/// Makes the updates of a row, unless they are there: normal-looking values in a few tensors of uneven size.
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
        // The sum of four uniform numbers is near enough to a normal one.
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
