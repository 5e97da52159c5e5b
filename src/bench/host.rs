//! Kernels on the CPU: tiles in memory, all threads at once.

use super::kernel::{Kernel, LEVEL, STREAM, Value, coefficient, scale, seeds};
use super::sampling::{Sample, timed};
use crate::io::synthetic;
use crate::kernels::clip_integers::add_quantized;
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::discrete_gaussian::noise;
use crate::kernels::element::Merged;
use crate::kernels::field::add_elements;
use crate::kernels::gram::{BLOCK, Product, add_pair_sums, centre};
use crate::kernels::lanes::Isa;
use crate::kernels::masks::add_masks;
use crate::kernels::mean_near_median::mean_near_median;
use crate::kernels::norms::squared_norm;
use crate::kernels::trimmed_mean::trimmed_mean;
use crate::kernels::weighted_sum::add_weighted;
use crate::model::tile::{LINE_BYTES, Rows, TileBuffer};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::hint::black_box;
use std::marker::PhantomData;

/// Bytes of a tile, as in the passes of a merge.
const TILE_BYTES: usize = 256 << 10;

/// Synthetic rows in tiles, which exceed the caches together if the model does.
pub(super) struct HostRows<E> {
    tiles: Vec<Tile>,
    rows: usize,
    float: PhantomData<E>,
}

struct Tile {
    buffer: TileBuffer,
    columns: usize,
}

/// The outputs of a kernel.
struct Scratch<E: Value> {
    weights: Vec<f64>,
    sums: Vec<f64>,
    integers: Vec<i64>,
    elements: Vec<u32>,
    seeds: Vec<[u8; 32]>,
    medians: Vec<E::Median>,
    middle: Vec<E::Mixed>,
    panel: TileBuffer,
    mixed: TileBuffer,
    pairs: Vec<f64>,
}

impl<E: Value> HostRows<E> {
    /// Rows of `clients` clients, cut into the kernel's tiles.
    pub(super) fn new(kernel: Kernel, rows: usize, parameters: usize) -> Self {
        let columns = match kernel {
            Kernel::Pairs => BLOCK,
            _ => (TILE_BYTES / size_of::<E>() / rows).next_multiple_of(LINE_BYTES),
        };
        let starts = (0..parameters).step_by(columns);
        let mut tiles: Vec<Tile> = starts
            .map(|start| columns.min(parameters - start))
            .map(|columns| Tile { buffer: TileBuffer::new(rows, columns * size_of::<E>()), columns })
            .collect();
        for row in 0..rows {
            let mut values = synthetic::values(row as u64);
            for tile in &mut tiles {
                let out: &mut [E] = bytemuck::cast_slice_mut(tile.buffer.row_mut(row));
                for (out, x) in out[..tile.columns].iter_mut().zip(&mut values) {
                    *out = E::nearest(x);
                }
            }
        }
        Self { tiles, rows, float: PhantomData }
    }

    /// Runs a kernel over all tiles.
    pub(super) fn run(&self, kernel: Kernel, isa: Isa, pool: &ThreadPool) -> Sample {
        let work = || {
            let tiles = self.tiles.par_iter();
            tiles.for_each_init(
                || self.scratch(kernel),
                |scratch, tile| {
                    let rows = tile.buffer.rows::<E>(self.rows, tile.columns);
                    scratch.run(kernel, isa, &rows);
                    black_box(scratch);
                },
            );
        };
        Sample::whole(timed(|| pool.install(work)).0)
    }

    fn scratch(&self, kernel: Kernel) -> Scratch<E> {
        let columns = self.tiles.first().map_or(0, |tile| tile.columns);
        let points = if kernel == Kernel::Pairs { self.rows + 1 } else { 0 };
        let mixtures = if kernel == Kernel::MixingMedian { self.rows } else { 0 };
        Scratch {
            weights: (0..self.rows).map(|i| (100 + i) as f64).collect(),
            sums: vec![0.0; columns],
            integers: vec![0; columns],
            elements: vec![0; columns],
            seeds: seeds(self.rows),
            medians: vec![E::Median::default(); columns],
            middle: vec![E::Mixed::default(); columns],
            panel: TileBuffer::new(points, columns * size_of::<f32>()),
            mixed: TileBuffer::new(mixtures, columns * size_of::<f64>()),
            pairs: vec![0.0; points * (points + 1) / 2],
        }
    }
}

impl<E: Value> Scratch<E> {
    fn run(&mut self, kernel: Kernel, isa: Isa, rows: &Rows<E>) {
        let (columns, left_out) = (rows.columns(), Kernel::left_out(rows.len()));
        let sums = &mut self.sums[..columns];
        match kernel {
            Kernel::WeightedSum | Kernel::Norms => {
                sums.fill(0.0);
                add_weighted(isa, rows, &self.weights, sums);
                if kernel == Kernel::Norms {
                    (0..rows.len()).for_each(|i| {
                        black_box(squared_norm(isa, rows.row(i), &[]));
                    });
                }
            }
            Kernel::Median => {
                black_box(coordinate_median(isa, rows, &mut self.medians[..columns]));
            }
            Kernel::TrimmedMean => {
                black_box(trimmed_mean(isa, rows, left_out, sums));
            }
            Kernel::MeanNearMedian => {
                black_box(mean_near_median(isa, rows, rows.len() - left_out, sums));
            }
            Kernel::Integers => {
                let integers = &mut self.integers[..columns];
                integers.fill(0);
                (0..rows.len()).for_each(|i| {
                    black_box(add_quantized(isa, rows.row(i), &[], scale(), integers));
                });
            }
            Kernel::Noise => {
                let integers = &mut self.integers[..columns];
                (0..rows.len()).for_each(|_| noise(isa, STREAM, LEVEL, 0, integers));
            }
            Kernel::Masks => {
                let elements = &mut self.elements[..columns];
                elements.fill(0);
                add_masks(isa, &self.seeds, 0, elements);
            }
            Kernel::Elements => {
                // Two narrow floats make an element. No finite float has the bits of one beyond the prime.
                let used = columns - columns % (size_of::<u32>() / size_of::<E>());
                self.elements.fill(0);
                (0..rows.len()).for_each(|i| {
                    add_elements(isa, bytemuck::cast_slice(&rows.row(i)[..used]), &mut self.elements);
                });
            }
            Kernel::Pairs => self.look_at_pairs(isa, rows),
            Kernel::MixingMedian => self.mix(isa, rows),
        }
    }

    fn look_at_pairs(&mut self, isa: Isa, rows: &Rows<E>) {
        let (n, columns) = (rows.len(), rows.columns());
        let middle = &mut self.middle[..columns];
        coordinate_median(isa, rows, middle);
        for i in 0..n {
            let out: &mut [f32] = bytemuck::cast_slice_mut(self.panel.row_mut(i));
            centre(isa, rows.row(i), middle, &mut out[..columns]);
            self.panel.clear_behind(i, columns * size_of::<f32>());
        }
        let origin: &mut [f32] = bytemuck::cast_slice_mut(self.panel.row_mut(n));
        for (out, middle) in origin.iter_mut().zip(&*middle) {
            *out = -Merged::widen(*middle) as f32;
        }
        self.panel.clear_behind(n, columns * size_of::<f32>());
        add_pair_sums::<Product>(isa, &self.panel.rows(n + 1, columns), 0..n + 1, &mut self.pairs);
    }

    fn mix(&mut self, isa: Isa, rows: &Rows<E>) {
        let (n, sums) = (rows.len(), &mut self.sums[..rows.columns()]);
        for k in 0..n {
            let weights: Vec<f64> = (0..n).map(|i| coefficient(k, i, n)).collect();
            sums.fill(0.0);
            add_weighted(isa, rows, &weights, sums);
            let out: &mut [E::Mixed] = bytemuck::cast_slice_mut(self.mixed.row_mut(k));
            for (out, sum) in out.iter_mut().zip(&*sums) {
                *out = <E::Mixed as Merged>::rounded(*sum);
            }
            self.mixed.clear_behind(k, sums.len() * size_of::<E::Mixed>());
        }
        black_box(coordinate_median(isa, &self.mixed.rows::<E::Mixed>(n, rows.columns()), sums));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use rayon::ThreadPoolBuilder;

    #[test]
    fn every_kernel_runs_on_few_and_odd_sizes() {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for kernel in Kernel::ALL {
            for (rows, parameters) in [(1, 1), (2, 1000), (17, 3001)] {
                HostRows::<f32>::new(kernel, rows, parameters).run(kernel, Isa::detect(), &pool);
                HostRows::<bf16>::new(kernel, rows, parameters).run(kernel, Isa::detect(), &pool);
            }
        }
    }
}
