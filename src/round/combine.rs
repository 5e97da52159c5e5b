//! The second pass: combines every tile by the rule's recipe and hands on the merged values.

use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::kernels::convert::{all_within, encode};
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::Element;
use crate::kernels::finite::all_finite;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;
use crate::kernels::trimmed_mean::trimmed_mean;
use crate::kernels::weighted_sum::weighted_sum;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::model::tile::{Rows, TileBuffer};
use crate::round::metadata::UpdateKind;
use crate::round::passes::{Clock, InTileOrder, PassError, Tile, TilePlan, Workspace, for_each_tile};
use crate::round::roster::{Frame, UpdateSet};
use crate::rules::Recipe;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;

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
    #[error("tensor `{tensor}`: the merged value {value} at flat index {index} does not fit {dtype}")]
    DoesNotFit { tensor: String, index: usize, value: f64, dtype: Dtype },
}

impl From<Interrupted> for CombineError {
    fn from(interrupted: Interrupted) -> Self {
        Self::Pass(interrupted.into())
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

/// What a worker needs besides its rows.
struct Worker {
    space: Workspace,
    merged: Vec<f64>,
    encoded: TileBuffer,
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
        let plan = TilePlan::new(self.set);
        let norms = InTileOrder::new(vec![0.0; self.set.clients.len()], add_rows);
        let new_worker = || Worker {
            space: Workspace::new(self.set, &plan),
            merged: Vec::new(),
            encoded: TileBuffer::new(1, plan.most_columns() * size_of::<f64>()),
        };
        let workers = for_each_tile(pool, &plan, new_worker, |worker, tile| {
            let squares = match tile.working {
                Working::BF16 => self.combine::<bf16>(worker, tile),
                Working::F16 => self.combine::<f16>(worker, tile),
                Working::F32 => self.combine::<f32>(worker, tile),
                Working::F64 => self.combine::<f64>(worker, tile),
            }?;
            norms.add(tile.number, squares);
            let bytes = &worker.encoded.row_mut(0)[..tile.coordinates.len() * tile.dtype.bytes()];
            worker.space.clock.time(|clock| &mut clock.write, || write(tile, bytes))?;
            self.progress.advance((self.set.clients.len() * bytes.len()) as u64);
            Ok::<_, CombineError>(())
        })?;
        let clock = workers.iter().map(|worker| worker.space.clock).fold(Clock::default(), Clock::and);
        let norms = self.with_norms.then(|| norms.finish().into_iter().map(f64::sqrt).collect());
        Ok(Combined { norms, clock })
    }

    /// Merges one tile into `worker.encoded`. Returns the squared norms of its rows, if asked for.
    fn combine<E: Element>(&self, worker: &mut Worker, tile: &Tile) -> Result<Vec<f64>, CombineError> {
        let deltas = self.set.frame != Frame::AsSent;
        worker.space.read::<E>(self.isa, self.set, tile, deltas || self.with_norms)?;
        let started = std::time::Instant::now();
        let rows = worker.space.rows::<E>(self.set, tile);
        if !(0..rows.len()).all(|row| all_finite(self.isa, rows.row(row))) {
            return Err(CombineError::NonFinite);
        }
        worker.merged.resize(tile.coordinates.len(), 0.0);
        self.reduce(&rows, &mut worker.merged);
        if deltas {
            for (merged, base) in worker.merged.iter_mut().zip(&worker.space.base) {
                *merged += base;
            }
        }
        let squares = self.squared_norms(&rows, &worker.space.base, tile);
        self.check_fits(&worker.merged, tile)?;
        let stored = &mut worker.encoded.row_mut(0)[..worker.merged.len() * tile.dtype.bytes()];
        encode(self.isa, tile.dtype, &worker.merged, stored);
        worker.space.clock.compute += started.elapsed();
        Ok(squares)
    }

    fn reduce<E: Element>(&self, rows: &Rows<E>, merged: &mut [f64]) {
        match self.recipe {
            Recipe::WeightedMean { weights } => {
                weighted_sum(self.isa, rows, weights, weights.iter().sum(), merged);
            }
            Recipe::Median => coordinate_median(self.isa, rows, merged),
            Recipe::TrimmedMean { cut } => trimmed_mean(self.isa, rows, *cut, merged),
        }
    }

    fn squared_norms<E: Element>(&self, rows: &Rows<E>, base: &[f64], tile: &Tile) -> Vec<f64> {
        if !self.with_norms || tile.dtype.kind() != Kind::Float {
            return Vec::new();
        }
        let norm = |row: usize| {
            // In the other frames the rows are deltas already.
            let weights = self.set.clients[row].metadata.kind == UpdateKind::Weights;
            let subtract = weights && self.set.frame == Frame::AsSent;
            squared_norm(self.isa, rows.row(row), if subtract { base } else { &[] })
        };
        (0..rows.len()).map(norm).collect()
    }

    fn check_fits(&self, merged: &[f64], tile: &Tile) -> Result<(), CombineError> {
        let limit = tile.dtype.limit();
        if all_within(self.isa, merged, limit) {
            return Ok(());
        }
        let fits = |value: &f64| value.abs() <= limit;
        let column = merged.iter().position(|value| !fits(value)).unwrap_or(0);
        let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
        let (tensor, dtype) = (tensor.name.clone(), tensor.dtype);
        Err(CombineError::DoesNotFit { tensor, index, value: merged[column], dtype })
    }
}

/// Adds the parts of a tile, if it has any, to the sums of each row.
pub(crate) fn add_rows(sums: &mut Vec<f64>, parts: Vec<f64>) {
    for (sum, part) in sums.iter_mut().zip(parts) {
        *sum += part;
    }
}
