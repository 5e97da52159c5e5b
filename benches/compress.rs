//! The time to compress an update, file to file, over the floor.
//!
//! The floor reads the update once and writes the number of bytes of the compressed file, with positioned reads and
//! writes from the same threads, from a warm page cache.
//!
//! `cargo bench --bench compress [-- CODEC...]` prints a table. Floor and codec take turns. A ratio belongs to one
//! pair, printed as median (minimum to maximum). The fsync of a published file is left out: it is the disk's time.
//! Decoding is timed as `aggregate` decodes: chunk by chunk, from all threads, into memory.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::codecs::{self, CHUNK};
use fedmill::compress::method::{CompressionMethod, Targets};
use fedmill::compress::run::Compression;
use fedmill::compress::summary::Summary;
use fedmill::io::model_file::TablePool;
use fedmill::io::source::{OpenFiles, SourceFile};
use fedmill::io::synthetic::SyntheticUpdates;
use fedmill::model::dtype::Dtype;
use fedmill::updates;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const PARAMETERS: usize = 100_000_000;

/// Timed pairs of a row.
const PAIRS: usize = 5;

/// Bytes that the floor moves at a time.
const FLOOR_CHUNK_BYTES: usize = 1 << 20;

/// Codecs, each with its limit as a multiple of the floor.
const ROWS: [(&str, Option<f64>); 14] = [
    ("f16", None),
    ("e4m3", None),
    ("mxfp8", None),
    ("u8:block=128", Some(2.0)),
    ("u4:block=64", Some(2.0)),
    ("i4:block=32", None),
    ("u8:block=128,rounding=stochastic", None),
    ("eden1", None),
    ("eden4", Some(6.0)),
    ("topk:fraction=0.01", Some(5.0)),
    ("randk:fraction=0.01", None),
    ("sign", None),
    ("ecsq:bits=0.32", None),
    ("ecsq:bits=4", None),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let pool = ThreadPoolBuilder::new().build().expect("threads");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = SyntheticUpdates::write(Some(target), 1, PARAMETERS, Dtype::F32).expect("an update");
    let update = made.files()[0].clone();
    println!("{} M F32 values, {} threads; floor = 1", PARAMETERS / 1_000_000, pool.current_num_threads());
    println!(
        "{:<34} {:>22} {:>6} {:>16} {:>14} {:>9} {:>10}",
        "codec", "encode / floor", "bar", "encode MB/s core", "decode MB/s core", "bits", "NMSE"
    );
    let targets = [("target=100", 100.0)];
    let rows = ROWS.iter().map(|(codec, bar)| (*codec, *bar, None));
    let rows = rows.chain(targets.map(|(name, ratio)| (name, None, Some(ratio))));
    for (name, bar, ratio) in
        rows.filter(|(name, ..)| asked.is_empty() || asked.iter().any(|a| name.contains(a)))
    {
        let how = match (codecs::parse(name), ratio) {
            (_, Some(ratio)) => {
                CompressionMethod::Targets(Targets { ratio: Some(ratio), ..Targets::default() })
            }
            (Ok(codec), _) => CompressionMethod::Codec(Arc::from(codec)),
            (Err(why), _) => {
                println!("{name:<34} {why}");
                continue;
            }
        };
        row(&pool, &update, name, bar, &how);
    }
}

fn row(pool: &ThreadPool, update: &Path, name: &str, bar: Option<f64>, how: &CompressionMethod) {
    let compression =
        |output| Compression { output, as_is: true, ..Compression::new(update.to_owned(), how.clone()) };
    let packed = update.with_extension("packed");
    let found = compression(Some(packed.clone())).run(pool).expect("compressed");
    let mut ratios = Vec::new();
    let mut seconds = Vec::new();
    for _ in 0..PAIRS {
        let floor = floor(pool, update, found.output_bytes);
        let started = Instant::now();
        compression(None).run(pool).expect("compressed");
        seconds.push(started.elapsed().as_secs_f64());
        ratios.push(started.elapsed().as_secs_f64() / floor);
    }
    let decode = decode(pool, &packed);
    let threads = pool.current_num_threads() as f64;
    let megabytes = 4.0 * PARAMETERS as f64 / 1e6 / threads;
    let Summary { bits_per_parameter, measures, .. } = found;
    println!(
        "{name:<34} {:>22} {:>6} {:>16.0} {:>14.0} {bits_per_parameter:>9.4} {:>10.3e}",
        spread(ratios),
        bar.map_or(String::new(), |bar| bar.to_string()),
        megabytes / median(seconds),
        megabytes / decode,
        measures.nmse
    );
    std::fs::remove_file(packed).expect("removed");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Seconds to read a file and to write `written` bytes.
fn floor(pool: &ThreadPool, update: &Path, written: u64) -> f64 {
    let source = SourceFile::open(update, &OpenFiles::raise_limit()).expect("opened");
    let path = update.with_extension("floor");
    let started = Instant::now();
    let target = File::create(&path).expect("made");
    let ends = |bytes: u64| (0..bytes.div_ceil(FLOOR_CHUNK_BYTES as u64)).into_par_iter();
    pool.install(|| {
        ends(source.bytes()).for_each_init(
            || vec![0u8; FLOOR_CHUNK_BYTES],
            |chunk, number| {
                let offset = number * FLOOR_CHUNK_BYTES as u64;
                let len = (source.bytes() - offset).min(FLOOR_CHUNK_BYTES as u64) as usize;
                source.read_exact_at(&mut chunk[..len], offset).expect("read");
            },
        );
        ends(written).for_each_init(
            || vec![1u8; FLOOR_CHUNK_BYTES],
            |chunk, number| {
                let offset = number * FLOOR_CHUNK_BYTES as u64;
                let len = (written - offset).min(FLOOR_CHUNK_BYTES as u64) as usize;
                target.write_all_at(&chunk[..len], offset).expect("written");
            },
        );
    });
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("removed");
    seconds
}

/// Seconds to decode a file into memory, chunk by chunk.
fn decode(pool: &ThreadPool, packed: &Path) -> f64 {
    let model =
        updates::open(packed, &OpenFiles::raise_limit(), &TablePool::default(), None).expect("opened");
    let decoder = model.decoder.as_ref().expect("encoded");
    let chunks: Vec<(usize, usize, usize)> = model
        .table
        .iter()
        .enumerate()
        .flat_map(|(tensor, place)| {
            let len = place.spec.len;
            (0..len).step_by(CHUNK).map(move |start| (tensor, start, CHUNK.min(len - start)))
        })
        .collect();
    let times = (0..PAIRS).map(|_| {
        let started = Instant::now();
        pool.install(|| {
            chunks.par_iter().for_each_init(
                || vec![0.0f32; CHUNK],
                |out, (tensor, start, len)| {
                    decoder.decode(&model.files, *tensor, *start, &mut out[..*len]).expect("decoded");
                },
            );
        });
        started.elapsed().as_secs_f64()
    });
    median(times.collect())
}
