//! The second pass: combines every tile by the rule's recipe and hands on the merged values.

use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::kernels::convert::{all_within, encode};
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;
use crate::kernels::trimmed_mean::trimmed_mean;
use crate::kernels::weighted_sum::add_weighted;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::model::tile::{LINE_BYTES, Rows, TileBuffer};
use crate::round::passes::{Clock, InTileOrder, PassError, for_each_tile};
use crate::round::roster::{Frame, UpdateSet};
use crate::round::tiles::{Tile, TilePlan};
use crate::round::workspace::Workspace;
use crate::rules::Recipe;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

/// Why the pass stopped.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum CombineError {
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("an update holds a value that is not finite")]
    NonFinite,
    #[error("{}: tensor `{tensor}` of the base holds {value} at flat index {index}, expected a finite number", .path.display())]
    BaseNotFinite { path: PathBuf, tensor: String, index: usize, value: f64 },
    #[error("tensor `{tensor}`: the merged value {value} at flat index {index} does not fit {dtype}")]
    DoesNotFit { tensor: String, index: usize, value: f64, dtype: Dtype },
}

impl From<Interrupted> for CombineError {
    fn from(interrupted: Interrupted) -> Self {
        Self::Pass(interrupted.into())
    }
}

impl CombineError {
    /// Whether an update with NaN or infinity may be the cause.
    pub fn may_be_non_finite(&self) -> bool {
        match self {
            Self::NonFinite => true,
            Self::DoesNotFit { value, .. } => !value.is_finite(),
            Self::Pass(_) | Self::Write(_) | Self::BaseNotFinite { .. } => false,
        }
    }
}

/// What the pass found besides the merged model.
#[derive(Debug)]
pub struct Combined {
    /// L2 norm of each client's delta, if asked for.
    pub norms: Option<Vec<f64>>,
    /// Where the time went, added over the threads.
    pub clock: Clock,
}

/// The second pass, ready to run.
pub struct Pass<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates.
    pub set: &'a UpdateSet,
    /// How to combine them.
    pub recipe: &'a Recipe,
    /// Whether to measure the norm of each delta on the way.
    pub with_norms: bool,
    /// Told about every tile.
    pub progress: &'a Progress,
}

/// Rows that a sum holds at once: it needs no more, and short columns of many rows would be slow to read.
const SUMMED_ROWS: usize = 4;

/// Bytes of all rows that are worked on at once: they stay in the second-level cache from one kernel to the next.
const BLOCK_BYTES: usize = 256 << 10;

/// What a worker needs besides its rows.
struct Worker<'a> {
    space: Workspace<'a>,
    sums: Vec<f64>,
    encoded: TileBuffer,
    squared_norms: Vec<f64>,
}

impl Pass<'_> {
    /// Runs the pass; `write` takes the encoded values of each tile, in any order.
    ///
    /// # Errors
    ///
    /// When an update cannot be read or is not finite, or a merged value cannot be stored or written.
    pub fn run(
        &self,
        pool: &ThreadPool,
        write: impl Fn(&Tile, &[u8]) -> Result<(), WriteError> + Sync,
    ) -> Result<Combined, CombineError> {
        let clients = self.set.clients.len();
        let rows_at_once = match self.recipe {
            Recipe::WeightedMean { .. } => SUMMED_ROWS.min(clients),
            Recipe::Median | Recipe::TrimmedMean { .. } => clients,
        };
        let plan = TilePlan::new(self.set, rows_at_once);
        let norms = InTileOrder::new(vec![0.0; clients], |sums, parts: Vec<f64>| add_rows(sums, &parts));
        let workers = for_each_tile(
            pool,
            &plan,
            || self.new_worker(&plan),
            |worker, tile| {
                match tile.working {
                    Working::BF16 => self.merge_tile::<bf16>(worker, tile),
                    Working::F16 => self.merge_tile::<f16>(worker, tile),
                    Working::F32 => self.merge_tile::<f32>(worker, tile),
                    Working::F64 => self.merge_tile::<f64>(worker, tile),
                }?;
                norms.add(tile.number, std::mem::take(&mut worker.squared_norms));
                let bytes = &worker.encoded.row_mut(0)[..tile.coordinates.len() * tile.dtype.bytes()];
                worker.space.clock.time(|clock| &mut clock.write, || write(tile, bytes))?;
                self.progress.advance((clients * bytes.len()) as u64);
                Ok::<_, CombineError>(())
            },
        )?;
        let clock = workers.iter().map(|worker| worker.space.clock).fold(Clock::default(), Clock::and);
        let norms = self.with_norms.then(|| norms.finish().into_iter().map(f64::sqrt).collect());
        Ok(Combined { norms, clock })
    }

    fn new_worker(&self, plan: &TilePlan) -> Worker<'_> {
        Worker {
            space: Workspace::new(self.isa, self.set, plan),
            sums: Vec::new(),
            encoded: TileBuffer::new(1, plan.most_columns() * size_of::<f64>()),
            squared_norms: Vec::new(),
        }
    }

    /// Merges one tile into `worker.encoded`.
    fn merge_tile<E: Element>(&self, worker: &mut Worker, tile: &Tile) -> Result<(), CombineError> {
        let as_sent = self.set.frame == Frame::AsSent;
        if self.with_norms || !as_sent {
            worker.space.read_base(tile)?;
        }
        if !as_sent {
            self.check_base(worker.space.base(), tile)?;
        }
        let before = worker.space.clock.read;
        let started = Instant::now();
        match self.recipe {
            Recipe::WeightedMean { weights } => match self.sum_tile::<E>(worker, tile, weights) {
                // Numbers near the end of f64 add up past it, though their mean does not.
                Err(CombineError::DoesNotFit { value, .. })
                    if E::DTYPE == Dtype::F64 && !value.is_finite() =>
                {
                    worker.squared_norms.clear();
                    self.sum_tile::<E>(worker, tile, &scaled_down(weights))?;
                }
                done => done?,
            },
            Recipe::Median if tile.dtype == E::DTYPE && as_sent => {
                self.select_tile::<E, E::Median>(worker, tile, |rows, merged| {
                    coordinate_median(self.isa, rows, merged)
                })?;
            }
            Recipe::Median => self.select_tile::<E, f64>(worker, tile, |rows, merged| {
                coordinate_median(self.isa, rows, merged)
            })?,
            Recipe::TrimmedMean { cut } => self.select_tile::<E, f64>(worker, tile, |rows, merged| {
                trimmed_mean(self.isa, rows, *cut, merged)
            })?,
        }
        let read = worker.space.clock.read - before;
        worker.space.clock.compute += started.elapsed().saturating_sub(read);
        Ok(())
    }

    /// Sums a few rows at a time. A value that is not finite shows in the merged value.
    fn sum_tile<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        weights: &[f64],
    ) -> Result<(), CombineError> {
        let columns = tile.coordinates.len();
        let mut sums = std::mem::take(&mut worker.sums);
        sums.clear();
        sums.resize(columns, 0.0);
        for (group, weights) in weights.chunks(SUMMED_ROWS).enumerate() {
            let first = group * SUMMED_ROWS;
            worker.space.read::<E>(tile, first..first + weights.len())?;
            worker.space.subtract_base::<E>(tile, first..first + weights.len());
            let rows = worker.space.rows::<E>(tile, weights.len());
            for block in blocks::<E>(weights.len(), columns) {
                add_weighted(self.isa, &rows.at(block.clone()), weights, &mut sums[block]);
            }
            let squares = self.squared_norms(&worker.space, &rows, first, 0..columns, tile);
            worker.squared_norms.extend(squares);
        }
        let divisor: f64 = weights.iter().sum();
        for block in blocks::<f64>(1, columns) {
            let merged = &mut sums[block.clone()];
            for sum in &mut *merged {
                *sum /= divisor;
            }
            self.finish_block(worker, tile, block, merged)?;
        }
        worker.sums = sums;
        Ok(())
    }

    /// Merges all rows, a block of columns at a time, by a kernel that says whether all values are finite.
    fn select_tile<E: Element, F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        kernel: impl Fn(&Rows<E>, &mut [F]) -> bool,
    ) -> Result<(), CombineError> {
        let clients = self.set.clients.len();
        let mut merged = Vec::new();
        worker.space.read::<E>(tile, 0..clients)?;
        worker.space.subtract_base::<E>(tile, 0..clients);
        for block in blocks::<E>(clients, tile.coordinates.len()) {
            merged.resize(block.len(), F::default());
            let rows = worker.space.rows::<E>(tile, clients);
            if !kernel(&rows.at(block.clone()), &mut merged) {
                return Err(CombineError::NonFinite);
            }
            let squares = self.squared_norms(&worker.space, &rows, 0, block.clone(), tile);
            worker.squared_norms.resize(squares.len(), 0.0);
            add_rows(&mut worker.squared_norms, &squares);
            self.finish_block(worker, tile, block, &mut merged)?;
        }
        Ok(())
    }

    /// Adds the base to a block of merged deltas, and encodes it.
    fn finish_block<F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        block: Range<usize>,
        merged: &mut [F],
    ) -> Result<(), CombineError> {
        if self.set.frame != Frame::AsSent {
            for (merged, base) in merged.iter_mut().zip(&worker.space.base()[block.clone()]) {
                *merged = F::rounded(merged.widen() + base);
            }
        }
        self.check_fits(merged, tile.coordinates.start + block.start, tile.dtype)?;
        let bytes = block.start * tile.dtype.bytes()..block.end * tile.dtype.bytes();
        encode(self.isa, tile.dtype, merged, &mut worker.encoded.row_mut(0)[bytes]);
        Ok(())
    }

    /// The squared norms of rows at some columns, the first of them that of client `first`; none if nobody asked.
    fn squared_norms<E: Element>(
        &self,
        space: &Workspace,
        rows: &Rows<E>,
        first: usize,
        columns: Range<usize>,
        tile: &Tile,
    ) -> Vec<f64> {
        if !self.with_norms || tile.dtype.kind() != Kind::Float {
            return Vec::new();
        }
        let rows = rows.at(columns.clone());
        let norm = |row: usize| {
            let base = space.base_of(first + row);
            squared_norm(self.isa, rows.row(row), base.get(columns.clone()).unwrap_or_default())
        };
        (0..rows.len()).map(norm).collect()
    }

    fn check_base(&self, base: &[f64], tile: &Tile) -> Result<(), CombineError> {
        if all_within(self.isa, base, &Dtype::F64.limits()) {
            return Ok(());
        }
        let column = base.iter().position(|value| !value.is_finite()).unwrap_or(0);
        let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
        let (tensor, value) = (tensor.name.clone(), base[column]);
        let path = self.set.base.as_ref().map(|base| base.model.path.clone()).unwrap_or_default();
        Err(CombineError::BaseNotFinite { path, tensor, index, value })
    }

    fn check_fits<F: Merged>(&self, merged: &[F], first: usize, dtype: Dtype) -> Result<(), CombineError> {
        let limits = dtype.limits();
        if all_within(self.isa, merged, &limits) {
            return Ok(());
        }
        let fits = |value: &F| limits.contains(&value.widen());
        let column = merged.iter().position(|value| !fits(value)).unwrap_or(0);
        let (tensor, index) = self.set.layout.locate(first + column);
        let value = merged[column].widen();
        Err(CombineError::DoesNotFit { tensor: tensor.name.clone(), index, value, dtype })
    }
}

/// The same weights divided by a power of two that brings their sum below one; exact but for numbers near zero.
fn scaled_down(weights: &[f64]) -> Vec<f64> {
    let scale = weights.iter().sum::<f64>().log2().floor().exp2() * 2.0;
    weights.iter().map(|weight| weight / scale).collect()
}

/// Ranges of columns whose values in all rows fit the cache.
fn blocks<E>(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let size = (BLOCK_BYTES / size_of::<E>() / rows).next_multiple_of(LINE_BYTES);
    (0..columns).step_by(size).map(move |start| start..(start + size).min(columns))
}

/// Adds the parts of a tile, if it has any, to the sums of each row.
pub(crate) fn add_rows(sums: &mut [f64], parts: &[f64]) {
    for (sum, part) in sums.iter_mut().zip(parts) {
        *sum += part;
    }
}
