//! Merges a sample of the GPU's coordinates again on the CPU, before the run publishes.
//!
//! So a run finds a GPU or a driver that computes wrong.
//!
//! The check reads [`RUN`] neighbouring coordinates at a time, from every tile, and at least [`COORDINATES`] in a pass.
//! Medians must agree in every bit, sums within the error bound of their shader.

use crate::engine::passes::blocks::{mix, reduce};
use crate::engine::passes::combine::reducer::GpuReduction;
use crate::engine::passes::combine::weighted_sum::WeightedSum;
use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::gpu::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::step::{Known, StepJob};
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::weighted_sum::add_weighted;
use crate::model::tile::{Rows, TileBuffer};
use crate::rules::OrderStatistic;
use crate::rules::mixing::Mixing;
use crate::updates::set::{UpdateSet, ValueKind};
use std::ops::Range;

/// The number of neighbouring coordinates that the check reads at once.
const RUN: usize = 64;

/// The least number of coordinates that the check reads in a pass.
const COORDINATES: usize = 4096;

/// The rounding error of f32: half a unit in the last place.
const UNIT: f64 = (f32::EPSILON / 2.0) as f64;

/// The error of a term if the GPU flushes subnormals to zero.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// Checks tiles of one pass.
pub(crate) struct SpotCheck<'a> {
    isa: Isa,
    set: &'a UpdateSet,
    reader: TileReader<'a>,
    runs: usize,
}

/// The expected value of a coordinate, and the bound on its error.
struct Expected {
    value: f64,
    bound: f64,
}

impl<'a> SpotCheck<'a> {
    /// Buffers to check tiles of a plan.
    pub(crate) fn new(isa: Isa, set: &'a UpdateSet, reduction: GpuReduction, plan: &TilePlan) -> Self {
        let sample = TilePlan::of_columns(set, reduction.clients().len().max(1), |_| RUN);
        let runs = (COORDINATES / RUN).div_ceil(plan.tiles().max(1));
        Self { isa, set, reader: TileReader::new(isa, set, &sample), runs }
    }

    /// Compares a sample of a tile's merged values from the GPU with the CPU's values of the same rows.
    pub(crate) fn compare<E: Element>(
        &mut self,
        tile: &Tile,
        reduction: GpuReduction,
        merged: &[f64],
        gpu: &Gpu,
    ) -> Result<(), PassError> {
        for run in 0..self.runs {
            let Range { start, end } = columns_of(tile, run);
            let coordinates = tile.coordinates.start + start..tile.coordinates.start + end;
            let part = Tile { coordinates, ..tile.clone() };
            let expected = self.expected::<E>(&part, reduction)?;
            for (i, (found, expected)) in merged[start..end].iter().zip(&expected).enumerate() {
                if (found - expected.value).abs() > expected.bound || !found.is_finite() {
                    return Err(self.wrong(part.coordinates.start + i, *found, expected, gpu).into());
                }
            }
        }
        Ok(())
    }

    /// Compares a sample of the values after the server's step with the CPU's: from the GPU's merged values, the base
    /// and the state.
    pub(crate) fn compare_step(
        &self,
        tile: &Tile,
        step: &StepJob,
        (merged, base, kept): (&[f64], &[f64], &[&[f32]]),
        stepped: &[Vec<f32>],
        gpu: &Gpu,
    ) -> Result<(), GpuError> {
        for j in (0..self.runs).flat_map(|run| columns_of(tile, run)) {
            let before: Vec<f64> = kept.iter().map(|values| f64::from(values[j])).collect();
            for (row, known) in stepped.iter().zip(step.expected(merged[j], base[j], &before)) {
                let (found, Known { value, within: bound }) = (f64::from(row[j]), known);
                if (found - value).abs() > bound || !found.is_finite() {
                    return Err(self.wrong(
                        tile.coordinates.start + j,
                        found,
                        &Expected { value, bound },
                        gpu,
                    ));
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, coordinate: usize, found: f64, expected: &Expected, gpu: &Gpu) -> GpuError {
        let (tensor, index) = self.set.layout.locate(coordinate);
        GpuError::Wrong {
            adapter: gpu.adapter().name.clone(),
            what: format!("tensor `{}` at flat index {index}", tensor.name),
            found,
            expected: expected.value,
            bound: expected.bound,
        }
    }

    fn expected<E: Element>(
        &mut self,
        part: &Tile,
        reduction: GpuReduction,
    ) -> Result<Vec<Expected>, PassError> {
        let clients = reduction.clients();
        let brings_base = self.set.value_kind == ValueKind::AsSent && self.set.base.is_some();
        if brings_base {
            self.reader.read_finite_base(part)?;
        }
        self.reader.read::<E>(part, clients)?;
        let rows = self.reader.rows::<E>(part, clients.len());
        let select = match reduction {
            GpuReduction::Sum(sum) => return Ok(self.sums(&rows, sum)),
            GpuReduction::Select(select) => select,
        };
        Ok(match select.mixing {
            None => self.selected(&rows, select.statistic, &vec![0.0; rows.columns()]),
            Some(mixing) => {
                let base = if brings_base { self.reader.base() } else { &[] };
                let mut mixed = TileBuffer::new(mixing.len(), RUN * size_of::<f64>());
                mix::<E, E::Mixed>(self.isa, &rows, clients, mixing, base, 1.0, &mut mixed);
                let within = mixed_bounds(&rows, clients, mixing, base);
                let mixtures = mixed.rows::<E::Mixed>(mixing.len(), rows.columns());
                self.selected(&mixtures, select.statistic, &within)
            }
        })
    }

    fn sums<E: Element>(&self, rows: &Rows<E>, sum: &WeightedSum) -> Vec<Expected> {
        let mut values = vec![0.0; rows.columns()];
        add_weighted(self.isa, rows, &sum.weights, &mut values);
        let bound = |j: usize| {
            let terms = sum.weights.iter().enumerate().map(|(i, w)| (w * rows.row(i)[j].widen()).abs());
            sum_bound(rows.len(), terms.sum()) + FLUSHED * sum.weights.iter().map(|w| w.abs()).sum::<f64>()
        };
        values.iter().enumerate().map(|(j, value)| Expected { value: *value, bound: bound(j) }).collect()
    }

    /// The expected order statistics of rows, whose values have the error bound `within` in each column.
    fn selected<E: Element>(
        &self,
        rows: &Rows<E>,
        statistic: OrderStatistic,
        within: &[f64],
    ) -> Vec<Expected> {
        let mut values = vec![0.0; rows.columns()];
        reduce(self.isa, statistic, rows, &mut values);
        let expected = |(j, value): (usize, &f64)| {
            let mut column: Vec<f64> = (0..rows.len()).map(|i| rows.row(i)[j].widen()).collect();
            column.sort_by(f64::total_cmp);
            Expected { value: *value, bound: selected_bound(&column, statistic, within[j]) }
        };
        values.iter().enumerate().map(expected).collect()
    }
}

/// The error bound of a sum on the GPU, by the number of terms and the sum of their magnitudes.
fn sum_bound(terms: usize, magnitude: f64) -> f64 {
    // Bisection divides up to 10,240 values among at least 8 lanes, in groups of 40.
    (64.0 + terms as f64 / 64.0 + 16.0) * UNIT * magnitude
}

/// The error bound of an order statistic of a sorted column, whose values have the error bound `within`.
fn selected_bound(sorted: &[f64], statistic: OrderStatistic, within: f64) -> f64 {
    let n = sorted.len();
    let mean_bound = |kept: &[f64]| {
        let magnitude: f64 = kept.iter().map(|x| x.abs()).sum();
        sum_bound(kept.len(), magnitude) / kept.len() as f64 + FLUSHED
    };
    match statistic {
        OrderStatistic::Median => within,
        OrderStatistic::TrimmedMean { cut } => within + mean_bound(&sorted[cut..n - cut]),
        OrderStatistic::MeanNearMedian { kept } => {
            let (below, above) = (sorted[(n - 1) / 2], sorted[n / 2]);
            let farther = |i: &usize| below - sorted[*i] > sorted[*i + kept] - above;
            let first = (0..n - kept).filter(farther).count();
            let near = &sorted[first..first + kept];
            // With errors, values may change places at both ends of the kept ones.
            let changed = if within > 0.0 { 2.0 * (near[kept - 1] - near[0] + within) } else { 0.0 };
            within + changed + mean_bound(near)
        }
    }
}

/// The error bound of mixtures of rows on the GPU, for each column.
fn mixed_bounds<E: Element>(rows: &Rows<E>, clients: &[usize], mixing: &Mixing, base: &[f64]) -> Vec<f64> {
    let bound = |j: usize| {
        let mixture = |k: usize| {
            let row = mixing.row(k);
            let own =
                clients.iter().enumerate().map(|(i, client)| (row[*client] * rows.row(i)[j].widen()).abs());
            let rest = 1.0 - clients.iter().map(|client| row[*client]).sum::<f64>();
            let magnitude = own.sum::<f64>() + base.get(j).map_or(0.0, |base| (rest * base).abs());
            sum_bound(rows.len(), magnitude) + FLUSHED
        };
        (0..mixing.len()).map(mixture).fold(0.0, f64::max)
    };
    (0..rows.columns()).map(bound).collect()
}

/// The columns of a sample of a tile.
fn columns_of(tile: &Tile, run: usize) -> Range<usize> {
    let columns = tile.coordinates.len();
    let start = sampled(tile.number, run) % columns.div_ceil(RUN) * RUN;
    start..(start + RUN).min(columns)
}

/// The place of a sample, pseudo-random by tile (a step of splitmix64).
fn sampled(tile: usize, run: usize) -> usize {
    let mut x = (tile as u64) << 20 ^ run as u64;
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 33) as usize
}
