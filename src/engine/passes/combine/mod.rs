//! The second pass: combines every tile by the rule's recipe and hands on the merged values.

pub mod finish;
pub mod gpu;
pub mod reducer;
pub mod select;
pub mod spot_check;

use crate::budget::error::BudgetError;
use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::blocks::{add_times, blocks};
use crate::engine::passes::combine::reducer::{Method, Sum, Tiers};
use crate::engine::passes::drive::{Clock, InTileOrder, PassError, for_each_tile};
use crate::engine::passes::gpu_ring::{self, Device};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::Workspace;
use crate::engine::passes::sections::{Branches, SectionSums, Summand, section_of, sections_of};
use crate::gpu::job::GpuError;
use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;
use crate::kernels::server_step::ServerStep;
use crate::kernels::weighted_sum::add_weighted_exactly;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::model::state::KeptTensor;
use crate::model::state::StateTensor;
use crate::model::state::is_kept;
use crate::model::state::stored_dtype;
use crate::model::tile::{Rows, TileBuffer};
use crate::modes::dp::noised_sum::{COLUMNS, NoisedSum};
use crate::modes::tree::sums::Addends;
use crate::rules::Recipe;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::ops::Range;
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
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("noise cannot be made: {0}")]
    Noise(Box<BudgetError>),
    #[error("an update holds a value that is not finite")]
    NonFinite,
    #[error("tensor `{tensor}`: the values at flat index {index} add up to more than a partial can hold")]
    SumTooLarge { tensor: String, index: usize },
    #[error("tensor `{tensor}` of a partial holds {value} at flat index {index}, expected a finite number")]
    BadPartial { partial: usize, tensor: String, index: usize, value: f64 },
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
            Self::NonFinite | Self::SumTooLarge { .. } => true,
            Self::DoesNotFit { value, .. } => !value.is_finite(),
            Self::Pass(_) | Self::Write(_) | Self::Gpu(_) | Self::Noise(_) | Self::BadPartial { .. } => false,
        }
    }
}

/// What the pass found besides the merged model.
#[derive(Debug)]
pub struct Combined {
    /// L2 norm of each client's delta, if asked for.
    pub norms: Option<Vec<f64>>,
    /// Their squares, if asked for, in the branches of the sections that were merged.
    pub squared_norms: Branches<Option<Vec<f64>>>,
    /// Where the time went, added over the threads.
    pub clock: Clock,
    /// Why the device did not finish, if the CPU did.
    pub device_failure: Option<GpuError>,
}

/// The encoded values of a tile.
pub struct TileValues<'a> {
    /// Those of the model.
    pub model: &'a [u8],
    /// Those of each slot that is kept; empty where the slot has none of this dtype.
    pub kept: Vec<&'a [u8]>,
}

/// Takes the values of a tile.
pub(crate) type Write<'w> = dyn Fn(&Tile, &TileValues) -> Result<(), WriteError> + Sync + 'w;

/// The second pass, ready to run.
pub struct Pass<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates.
    pub set: &'a UpdateSet,
    /// How to combine them.
    pub recipe: &'a Recipe,
    /// Whether to measure the norm of each delta on the way; every client is read then.
    pub with_norms: bool,
    /// Whether every update is known to be finite, so that those without a part need not be read.
    pub screened: bool,
    /// How the server steps.
    pub step: ServerStep,
    /// What is handed on for the next round.
    pub keeps: &'a [KeptTensor],
    /// The coordinates to merge; none for all.
    pub coordinates: Option<Range<usize>>,
    /// Whether integers are left out.
    pub floats_only: bool,
    /// The sum with noise that takes the recipe's place, where the round is released under a budget.
    pub noised: Option<&'a NoisedSum>,
    /// The device to run on, as far as it can; none for the CPU alone.
    pub device: Option<&'a Device>,
    /// Told about every tile.
    pub progress: &'a Progress,
}

/// Rows that a sum holds at once: it needs no more, and short columns of many rows would be slow to read.
pub(crate) const SUMMED_ROWS: usize = 4;

/// What a worker needs besides its rows.
pub(crate) struct Worker<'a> {
    pub(crate) space: Workspace<'a>,
    sums: Vec<f64>,
    /// Sums of integers.
    integers: Vec<i64>,
    /// What rounding took from the sums.
    errors: Vec<f64>,
    pub(crate) encoded: TileBuffer,
    /// What is kept between rounds, a row for each slot, in the floats that it is stored in.
    pub(crate) kept: Vec<TileBuffer>,
    pub(crate) mixed: Option<TileBuffer>,
    /// What is merged of one tier, where several are added up.
    pub(crate) of_tier: Option<Vec<f64>>,
    pub(crate) squared_norms: Vec<f64>,
}

impl Pass<'_> {
    /// Runs the pass; `write` takes the encoded values of each tile, and of what is kept, in any order.
    ///
    /// # Errors
    ///
    /// When an update cannot be read or is not finite, or a merged value cannot be stored or written.
    pub fn run(
        &self,
        pool: &ThreadPool,
        write: impl Fn(&Tile, &TileValues) -> Result<(), WriteError> + Sync,
    ) -> Result<Combined, CombineError> {
        let method = self.method();
        let readers = method.clients().len();
        let on_device = match self.device {
            Some(device) => Some(self.run_on_device(device, &method, &write)?),
            None => None,
        };
        let (done, so_far, device_clock, device_failure) = match on_device {
            Some(on) => (on.done, on.squared_norms, on.clock, on.failure),
            None => (Vec::new(), Vec::new(), Clock::default(), None),
        };
        let rest = gpu_ring::rest(self.set, done);
        let rest: Vec<Range<usize>> = rest.into_iter().flat_map(|range| self.wanted(range)).collect();
        let rows = self.rows_at_once(&method);
        let plan = match method {
            Method::Noised(_) => TilePlan::at_multiples(self.set, rows, &rest, COLUMNS),
            _ => TilePlan::of_ranges(self.set, rows, &rest),
        };
        let sections = self.sections();
        let squares = SectionSums::starting_at(sections.start);
        let squares = InTileOrder::new(squares, |sums, (section, parts)| sums.add(section, parts));
        let workers = for_each_tile(
            pool,
            &plan,
            || self.new_worker(&plan),
            |worker, tile| {
                self.merge_any(worker, tile, &method)?;
                let section = section_of(tile.coordinates.start);
                squares.add(tile.number, (section, std::mem::take(&mut worker.squared_norms)));
                self.hand_on(worker, tile, readers, &write)
            },
        )?;
        let clock = workers.iter().map(|worker| worker.space.clock).fold(device_clock, Clock::and);
        let mut squared_norms = squares.finish().finish(sections.end);
        if let Some(first) = squared_norms.0.first_mut() {
            first.sum.add(&Some(so_far));
        }
        let norms = self.with_norms.then(|| norms_of(squared_norms.clone(), self.set.clients.len()));
        Ok(Combined { norms, squared_norms, clock, device_failure })
    }

    /// The sections to merge.
    fn sections(&self) -> Range<usize> {
        let all = self.within(0..self.set.layout.parameters());
        section_of(all.start)..sections_of(all.end)
    }

    /// What of a range is to be merged.
    pub(crate) fn within(&self, range: Range<usize>) -> Range<usize> {
        match &self.coordinates {
            Some(all) => range.start.max(all.start)..range.end.min(all.end),
            None => range,
        }
    }

    /// What of a range is to be merged, piece by piece where integers are left out.
    fn wanted(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let range = self.within(range);
        if !self.floats_only {
            return vec![range];
        }
        let tensors = self.set.layout.tensors();
        let floats = (0..tensors.len()).filter(|i| tensors[*i].dtype.kind() == Kind::Float);
        let of_tensor = |tensor| {
            let of = self.set.layout.coordinates(tensor);
            range.start.max(of.start)..range.end.min(of.end)
        };
        floats.map(of_tensor).collect()
    }

    /// Rows that a worker of the CPU holds at once.
    pub(crate) fn rows_at_once(&self, method: &Method) -> usize {
        let readers = method.clients().len().max(1);
        match method {
            Method::Sum(_) => SUMMED_ROWS.min(readers),
            Method::Noised(_) => 1,
            Method::Select(_) => readers,
            Method::Tiers(tiers) => {
                tiers.parts.iter().map(|(_, part)| self.rows_at_once(part)).max().unwrap_or(1)
            }
            Method::Tree(addends) => addends.rows_at_once(self.set),
        }
    }

    /// Merges one tile of any float into `worker.encoded`.
    pub(crate) fn merge_any(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        method: &Method,
    ) -> Result<(), CombineError> {
        match tile.working {
            Working::BF16 => self.merge_tile::<bf16>(worker, tile, method),
            Working::F16 => self.merge_tile::<f16>(worker, tile, method),
            Working::F32 => self.merge_tile::<f32>(worker, tile, method),
            Working::F64 => self.merge_tile::<f64>(worker, tile, method),
        }
    }

    /// Hands a merged tile to the writer.
    pub(crate) fn hand_on(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        readers: usize,
        write: &Write,
    ) -> Result<(), CombineError> {
        let columns = tile.coordinates.len();
        let Worker { encoded, kept, space, .. } = worker;
        let model = &encoded.row(0)[..columns * tile.dtype.bytes()];
        let bytes_of = |of: &KeptTensor| {
            // Control variates are merged in a pass of their own.
            let has_some = of.slot != StateTensor::Control && is_kept(of.slot, tile.dtype);
            if has_some { columns * stored_dtype(tile.dtype).bytes() } else { 0 }
        };
        let kept = kept.iter().zip(self.keeps).map(|(values, of)| &values.row(0)[..bytes_of(of)]).collect();
        let values = TileValues { model, kept };
        space.clock.time(|clock| &mut clock.write, || write(tile, &values))?;
        self.progress.advance((readers * model.len()) as u64);
        Ok(())
    }

    /// Bytes of updates that the pass works on, and those of them that it reads: what stayed on the device is not.
    pub fn bytes(&self) -> (u64, u64) {
        let readers = self.method().clients().len() as u64;
        let kept = |part: &gpu_ring::Part| self.device.is_some_and(|on| on.kept_shape(part.stored).is_some());
        let parts = gpu_ring::parts(self.set).into_iter().filter(kept);
        let kept: u64 = parts.flat_map(|part| part.ranges).map(|range| self.set.layout.bytes_of(range)).sum();
        let model = self.set.layout.bytes_of(0..self.set.layout.parameters());
        (model * readers, (model - kept) * readers)
    }

    fn method(&self) -> Method<'_> {
        if let Some(sum) = self.noised {
            return Method::Noised(sum);
        }
        Method::of(self.recipe, self.set, self.screened && !self.with_norms)
    }

    pub(crate) fn new_worker(&self, plan: &TilePlan) -> Worker<'_> {
        Worker {
            space: Workspace::new(self.isa, self.set, plan),
            sums: Vec::new(),
            integers: Vec::new(),
            errors: Vec::new(),
            encoded: TileBuffer::new(1, plan.most_columns() * size_of::<f64>()),
            kept: self
                .keeps
                .iter()
                .map(|_| TileBuffer::new(1, plan.most_columns() * size_of::<f64>()))
                .collect(),
            mixed: None,
            of_tier: None,
            squared_norms: Vec::new(),
        }
    }

    /// Merges one tile into `worker.encoded`.
    fn merge_tile<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        method: &Method,
    ) -> Result<(), CombineError> {
        self.read_kept(worker, tile)?;
        if self.uses_base(method) {
            worker.space.read_finite_base(tile)?;
        } else if self.with_norms {
            worker.space.read_base(tile)?;
        }
        let before = worker.space.clock.read;
        let started = Instant::now();
        self.merge_rows::<E>(worker, tile, method)?;
        let read = worker.space.clock.read - before;
        worker.space.clock.compute += started.elapsed().saturating_sub(read);
        Ok(())
    }

    fn merge_rows<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        method: &Method,
    ) -> Result<(), CombineError> {
        match method {
            Method::Sum(sum) => match self.sum_tile::<E>(worker, tile, sum) {
                // Numbers near the end of f64 add up past it, though their mean does not.
                Err(CombineError::DoesNotFit { value, .. })
                    if E::DTYPE == Dtype::F64 && !value.is_finite() =>
                {
                    worker.squared_norms.clear();
                    self.sum_tile::<E>(worker, tile, &sum.scaled_down())
                }
                done => done,
            },
            Method::Select(select) => self.select_tile::<E>(worker, tile, select),
            Method::Tiers(tiers) => self.add_tiers::<E>(worker, tile, tiers),
            Method::Tree(addends) => self.tree_tile::<E>(worker, tile, addends),
            Method::Noised(sum) => self.noised_tile::<E>(worker, tile, sum),
        }
    }

    /// Merges each tier by itself, and adds them up.
    fn add_tiers<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        tiers: &Tiers,
    ) -> Result<(), CombineError> {
        let columns = tile.coordinates.len();
        // What one tier makes is to keep its bits, that of a zero too.
        let mut sums = vec![-0.0; columns];
        let mut squares = vec![0.0; self.set.clients.len()];
        for (share, part) in &tiers.parts {
            worker.of_tier = Some(vec![0.0; columns]);
            self.merge_rows::<E>(worker, tile, part)?;
            add_times(&worker.of_tier.take().unwrap_or_default(), *share, &mut sums);
            for (client, square) in part.clients().iter().zip(worker.squared_norms.drain(..)) {
                squares[*client] = square;
            }
        }
        if self.with_norms && tile.dtype.kind() == Kind::Float {
            worker.squared_norms = squares;
        }
        for block in blocks::<f64>(1, columns) {
            self.finish_block(worker, tile, block.clone(), &mut sums[block])?;
        }
        Ok(())
    }

    /// Sums a few rows at a time. A value that is not finite shows in the merged value.
    fn sum_tile<E: Element>(&self, worker: &mut Worker, tile: &Tile, sum: &Sum) -> Result<(), CombineError> {
        let columns = tile.coordinates.len();
        let (mut sums, mut errors) = (std::mem::take(&mut worker.sums), std::mem::take(&mut worker.errors));
        for values in [&mut sums, &mut errors] {
            values.clear();
            values.resize(columns, 0.0);
        }
        if sum.base != 0.0 {
            add_times(worker.space.base(), sum.base, &mut sums);
        }
        if sum.centre != 0.0 {
            worker.space.read_centre(tile)?;
            add_times(worker.space.centre(), sum.centre, &mut sums);
        }
        for (clients, weights) in sum.clients.chunks(SUMMED_ROWS).zip(sum.weights.chunks(SUMMED_ROWS)) {
            worker.space.read::<E>(tile, clients)?;
            worker.space.subtract_base::<E>(tile, clients);
            let rows = worker.space.rows::<E>(tile, weights.len());
            for block in blocks::<E>(weights.len(), columns) {
                let (sums, errors) = (&mut sums[block.clone()], &mut errors[block.clone()]);
                add_weighted_exactly(self.isa, &rows.at(block), weights, sums, errors);
            }
            let squares = self.squared_norms(&worker.space, &rows, clients, 0..columns, tile);
            worker.squared_norms.extend(squares);
        }
        self.finish_sums(worker, tile, (sums, errors), sum.divisor)
    }

    /// Releases a noised sum. Integers are no part of it: they stay what they are.
    fn noised_tile<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        sum: &NoisedSum,
    ) -> Result<(), CombineError> {
        let mut released = std::mem::take(&mut worker.sums);
        released.clear();
        released.resize(tile.coordinates.len(), 0.0);
        if tile.dtype.kind() == Kind::Float {
            sum.release::<E>(
                self.isa,
                &self.set.layout,
                &mut worker.space,
                tile,
                &mut worker.integers,
                &mut released,
            )?;
        }
        for block in blocks::<f64>(1, released.len()) {
            self.finish_block(worker, tile, block.clone(), &mut released[block])?;
        }
        worker.sums = released;
        Ok(())
    }

    /// Sums updates and partials.
    fn tree_tile<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        addends: &Addends,
    ) -> Result<(), CombineError> {
        let (mut sums, mut errors) = (std::mem::take(&mut worker.sums), std::mem::take(&mut worker.errors));
        let totals = (&mut sums, &mut errors);
        addends.add_tile::<E>((self.isa, self.set), &mut worker.space, tile, totals, &mut [])?;
        self.finish_sums(worker, tile, (sums, errors), addends.divisor)
    }

    /// Divides exact sums, rounded once.
    fn finish_sums(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        (mut sums, errors): (Vec<f64>, Vec<f64>),
        divisor: f64,
    ) -> Result<(), CombineError> {
        for block in blocks::<f64>(1, sums.len()) {
            let merged = &mut sums[block.clone()];
            for (x, error) in merged.iter_mut().zip(&errors[block.clone()]) {
                *x = (*x + error) / divisor;
            }
            self.finish_block(worker, tile, block, merged)?;
        }
        (worker.sums, worker.errors) = (sums, errors);
        Ok(())
    }

    /// The squared norms of these clients' rows at some columns; none if nobody asked.
    pub(crate) fn squared_norms<E: Element>(
        &self,
        space: &Workspace,
        rows: &Rows<E>,
        clients: &[usize],
        columns: Range<usize>,
        tile: &Tile,
    ) -> Vec<f64> {
        if !self.with_norms || tile.dtype.kind() != Kind::Float {
            return Vec::new();
        }
        let rows = rows.at(columns.clone());
        let norm = |row: usize| {
            let base = space.base_of(clients[row]);
            squared_norm(self.isa, rows.row(row), base.get(columns.clone()).unwrap_or_default())
        };
        (0..rows.len()).map(norm).collect()
    }
}

/// The norms of so many clients from the sums of squares in all sections.
pub fn norms_of(squared: Branches<Option<Vec<f64>>>, clients: usize) -> Vec<f64> {
    let mut norms = squared.total().flatten().unwrap_or_default();
    norms.resize(clients, 0.0);
    norms.into_iter().map(f64::sqrt).collect()
}
