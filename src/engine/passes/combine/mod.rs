//! The second pass: combines every tile by a reducer, and applies the server's step.
//!
//! A recipe [compiles](mod@compile) to a [`reducer`]: a [`weighted_sum`] or an order statistic ([`select`]), [`by_class`]
//! if statistics have another recipe. `finish` turns merged values into the model's, and [`rounding`] measures what their
//! dtype loses. `gpu` runs the pass on the GPU, and `spot_check` checks a sample of its values on the CPU.

pub mod by_class;
pub mod compile;
mod finish;
mod gpu;
pub mod reducer;
pub mod rounding;
pub mod select;
mod spot_check;
pub mod weighted_sum;

use crate::engine::passes::blocks::{add_rows, blocks};
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::{self, GpuShare};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::sections::{SectionAdder, SectionTree, Summand, section_of, sections_of};
use crate::io::model_writer::WriteError;
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;
use crate::kernels::server_step::ServerStep;
use crate::model::class::TensorClass;
use crate::model::dtype::Kind;
use crate::model::state::{KeptTensor, StateTensor, is_kept, stored_dtype};
use crate::model::tile::TileBuffer;
use crate::updates::set::{UpdateSet, ValueKind};
use reducer::{Cut, Reducer};
use std::mem;
use std::ops::Range;
use std::time::Instant;

/// The second pass.
#[derive(Clone)]
pub struct CombinePass<'a> {
    /// The updates.
    pub set: &'a UpdateSet,
    /// The reducer of their rows.
    pub reducer: &'a dyn Reducer,
    /// Whether to measure the norm of each delta as well. The reducer must then read every client.
    pub with_norms: bool,
    /// The server's step.
    pub step: ServerStep,
    /// The state tensors to write for the next run.
    pub keeps: &'a [KeptTensor],
    /// The coordinates to merge; `None` for all.
    pub coordinates: Option<Range<usize>>,
    /// Whether to leave out statistics.
    pub parameters_only: bool,
}

/// The encoded values of a tile.
pub struct TileValues<'a> {
    /// The model's values.
    pub model: &'a [u8],
    /// The values of each state tensor; empty if the state keeps none for tensors of this dtype.
    pub kept: Vec<&'a [u8]>,
}

/// Receives the values of tiles, in any order.
type Write<'w> = dyn Fn(&Tile, &TileValues) -> Result<(), WriteError> + Sync + 'w;

/// Squared L2 norms of the clients' deltas, section by section.
pub type SquaredNorms = SectionTree<Option<Vec<f64>>>;

/// The measurements of a pass.
#[derive(Debug)]
pub struct Combined {
    /// Squared norms of the clients' deltas, if the pass measures them.
    pub squared_norms: SquaredNorms,
    /// Squared norms of what rounding to narrow floats lost, and of the deltas before; by [`rounding`].
    pub rounding: SquaredNorms,
    /// Squared norms of the merged delta and of the server's step, on the CPU.
    pub stepped: SquaredNorms,
}

/// The L2 norms of clients, from the sums of squares in all sections.
pub fn norms_of(squared: SquaredNorms, clients: usize) -> Vec<f64> {
    let mut norms = squared.total().flatten().unwrap_or_default();
    norms.resize(clients, 0.0);
    norms.into_iter().map(f64::sqrt).collect()
}

/// The lengths of the merged delta and of the server's step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepNorms {
    /// L2 norm of the merged delta.
    pub delta: f64,
    /// L2 norm of the change of the model.
    pub step: f64,
}

/// The norms of the server's step, from the sums of squares in all sections. `None` if the CPU took no step.
pub fn step_norms(squared: SquaredNorms) -> Option<StepNorms> {
    match squared.total().flatten()?[..] {
        [delta, step] => Some(StepNorms { delta: delta.sqrt(), step: step.sqrt() }),
        _ => None,
    }
}

impl CombinePass<'_> {
    /// Runs the pass. `write` takes the encoded values of each tile and of its state, in any order of tiles. Returns
    /// its measurements.
    ///
    /// # Errors
    ///
    /// When an update cannot be read or is not finite, or a merged value cannot be stored or written.
    pub fn run(
        &self,
        machine: &Machine,
        write: impl Fn(&Tile, &TileValues) -> Result<(), WriteError> + Sync,
    ) -> Result<Combined, PassError> {
        let (on_gpu, done) = self.run_on_gpu(machine, &write)?;
        let rest = gpu_ring::rest(self.set, done).into_iter().flat_map(|range| self.to_merge(range));
        let plan = self.plan(&rest.collect::<Vec<_>>());
        let sections = self.sections();
        let pass = CombineOnCpu { pass: self, machine, plan, first_section: sections.start, write: &write };
        let [squared_norms, rounding, stepped] = machine.run(&pass)?;
        let all = |sums: SectionAdder<Vec<f64>>, on_gpu: Vec<f64>| {
            let mut sums = sums.finish(sections.end);
            if let Some(first) = sums.0.first_mut() {
                first.sum.add(&Some(on_gpu));
            }
            sums
        };
        let [norms_on_gpu, rounding_on_gpu] = on_gpu;
        let squared_norms = all(squared_norms, norms_on_gpu);
        let rounding = all(rounding, rounding_on_gpu);
        let stepped = stepped.finish(sections.end);
        Ok(Combined { squared_norms, rounding, stepped })
    }

    fn plan(&self, ranges: &[Range<usize>]) -> TilePlan {
        let rows = self.reducer.rows_at_once();
        match self.reducer.cut() {
            Cut::ForCaches => TilePlan::with_rows(self.set, &self.reducer.other_rows(), rows, ranges),
            Cut::AtMultiples(columns) => TilePlan::at_multiples(self.set, rows, ranges, columns),
        }
    }

    /// The sections to merge.
    fn sections(&self) -> Range<usize> {
        let all = self.within(0..self.set.layout.parameters());
        section_of(all.start)..sections_of(all.end)
    }

    /// The part of a range to merge.
    fn within(&self, range: Range<usize>) -> Range<usize> {
        match &self.coordinates {
            Some(all) => range.start.max(all.start)..range.end.min(all.end),
            None => range,
        }
    }

    /// The part of a range to merge; cut into tensors if the pass leaves out statistics.
    fn to_merge(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let range = self.within(range);
        if !self.parameters_only {
            return vec![range];
        }
        let classes = self.set.layout.classes();
        let parameters = (0..classes.len()).filter(|i| classes[*i] == TensorClass::Parameter);
        let of_tensor = |tensor| {
            let of = self.set.layout.coordinates(tensor);
            range.start.max(of.start)..range.end.min(of.end)
        };
        parameters.map(of_tensor).collect()
    }

    /// Bytes of updates that the pass works on, and the bytes that it reads. It does not read tiles that stayed on the
    /// GPU.
    pub fn bytes(&self, machine: &Machine) -> (u64, u64) {
        let readers = self.reducer.clients().len() as u64;
        let ring = machine.gpu();
        let kept = |share: &GpuShare| ring.as_ref().is_some_and(|on| on.kept_shape(share.stored).is_some());
        let shares = gpu_ring::shares(self.set).into_iter().filter(kept);
        let kept: u64 =
            shares.flat_map(|share| share.ranges).map(|range| self.set.layout.bytes_of(range)).sum();
        let model = self.set.layout.bytes_of(0..self.set.layout.parameters());
        (model * readers, (model - kept) * readers)
    }

    /// Whether the pass needs the base's values.
    fn uses_base(&self) -> bool {
        let is_plain = self.step == ServerStep::PLAIN && self.keeps.is_empty();
        !is_plain || self.set.value_kind != ValueKind::AsSent || self.reducer.uses_base()
    }

    fn new_worker(&self, isa: Isa, plan: &TilePlan) -> CombineWorker<'_> {
        let row = || TileBuffer::new(1, plan.most_columns() * size_of::<f64>());
        CombineWorker {
            reader: TileReader::new(isa, self.set, plan),
            sums: Vec::new(),
            errors: Vec::new(),
            integers: Vec::new(),
            encoded: row(),
            kept: self.keeps.iter().map(|_| row()).collect(),
            mixed: None,
            captured: None,
            squared_norms: Vec::new(),
            rounding: Vec::new(),
            stepped: Vec::new(),
        }
    }

    /// Merges one tile into the worker's encoded values.
    fn merge(&self, isa: Isa, worker: &mut CombineWorker, tile: &Tile) -> Result<(), PassError> {
        let mut work = TileWork { isa, pass: self, tile, worker };
        work.read_kept()?;
        if self.uses_base() || self.measures_rounding(tile.dtype) {
            work.reader().read_finite_base(tile)?;
        } else if self.with_norms {
            work.reader().read_base(tile)?;
        }
        let (started, before) = (Instant::now(), work.reader().clock.read);
        self.reducer.reduce(&mut work)?;
        let read = work.reader().clock.read - before;
        work.reader().clock.compute += started.elapsed().saturating_sub(read);
        Ok(())
    }

    /// Hands a merged tile to the writer.
    fn hand_on(
        &self,
        machine: &Machine,
        worker: &mut CombineWorker,
        tile: &Tile,
        write: &Write,
    ) -> Result<(), PassError> {
        let columns = tile.coordinates.len();
        let CombineWorker { encoded, kept, reader, .. } = worker;
        let model = &encoded.row(0)[..columns * tile.dtype.bytes()];
        let bytes_of = |of: &KeptTensor| {
            // Control variates are merged in a separate pass.
            let has_some = of.slot != StateTensor::Control && is_kept(of.slot, tile.class);
            if has_some { columns * stored_dtype(tile.dtype).bytes() } else { 0 }
        };
        let kept = kept.iter().zip(self.keeps).map(|(values, of)| &values.row(0)[..bytes_of(of)]).collect();
        let values = TileValues { model, kept };
        reader.clock.time(|clock| &mut clock.write, || write(tile, &values))?;
        machine.progress.advance((self.reducer.clients().len() * model.len()) as u64);
        Ok(())
    }
}

/// The tiles that the CPU merges.
struct CombineOnCpu<'a> {
    pass: &'a CombinePass<'a>,
    machine: &'a Machine<'a>,
    plan: TilePlan,
    first_section: usize,
    write: &'a Write<'a>,
}

impl TilePass for CombineOnCpu<'_> {
    type Worker<'p>
        = CombineWorker<'p>
    where
        Self: 'p;
    /// Squared norms of the clients that the pass reads, of the rounding, and of the step.
    type Part = [Vec<f64>; 3];
    type Sum = [SectionAdder<Vec<f64>>; 3];

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> CombineWorker<'_> {
        self.pass.new_worker(self.machine.isa, &self.plan)
    }

    fn tile(&self, worker: &mut CombineWorker, tile: &Tile) -> Result<[Vec<f64>; 3], PassError> {
        self.pass.merge(self.machine.isa, worker, tile)?;
        self.pass.hand_on(self.machine, worker, tile, self.write)?;
        Ok(worker.take_sums())
    }

    fn start(&self) -> [SectionAdder<Vec<f64>>; 3] {
        [0; 3].map(|_| SectionAdder::starting_at(self.first_section))
    }

    fn add(&self, sums: &mut [SectionAdder<Vec<f64>>; 3], tile: &Tile, parts: [Vec<f64>; 3]) {
        for (sum, part) in sums.iter_mut().zip(parts) {
            sum.add(section_of(tile.coordinates.start), part);
        }
    }

    fn clock(&self, worker: &CombineWorker) -> Clock {
        worker.reader.clock
    }
}

/// Buffers of one thread.
pub struct CombineWorker<'a> {
    reader: TileReader<'a>,
    sums: Vec<f64>,
    /// The rounding errors of the sums.
    errors: Vec<f64>,
    /// Sums of integers.
    integers: Vec<i64>,
    encoded: TileBuffer,
    /// One row for each state tensor, in its stored float.
    kept: Vec<TileBuffer>,
    mixed: Option<TileBuffer>,
    /// Merged values, if a reducer captures them instead of finishing them.
    captured: Option<Vec<f64>>,
    squared_norms: Vec<f64>,
    /// Squared norms of what rounding lost, and of the delta; empty if the tile measures none.
    rounding: Vec<f64>,
    /// Squared norms of the merged delta and of the server's step on it; empty without a step.
    stepped: Vec<f64>,
}

impl CombineWorker<'_> {
    /// Takes the sums of the last tile.
    fn take_sums(&mut self) -> [Vec<f64>; 3] {
        [&mut self.squared_norms, &mut self.rounding, &mut self.stepped].map(mem::take)
    }
}

/// One tile in a reducer.
pub struct TileWork<'w, 'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The tile.
    pub tile: &'w Tile,
    pass: &'w CombinePass<'w>,
    worker: &'w mut CombineWorker<'a>,
}

impl<'a> TileWork<'_, 'a> {
    /// The updates.
    pub fn set(&self) -> &UpdateSet {
        self.pass.set
    }

    /// Coordinates of the tile.
    pub fn columns(&self) -> usize {
        self.tile.coordinates.len()
    }

    /// The rows of the tile, and the base's values.
    pub fn reader(&mut self) -> &mut TileReader<'a> {
        &mut self.worker.reader
    }

    /// Reads some clients' rows: as deltas if the set mixes weights and deltas.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or changed since it was opened.
    pub fn read<E: Element>(&mut self, clients: &[usize]) -> Result<(), PassError> {
        self.worker.reader.read::<E>(self.tile, clients)?;
        self.worker.reader.subtract_base::<E>(self.tile, clients);
        Ok(())
    }

    /// Takes the buffers for sums and their rounding errors, with one zero for each column. Return them by
    /// [`finish_sums`](Self::finish_sums).
    pub fn zeroed_sums(&mut self) -> (Vec<f64>, Vec<f64>) {
        let (mut sums, mut errors) = (mem::take(&mut self.worker.sums), mem::take(&mut self.worker.errors));
        for values in [&mut sums, &mut errors] {
            values.clear();
            values.resize(self.columns(), 0.0);
        }
        (sums, errors)
    }

    /// Divides exact sums, with one rounding, and finishes them.
    ///
    /// # Errors
    ///
    /// When a merged value does not fit.
    pub fn finish_sums(
        &mut self,
        (mut sums, errors): (Vec<f64>, Vec<f64>),
        divisor: f64,
    ) -> Result<(), PassError> {
        for block in blocks::<f64>(1, sums.len()) {
            let merged = &mut sums[block.clone()];
            for (x, error) in merged.iter_mut().zip(&errors[block.clone()]) {
                *x = (*x + error) / divisor;
            }
            self.finish_block(block, merged)?;
        }
        (self.worker.sums, self.worker.errors) = (sums, errors);
        Ok(())
    }

    /// Finishes merged values of all columns.
    ///
    /// # Errors
    ///
    /// When a merged value does not fit.
    pub fn finish(&mut self, merged: &mut [f64]) -> Result<(), PassError> {
        blocks::<f64>(1, merged.len())
            .try_for_each(|block| self.finish_block(block.clone(), &mut merged[block]))
    }

    /// Takes the buffer for integer sums, with one zero for each column. Return it by
    /// [`put_back_integers`](Self::put_back_integers).
    pub fn zeroed_integers(&mut self) -> Vec<i64> {
        let mut integers = mem::take(&mut self.worker.integers);
        integers.clear();
        integers.resize(self.columns(), 0);
        integers
    }

    /// Returns the buffer for integer sums.
    pub fn put_back_integers(&mut self, integers: Vec<i64>) {
        self.worker.integers = integers;
    }

    fn take_mixed(&mut self, rows: usize, row_bytes: usize) -> TileBuffer {
        match self.worker.mixed.take() {
            Some(buffer) if buffer.holds(rows, row_bytes) => buffer,
            _ => TileBuffer::new(rows, row_bytes),
        }
    }

    fn put_back_mixed(&mut self, mixed: TileBuffer) {
        self.worker.mixed = Some(mixed);
    }

    /// Runs a reducer on the tile. Captures the merged values and the squared norms of the clients, and does not finish
    /// them.
    ///
    /// # Errors
    ///
    /// The errors of the reducer.
    pub fn capture(&mut self, reducer: &dyn Reducer) -> Result<(Vec<f64>, Vec<f64>), PassError> {
        self.worker.captured = Some(vec![0.0; self.columns()]);
        reducer.reduce(self)?;
        Ok((self.worker.captured.take().unwrap_or_default(), mem::take(&mut self.worker.squared_norms)))
    }

    /// Replaces the squared norms of the tile: one for each client of the set.
    pub fn set_norms(&mut self, squared_norms: Vec<f64>) {
        if self.measures_norms() {
            self.worker.squared_norms = squared_norms;
        }
    }

    fn measures_norms(&self) -> bool {
        self.pass.with_norms && self.tile.dtype.kind() == Kind::Float
    }

    /// Appends the squared norms of these clients' rows, which the reader holds.
    fn measure_norms<E: Element>(&mut self, clients: &[usize]) {
        let squares = self.norms::<E>(clients, 0..self.columns());
        self.worker.squared_norms.extend(squares);
    }

    /// Adds the squared norms of some columns of these clients' rows, which the reader holds.
    fn add_norms<E: Element>(&mut self, clients: &[usize], columns: Range<usize>) {
        let squares = self.norms::<E>(clients, columns);
        self.worker.squared_norms.resize(squares.len(), 0.0);
        add_rows(&mut self.worker.squared_norms, &squares);
    }

    fn forget_norms(&mut self) {
        self.worker.squared_norms.clear();
        self.worker.rounding.clear();
        self.worker.stepped.clear();
    }

    /// The squared norms of these clients' rows in some columns; empty if the pass measures none.
    fn norms<E: Element>(&self, clients: &[usize], columns: Range<usize>) -> Vec<f64> {
        if !self.measures_norms() {
            return Vec::new();
        }
        let reader = &self.worker.reader;
        let rows = reader.rows::<E>(self.tile, clients.len()).at(columns.clone());
        let norm = |row: usize| {
            let base = reader.base_of(clients[row]);
            squared_norm(self.isa, rows.row(row), base.get(columns.clone()).unwrap_or_default())
        };
        (0..rows.len()).map(norm).collect()
    }
}
