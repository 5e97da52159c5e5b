//! Kernels on data in the cache, on every instruction set: `cargo bench --bench kernels`.
//!
//! Sums over pairs of rows are printed as a part of the multiply-add peak of the same core. Order statistics and
//! weighted sums (plain, exact by counts, exact by fractions) are printed in nanoseconds per coordinate. The best of a
//! few runs counts.

#![allow(clippy::expect_used, reason = "a bench that cannot go on must stop")]

use fedmill::kernels::coordinate_median::coordinate_median;
use fedmill::kernels::gram::{BLOCK, Product, SquaredDifference, Term, add_pair_sums};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::mean_near_median::mean_near_median;
use fedmill::kernels::peak::multiply_adds;
use fedmill::kernels::trimmed_mean::trimmed_mean;
use fedmill::kernels::weighted_sum::{add_weighted, add_weighted_exactly};
use fedmill::model::tile::{Rows, TileBuffer};
use std::time::Instant;

const RUNS: usize = 7;

fn main() {
    for isa in Isa::available() {
        let peak = multiply_add_peak(isa);
        println!("{isa}: {:.1} G multiply-adds a second", peak / 1e9);
        println!(
            "{:>6} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "rows", "products", "differences", "median", "trimmed", "near", "sum", "exact", "fractions"
        );
        for n in [8, 16, 32, 64, 128, 256] {
            let tile = filled(n);
            let rows = tile.rows::<f32>(n, BLOCK);
            let columns = |kernel: &dyn Fn(&mut [f64]) -> bool| {
                let mut out = vec![0.0; BLOCK];
                best(|| assert!(kernel(&mut out))) / BLOCK as f64 * 1e9
            };
            let counts: Vec<f64> = (0..n).map(|i| (100 + i) as f64).collect();
            let fractions: Vec<f64> = (0..n).map(|i| 1.0 / (100 + i) as f64).collect();
            let exact = |weights: &[f64]| {
                let (mut sums, mut errors) = (vec![0.0; BLOCK], vec![0.0; BLOCK]);
                best(|| add_weighted_exactly(isa, &rows, weights, &mut sums, &mut errors)) / BLOCK as f64
                    * 1e9
            };
            println!(
                "{n:>6} {:>8.0} % {:>10.0} % {:>7.1} ns {:>7.1} ns {:>7.1} ns {:>7.1} ns {:>7.1} ns {:>7.1} ns",
                pair_rate::<Product>(isa, &rows) / peak * 100.0,
                pair_rate::<SquaredDifference>(isa, &rows) / peak * 100.0,
                columns(&|out| coordinate_median(isa, &rows, out)),
                columns(&|out| trimmed_mean(isa, &rows, n / 5, out)),
                columns(&|out| mean_near_median(isa, &rows, n - n / 5, out)),
                columns(&|out| {
                    add_weighted(isa, &rows, &counts, out);
                    true
                }),
                exact(&counts),
                exact(&fractions),
            );
        }
    }
}

fn multiply_add_peak(isa: Isa) -> f64 {
    let mut count = 0;
    let seconds = best(|| {
        let (done, sum) = multiply_adds(isa, 200_000);
        count = done;
        std::hint::black_box(sum);
    });
    count as f64 / seconds
}

/// Pairs times coordinates per second.
fn pair_rate<T: Term>(isa: Isa, rows: &Rows<f32>) -> f64 {
    let n = rows.len();
    let mut sums = vec![0.0; n * (n + 1) / 2];
    let pairs = n * (n + 1) / 2 * BLOCK;
    let repeats = (2_000_000 / pairs).max(1);
    let seconds = best(|| (0..repeats).for_each(|_| add_pair_sums::<T>(isa, rows, 0..n, &mut sums)));
    (pairs * repeats) as f64 / seconds
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

fn filled(rows: usize) -> TileBuffer {
    let mut tile = TileBuffer::new(rows, BLOCK * size_of::<f32>());
    for i in 0..rows {
        let row: &mut [f32] = bytemuck::cast_slice_mut(tile.row_mut(i));
        for (j, x) in row[..BLOCK].iter_mut().enumerate() {
            *x = ((i * 7919 + j * 104_729) % 100_003) as f32 / 50_000.0 - 1.0;
        }
    }
    tile
}
