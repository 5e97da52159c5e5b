//! The kernels of secure aggregation: `cargo bench --bench secure`.
//!
//! On one core and every instruction set it prints the keystream of masks in GB/s, and the time in which a client
//! makes the mask of a million lanes from ten seeds (five helpers, three of whom suffice). With all threads it prints
//! the time in which a helper adds up the masks of 1,000 clients, six seeds each, and sums of rows against reading
//! these rows. The best of some runs counts.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::kernels::field::{self, P};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::masks::add_masks;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::hint::black_box;
use std::time::Instant;

const RUNS: usize = 25;

/// Lanes of an update.
const LANES: usize = 1_000_000;
/// Seeds that a client draws.
const CLIENT_SEEDS: usize = 10;
/// Seeds of a client that a helper holds.
const HELPER_SEEDS: usize = 6;
const CLIENTS: usize = 1_000;

/// Lanes that a thread takes at a time.
const PORTION: usize = 1 << 14;

/// Rows whose sum is timed. They exceed the caches.
const ROWS: usize = 64;
const COLUMNS: usize = 1 << 21;

fn main() {
    for isa in Isa::available() {
        println!("{isa}, one core:");
        for count in [1, 2, HELPER_SEEDS, CLIENT_SEEDS, 1_000] {
            println!("  keystream of {count:>5} seeds: {:>6.2} GB/s", keystream(isa, count));
        }
        let mut mask = vec![0; LANES];
        let seeds = seeds(CLIENT_SEEDS);
        let seconds = best(|| add_masks(isa, &seeds, 0, &mut mask));
        println!("  a client's mask: {:.1} ms", seconds * 1e3);
    }
    let pool = ThreadPoolBuilder::new().build().expect("threads");
    let isa = Isa::detect();
    println!("{} threads, {isa}:", pool.current_num_threads());
    println!("  a helper's sum: {:.2} s", helper(&pool, isa));
    sums_of_rows(&pool, isa);
}

fn seeds(count: usize) -> Vec<[u8; 32]> {
    (0..count).map(|i| std::array::from_fn(|byte| (i * 31 + byte + i / 256) as u8)).collect()
}

/// Gigabytes of keystream a second.
fn keystream(isa: Isa, count: usize) -> f64 {
    let (seeds, len) = (seeds(count), (1 << 20) / count / 256 * 256);
    let mut sums = vec![0; len];
    let seconds = best(|| add_masks(isa, &seeds, 0, &mut sums));
    (count * len * size_of::<u32>()) as f64 / seconds / 1e9
}

/// Seconds in which all threads add up the masks of all clients, once for each seed that a client gives a helper.
fn helper(pool: &ThreadPool, isa: Isa) -> f64 {
    let sets: Vec<Vec<[u8; 32]>> = (0..HELPER_SEEDS).map(|_| seeds(CLIENTS)).collect();
    let mut sums = vec![0; LANES];
    let started = Instant::now();
    pool.install(|| {
        sums.par_chunks_mut(PORTION).enumerate().for_each(|(place, sums)| {
            let mut of_set = vec![0; sums.len()];
            for (set, factor) in sets.iter().zip(1..) {
                of_set.fill(0);
                add_masks(isa, set, (place * PORTION) as u64, &mut of_set);
                field::add_multiple(isa, factor, &of_set, sums);
            }
        });
    });
    started.elapsed().as_secs_f64()
}

fn sums_of_rows(pool: &ThreadPool, isa: Isa) {
    let rows: Vec<Vec<u32>> = (0..ROWS as u32).map(|row| vec![P - 1 - row; COLUMNS]).collect();
    let mut sums = vec![0; COLUMNS];
    let mut rate = |work: &(dyn Fn(&[u32], &mut [u32]) + Sync)| {
        let seconds = best(|| {
            pool.install(|| {
                sums.par_chunks_mut(PORTION).enumerate().for_each(|(place, sums)| {
                    rows.iter().for_each(|row| work(&row[place * PORTION..][..sums.len()], sums));
                });
            });
        });
        (ROWS * COLUMNS * size_of::<u32>()) as f64 / seconds / 1e9
    };
    let read = rate(&|row, _| assert!(black_box(field::all_below(isa, row))));
    let sum = rate(&|row, sums| field::add_elements(isa, row, sums));
    let multiples = rate(&|row, sums| field::add_multiple(isa, P / 3, row, sums));
    println!(
        "  reading {ROWS} rows: {read:.1} GB/s; their sum: {sum:.1} GB/s; multiples: {multiples:.1} GB/s"
    );
}

fn best(mut work: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let started = Instant::now();
        work();
        least = least.min(started.elapsed().as_secs_f64());
    }
    least
}
