//! A round under a budget, file to file, against the read floor.
//!
//! The floor is the time in which the same threads read the bytes of all updates once, from a warm page cache. The
//! noise is timed separately. The limit for the round without its noise is 8 times the floor.
//!
//! `cargo bench --bench private` prints a table. Floor, noise and round take turns. Figures are median (minimum to
//! maximum). The output's own write and fsync are left out: they are the disk's time. The ledger's syncs and the
//! output's digest count, with the norms, as the time outside the pass that adds up. Every round has its own budget in
//! a temporary folder, and noise of a test seed.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::budget::account::Account;
use fedmill::engine::aggregate::request::{Inputs, Request};
use fedmill::engine::decide::method::Method;
use fedmill::engine::passes::machine::Machine;
use fedmill::io::source::{OpenFiles, SourceFile};
use fedmill::io::synthetic::SyntheticUpdates;
use fedmill::kernels::chacha20::Stream;
use fedmill::kernels::discrete_gaussian::{Level, noise};
use fedmill::kernels::lanes::Isa;
use fedmill::model::dtype::Dtype;
use fedmill::model::tile::TileBuffer;
use fedmill::modes::dp::release::{self, Options};
use fedmill::privacy::event::Adjacency;
use fedmill::privacy::ledger::plan::{Accountant, BudgetPlan, ClipBound, Sampling, Unit};
use fedmill::rules;
use fedmill::settings::Definition;
use fedmill::telemetry::progress::Progress;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const CLIENTS: usize = 32;
const PARAMETERS: usize = 11_700_000;

/// Timed turns.
const TURNS: usize = 9;

/// Bytes that the floor reads at a time.
const FLOOR_CHUNK_BYTES: usize = 1 << 20;

/// Coordinates that noise is made for at a time.
const NOISE_CHUNK: usize = 1 << 14;

/// The limit for a round without its noise, as a multiple of the floor.
const BAR: f64 = 8.0;

fn main() {
    let pool = ThreadPoolBuilder::new().build().expect("threads");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    println!("{} threads, {}, times in seconds", pool.current_num_threads(), Isa::detect());
    println!(
        "{:<36} {:>26} {:>26} {:>26} {:>26} {:>26}",
        "updates", "floor", "noise", "round", "but for adding up", "(round - noise) / floor"
    );
    for dtype in [Dtype::F32, Dtype::BF16] {
        let made =
            SyntheticUpdates::write(Some(target), CLIENTS + 1, PARAMETERS, dtype).expect("the updates");
        let base = made.updates().with_file_name("base.safetensors");
        fs::rename(&made.files()[CLIENTS], &base).expect("a base");
        row(&pool, &made, &base, dtype);
    }
}

fn row(pool: &ThreadPool, made: &SyntheticUpdates, base: &Path, dtype: Dtype) {
    let files = OpenFiles::raise_limit();
    let open = |path: &PathBuf| SourceFile::open(path, &files).expect("an update");
    let sources: Vec<SourceFile> = made.files()[..CLIENTS].iter().map(open).collect();
    let mut columns: [Vec<f64>; 5] = Default::default();
    let turn = || {
        let (floor, noise) = (read_floor(pool, &sources), noise_alone(pool));
        let (round, first_pass) = round(pool, made, base);
        [floor, noise, round, first_pass, (round - noise) / floor]
    };
    turn();
    for _ in 0..TURNS {
        columns.iter_mut().zip(turn()).for_each(|(column, figure)| column.push(figure));
    }
    print!("{:<36}", format!("{CLIENTS} of {} M {dtype}", PARAMETERS as f64 / 1e6));
    columns.into_iter().for_each(|column| print!(" {:>26}", spread(column)));
    println!("; bar {BAR}");
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.3} ({:.3} to {:.3})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Seconds to release a round without writing and syncing the output, and the part of these outside the pass that adds
/// up.
fn round(pool: &ThreadPool, made: &SyntheticUpdates, base: &Path) -> (f64, f64) {
    let directory = made.updates().with_file_name("budget");
    Account::init(&directory, &plan()).expect("a budget");
    let request = request(made, base);
    let options = Options { test_seed: Some(1), ..Options::new(directory.clone()) };
    let progress = Progress::hidden();
    let machine = Machine::new(Isa::detect(), pool, &progress);
    let started = Instant::now();
    let report = release::run(request, &options, machine).expect("a release");
    let all = started.elapsed().as_secs_f64();
    fs::remove_dir_all(directory).expect("removed");
    let timings = report.timings;
    let disk = timings.write_s + timings.sync_s;
    (all - disk, all - disk - timings.pass_s)
}

fn plan() -> BudgetPlan {
    let plan = BudgetPlan {
        epsilon: 8.0,
        delta: 1e-6,
        population: 10_000,
        sampling: Sampling::Poisson,
        sampling_rate: 0.0032,
        noise_multiplier: 1.0,
        rounds: 10,
        clip: ClipBound::Fixed(100.0),
        denominator: CLIENTS as u64,
        adjacency: Adjacency::AddOrRemoveOne,
        unit: Unit::Client,
        dimension: Some(PARAMETERS as u64),
        level: None,
        correlated: None,
        tensors_sha256: None,
        accountant: Accountant::Rdp,
    };
    BudgetPlan { level: Some(plan.level_for(PARAMETERS as u64)), ..plan }
}

fn request(made: &SyntheticUpdates, base: &Path) -> Request {
    let rule = rules::parse("mean", Definition::Paper).expect("a rule");
    let request = Request::new(vec![made.updates().to_owned()], Method::new(rule), made.output());
    Request { inputs: Inputs { base: Some(base.to_owned()), ..request.inputs }, ..request }
}

/// Calls `visit` with the number of every piece, from all threads.
fn each_piece(
    pool: &ThreadPool,
    pieces: usize,
    bytes: usize,
    visit: impl Fn(usize, &mut [u8]) + Sync,
) -> f64 {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    pool.broadcast(|_| {
        let mut buffer = TileBuffer::new(1, bytes);
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            visit(piece, &mut buffer.row_mut(0)[..bytes]);
        }
    });
    started.elapsed().as_secs_f64()
}

/// Seconds in which all threads read every byte once.
fn read_floor(pool: &ThreadPool, sources: &[SourceFile]) -> f64 {
    let largest = sources.iter().map(SourceFile::bytes).max().unwrap_or(0) as usize;
    let chunks = largest.div_ceil(FLOOR_CHUNK_BYTES);
    each_piece(pool, sources.len() * chunks, FLOOR_CHUNK_BYTES, |piece, buffer| {
        let (source, offset) = (&sources[piece / chunks], piece % chunks * FLOOR_CHUNK_BYTES);
        let len = (source.bytes() as usize).saturating_sub(offset).min(FLOOR_CHUNK_BYTES);
        source.read_exact_at(&mut buffer[..len], offset as u64).expect("read");
    })
}

/// Seconds in which all threads make the noise of a round.
fn noise_alone(pool: &ThreadPool) -> f64 {
    let stream = Stream { key: &[7; 32], domain: 1, segment: 0 };
    let pieces = PARAMETERS.div_ceil(NOISE_CHUNK);
    each_piece(pool, pieces, NOISE_CHUNK * size_of::<i64>(), |piece, buffer| {
        let first = piece * NOISE_CHUNK;
        let out = &mut bytemuck::cast_slice_mut::<u8, i64>(buffer)[..NOISE_CHUNK.min(PARAMETERS - first)];
        noise(Isa::detect(), stream, Level::L2, first as u64, out);
    })
}
