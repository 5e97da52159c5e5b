//! The first pass: one read of every update, for its non-finite values and the geometry.
//!
//! Tile by tile, [`BLOCK`] coordinates at a time, the pass centres rows about their coordinate median and adds up the
//! products of all pairs. For many rows with few hostile ones, the centre is the median of the medians of a few groups.
//! Centring removes the part that all updates share before the values are rounded to f32. Hostile clients cannot move a
//! median far, so they cannot blur the distances of the others. The pass sums in f64 where squares do not fit f32.
//!
//! [`sums`] adds up tiles, `shared` runs the pass for many clients, and `gpu` on the GPU.

mod gpu;
mod shared;
pub mod sums;

use crate::engine::passes::blocks::{blocks, mix};
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::{self, GpuRing};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::sections::{SectionAdder, Summand, coordinates_of, section_of};
use crate::engine::passes::survey::{Measured, measure_non_finite};
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::{Element, Merged};
use crate::kernels::finite::all_finite;
use crate::kernels::gram::{BLOCK, Product, SquaredDifference, add_pair_sums, add_wide_pair_sums, centre};
use crate::kernels::lanes::Isa;
use crate::kernels::network::MAX_BLOCK;
use crate::kernels::signs::add_signs;
use crate::model::class::TensorClass;
use crate::model::dtype::Kind;
use crate::model::tile::{Rows, RowsMut, TileBuffer};
use crate::rules::geometry::References;
use crate::rules::mixing::Mixing;
use crate::rules::{GeometryRequest, Precision};
use crate::updates::set::{UpdateSet, ValueKind};
use shared::SharedTiles;
use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;
use sums::{GeometrySums, SectionSums, TileSums};

/// A pass that measures the geometry of updates.
#[derive(Clone)]
pub struct GeometryPass<'a> {
    /// The updates.
    pub set: &'a UpdateSet,
    /// The measurement.
    pub request: GeometryRequest<'a>,
    /// The sections to read.
    pub sections: Range<usize>,
    /// Whether the GPU may take part, if the machine has one.
    pub on_gpu: bool,
    /// Whether updates may stay on the GPU for the second pass.
    pub keeps: bool,
}

/// The range of magnitudes whose squares, summed over a block, fit f32.
const FITTING: Range<f32> = 1.0 / (1u64 << 39) as f32..(1u64 << 57) as f32;

/// Whether f32 holds the products of a point with this largest magnitude.
fn fits(largest: f32) -> bool {
    largest == 0.0 || FITTING.contains(&largest)
}

/// Buffers of one thread.
struct GeometryWorker<'a> {
    reader: TileReader<'a>,
    panels: Panels,
}

/// All points of a block, minus its centre.
struct Panels {
    narrow: TileBuffer,
    /// The points in f64, for a block that f32 cannot hold.
    wide: Option<TileBuffer>,
}

impl GeometryPass<'_> {
    /// Runs the pass on the GPU and the CPU. If the GPU fails and the CPU may take over, the CPU measures all.
    ///
    /// # Errors
    ///
    /// When an update cannot be read, or the GPU fails.
    pub fn run(&self, machine: &Machine) -> Result<GeometrySums, PassError> {
        machine.progress.start("measuring distances", self.set.data_bytes());
        machine.take_meter();
        let ring = machine.gpu().filter(|_| self.on_gpu && self.request.precision == Precision::Usual);
        if let Some(ring) = ring {
            match self.run_with(machine, Some(&ring)) {
                Err(PassError::Gpu(why)) if ring.falls_back => {
                    machine.give_up_gpu(why);
                    machine.take_meter();
                }
                sums => return sums,
            }
        }
        self.run_with(machine, None)
    }

    fn run_with(&self, machine: &Machine, ring: Option<&GpuRing>) -> Result<GeometrySums, PassError> {
        let started = Instant::now();
        let (on_gpu, done) = match ring {
            Some(ring) => {
                let (sums, done) = self.run_on_gpu(machine, ring)?;
                (Some(sums), done)
            }
            None => (None, Vec::new()),
        };
        let rest = self.within(gpu_ring::rest(self.set, done));
        let mut sections = match SharedTiles::suit(&self.request) {
            true => SharedTiles::new(self, machine, &rest).run()?,
            false => {
                let plan = TilePlan::of_ranges(self.set, self.set.clients.len(), &rest);
                machine.run(&GeometryOnCpu { pass: self, machine, plan })?.finish(self.sections.end)
            }
        };
        if let Some(first) = sections.0.first_mut() {
            first.sum.add(&on_gpu.map(|sums| SectionSums::of(sums, TensorClass::Parameter)));
        }
        machine.add_elapsed(started.elapsed());
        Ok(GeometrySums { sections, on_gpu: ring.is_some() })
    }

    /// The parts of `ranges` in the sections to read.
    fn within(&self, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
        let all = coordinates_of(&self.sections, self.set.layout.parameters());
        let part = |range: Range<usize>| range.start.max(all.start)..range.end.min(all.end);
        ranges.into_iter().map(part).filter(|range| !range.is_empty()).collect()
    }

    /// Measures one tile. Integers are not measured.
    fn measure_tile(
        &self,
        isa: Isa,
        worker: &mut GeometryWorker,
        tile: &Tile,
    ) -> Result<TileSums, PassError> {
        match tile.dtype.kind() {
            Kind::Float => for_element!(tile.working, E => self.measure::<E>(isa, worker, tile)),
            _ => Ok(TileSums::none(&self.request)),
        }
    }

    fn new_worker(&self, isa: Isa, plan: &TilePlan) -> GeometryWorker<'_> {
        GeometryWorker {
            reader: TileReader::new(isa, self.set, plan),
            panels: Panels {
                narrow: TileBuffer::new(self.request.points(), BLOCK * size_of::<f32>()),
                wide: None,
            },
        }
    }

    fn measure<E: Element>(
        &self,
        isa: Isa,
        worker: &mut GeometryWorker,
        tile: &Tile,
    ) -> Result<TileSums, PassError> {
        let clients: Vec<usize> = (0..self.set.clients.len()).collect();
        let GeometryWorker { reader, panels } = worker;
        reader.read_finite_base(tile)?;
        reader.read_centre(tile)?;
        reader.read::<E>(tile, &clients)?;
        reader.subtract_base::<E>(tile, &clients);
        let mut sums = TileSums::none(&self.request);
        let columns = tile.coordinates.len();
        for start in (0..columns).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(columns);
            let rows = reader.rows::<E>(tile, clients.len()).at(block.clone());
            let of_block = BlockGeometry {
                isa,
                request: &self.request,
                origin: self.origin(reader, &block),
                centre: reader.centre().get(block.clone()).unwrap_or_default(),
                first: tile.coordinates.start + start,
            };
            match self.mixing(tile.class) {
                None => of_block.add::<E>(&rows, panels, &mut sums),
                Some(mixing) => of_block.add_mixed::<E>(&rows, &clients, mixing, panels, &mut sums),
            }
            if self.request.with_signs {
                sums.signs += count_signs(isa, reader, &rows, &block);
            }
        }
        sums.floats = columns as u64;
        Ok(sums)
    }

    /// The updates as combinations of the clients' rows, in tensors of a class.
    fn mixing(&self, class: TensorClass) -> Option<&Mixing> {
        if class == TensorClass::Parameter { self.request.mixing } else { self.request.unscaled }
    }

    /// The row of a zero delta: the base if rows are weights, zero (empty) if not.
    fn origin<'s>(&self, reader: &'s TileReader, block: &Range<usize>) -> &'s [f64] {
        match self.set.value_kind {
            ValueKind::AsSent => reader.base().get(block.clone()).unwrap_or_default(),
            ValueKind::Deltas | ValueKind::Mixed => &[],
        }
    }
}

/// The tiles that the CPU measures.
struct GeometryOnCpu<'a> {
    pass: &'a GeometryPass<'a>,
    machine: &'a Machine<'a>,
    plan: TilePlan,
}

impl TilePass for GeometryOnCpu<'_> {
    type Worker<'p>
        = GeometryWorker<'p>
    where
        Self: 'p;
    type Part = SectionSums;
    type Sum = SectionAdder<SectionSums>;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> GeometryWorker<'_> {
        self.pass.new_worker(self.machine.isa, &self.plan)
    }

    fn tile(&self, worker: &mut GeometryWorker, tile: &Tile) -> Result<SectionSums, PassError> {
        let (started, before) = (Instant::now(), worker.reader.clock.read);
        let sums = self.pass.measure_tile(self.machine.isa, worker, tile)?;
        let read = worker.reader.clock.read - before;
        worker.reader.clock.compute += started.elapsed().saturating_sub(read);
        let clients = self.pass.set.clients.len();
        self.machine.progress.advance((clients * tile.coordinates.len() * tile.dtype.bytes()) as u64);
        Ok(SectionSums::of(sums, tile.class))
    }

    fn start(&self) -> SectionAdder<SectionSums> {
        SectionAdder::starting_at(self.pass.sections.start)
    }

    fn add(&self, sum: &mut SectionAdder<SectionSums>, tile: &Tile, part: SectionSums) {
        sum.add(section_of(tile.coordinates.start), part);
    }

    fn clock(&self, worker: &GeometryWorker) -> Clock {
        worker.reader.clock
    }
}

/// One block of coordinates.
struct BlockGeometry<'a> {
    isa: Isa,
    request: &'a GeometryRequest<'a>,
    /// Empty for zero.
    origin: &'a [f64],
    /// The centre that an earlier run left, as a delta; empty if there is none.
    centre: &'a [f64],
    first: usize,
}

impl BlockGeometry<'_> {
    /// Adds the products of mixtures of the rows: in f64 if the usual float cannot hold one of them.
    fn add_mixed<E: Element>(
        &self,
        rows: &Rows<E>,
        clients: &[usize],
        mixing: &Mixing,
        panels: &mut Panels,
        sums: &mut TileSums,
    ) {
        let (isa, columns) = (self.isa, rows.columns());
        let mut mixed = TileBuffer::new(mixing.len(), columns * size_of::<f64>());
        mix::<E, E::Mixed>(isa, rows, clients, mixing, self.origin, 1.0, &mut mixed);
        let usual = mixed.rows::<E::Mixed>(mixing.len(), columns);
        if (0..mixing.len()).all(|row| all_finite(isa, usual.row(row))) {
            return self.add::<E::Mixed>(&usual, panels, sums);
        }
        mix::<E, f64>(isa, rows, clients, mixing, self.origin, 1.0, &mut mixed);
        self.add::<f64>(&mixed.rows(mixing.len(), columns), panels, sums);
    }

    /// Adds the block's products to the sums of its tile.
    fn add<E: Element>(&self, rows: &Rows<E>, panels: &mut Panels, sums: &mut TileSums) {
        let (isa, columns, request) = (self.isa, rows.columns(), self.request);
        let mut points = Centred {
            middle: vec![E::Mixed::default(); columns],
            origin: self.origin,
            centre: self.centre,
            median: vec![0.0; if request.references.median { columns } else { 0 }],
        };
        // The rows stay in the cache between finding the middle and subtracting it.
        let fits = blocks::<E>(rows.len(), columns).fold(true, |fits, part| {
            let (middle, median) = points.columns_mut(part.clone());
            find_centre(isa, request, &rows.at(part.clone()), middle, median);
            points.fill(isa, &rows.at(part.clone()), 0, part, &mut panels.narrow.rows_mut()) && fits
        });
        let narrow = self.request.precision == Precision::Usual && fits;
        if narrow && points.fill_references(rows.len(), request.references, &mut panels.narrow) {
            let panel = panels.narrow.rows::<f32>(request.points(), columns);
            add_pair_sums::<Product>(isa, &panel, 0..panel.len(), &mut sums.pairs.products);
            if request.is_direct() {
                let updates = panels.narrow.rows::<f32>(rows.len(), columns);
                add_pair_sums::<SquaredDifference>(isa, &updates, 0..rows.len(), &mut sums.pairs.squares);
            }
        } else if !note_non_finite(isa, rows, self.first, &mut sums.measured) {
            let panel = panels
                .wide
                .get_or_insert_with(|| TileBuffer::new(request.points(), BLOCK * size_of::<f64>()));
            points.fill_wide(rows, request.references, panel);
            let points = panel.rows::<f64>(request.points(), columns);
            add_wide_pair_sums::<Product>(isa, &points, 0..points.len(), &mut sums.pairs.products);
            if request.is_direct() {
                let updates = panel.rows::<f64>(rows.len(), columns);
                add_wide_pair_sums::<SquaredDifference>(
                    isa,
                    &updates,
                    0..rows.len(),
                    &mut sums.pairs.squares,
                );
            }
        }
    }
}

/// The middle that the points of a block are centred about, and the reference points.
struct Centred<'a, C> {
    middle: Vec<C>,
    /// Empty for zero.
    origin: &'a [f64],
    /// The centre of an earlier run, as a delta; empty if it is not a point.
    centre: &'a [f64],
    /// The coordinate median; empty if it is not a point.
    median: Vec<f64>,
}

impl<C: Element + Merged> Centred<'_, C> {
    /// The middle and the median of some columns.
    fn columns_mut(&mut self, columns: Range<usize>) -> (&mut [C], &mut [f64]) {
        let median = if self.median.is_empty() { &mut [] } else { &mut self.median[columns.clone()] };
        (&mut self.middle[columns], median)
    }

    /// Writes some columns of the rows from `first` on, minus the middle, to the rows of a panel. Returns whether f32
    /// holds their products.
    fn fill<E: Element>(
        &self,
        isa: Isa,
        rows: &Rows<E>,
        first: usize,
        columns: Range<usize>,
        panel: &mut RowsMut,
    ) -> bool {
        let mut all_fit = true;
        for i in 0..panel.len().min(rows.len() - first) {
            let row: &mut [f32] = bytemuck::cast_slice_mut(panel.row_mut(i));
            let largest =
                centre(isa, rows.row(first + i), &self.middle[columns.clone()], &mut row[columns.clone()]);
            // Differences of f64 may vanish in f32.
            let row = rows.row(first + i).iter().zip(&self.middle[columns.clone()]);
            let vanishes =
                || row.map(|(x, middle)| x.widen() - Merged::widen(*middle)).any(|delta| delta != 0.0);
            all_fit &= fits(f32::from_bits(largest)) && (largest != 0 || !vanishes());
            panel.clear_behind(i, columns.end * size_of::<f32>());
        }
        all_fit
    }

    /// Writes the references, minus the middle, after the first `rows` rows of the panel. Returns whether f32 holds
    /// their products.
    fn fill_references(&self, rows: usize, references: References, panel: &mut TileBuffer) -> bool {
        let mut all_fit = true;
        for (i, reference) in self.references(references).enumerate() {
            let row: &mut [f32] = bytemuck::cast_slice_mut(panel.row_mut(rows + i));
            let mut largest = 0;
            for ((out, x), middle) in row.iter_mut().zip(reference.iter()).zip(&self.middle) {
                let delta = x - Merged::widen(*middle);
                *out = delta as f32;
                largest = largest.max(out.to_bits() & 0x7fff_ffff | u32::from(delta != 0.0));
            }
            all_fit &= fits(f32::from_bits(largest));
            panel.clear_behind(rows + i, self.middle.len() * size_of::<f32>());
        }
        all_fit
    }

    /// All points in f64.
    fn fill_wide<E: Element>(&self, rows: &Rows<E>, references: References, panel: &mut TileBuffer) {
        let widened = |i: usize| Cow::from(rows.row(i).iter().map(|x| x.widen()).collect::<Vec<f64>>());
        let points = (0..rows.len()).map(widened).chain(self.references(references));
        for (i, point) in points.enumerate() {
            let row: &mut [f64] = bytemuck::cast_slice_mut(panel.row_mut(i));
            for ((out, x), middle) in row.iter_mut().zip(point.iter()).zip(&self.middle) {
                *out = x - Merged::widen(*middle);
            }
        }
    }

    /// The references in their order, each as long as the block.
    fn references(&self, references: References) -> impl Iterator<Item = Cow<'_, [f64]>> {
        let origin = match self.origin.is_empty() {
            true => Cow::from(vec![0.0; self.middle.len()]),
            false => Cow::from(self.origin),
        };
        let median = references.median.then(|| Cow::from(&self.median));
        let centre = references.centre.then(|| origin.iter().zip(self.centre).map(|(o, c)| o + c).collect());
        [Some(origin.clone()), median, centre].into_iter().flatten()
    }
}

/// Finds the middle of rows, and their median if it is a point.
fn find_centre<E: Element>(
    isa: Isa,
    request: &GeometryRequest,
    rows: &Rows<E>,
    middle: &mut [E::Mixed],
    median: &mut [f64],
) {
    robust_centre(isa, rows, request.hostile, middle);
    if request.references.median {
        coordinate_median(isa, rows, median);
    }
}

/// Finds a point amid the rows, coordinate by coordinate, that the hostile rows cannot move far: the median. If it is
/// as safe and much cheaper, takes the median of the medians of groups of every g-th row.
fn robust_centre<E: Element>(isa: Isa, rows: &Rows<E>, hostile: Option<usize>, out: &mut [E::Mixed]) {
    let Some(groups) = safe_groups(rows.len(), hostile) else {
        coordinate_median(isa, rows, out);
        return;
    };
    let mut medians = TileBuffer::new(groups, size_of_val(out));
    for group in 0..groups {
        let row: &mut [E::Mixed] = bytemuck::cast_slice_mut(medians.row_mut(group));
        coordinate_median(isa, &rows.every(group, groups), &mut row[..out.len()]);
    }
    coordinate_median(isa, &medians.rows::<E::Mixed>(groups, out.len()), out);
}

/// An odd number of groups of up to 32 rows; `None` if the hostile rows may be half of most groups.
fn safe_groups(rows: usize, hostile: Option<usize>) -> Option<usize> {
    let groups = rows.div_ceil(MAX_BLOCK) | 1;
    let half_of_most = groups.div_ceil(2) * (rows / groups).div_ceil(2);
    (rows > MAX_BLOCK && hostile? < half_of_most).then_some(groups)
}

/// Records the non-finite values of each row. Returns whether there are any.
fn note_non_finite<E: Element>(isa: Isa, rows: &Rows<E>, start: usize, measured: &mut [Measured]) -> bool {
    let mut any = false;
    for (i, total) in measured.iter_mut().enumerate() {
        if !all_finite(isa, rows.row(i)) {
            total.add(&measure_non_finite(rows.row(i), start));
            any = true;
        }
    }
    any
}

/// For each coordinate, the number of deltas of the more frequent sign less that of the other; summed over the block.
fn count_signs<E: Element>(isa: Isa, reader: &TileReader, rows: &Rows<E>, block: &Range<usize>) -> u64 {
    let mut counts = vec![0; block.len()];
    for i in 0..rows.len() {
        add_signs(isa, rows.row(i), reader.base_of(i).get(block.clone()).unwrap_or_default(), &mut counts);
    }
    counts.iter().map(|count| u64::from(count.unsigned_abs())).sum()
}

#[cfg(test)]
mod tests {
    use super::safe_groups;

    #[test]
    fn groups_are_only_used_where_they_are_safe() {
        assert_eq!(safe_groups(32, Some(0)), None, "one block is sorted as cheaply");
        assert_eq!(safe_groups(40, None), None, "the number of hostile clients is not known");
        // Three groups of 13: two of them with seven hostile rows each.
        assert_eq!((safe_groups(40, Some(13)), safe_groups(40, Some(14))), (Some(3), None));
        assert_eq!(safe_groups(256, Some(51)), Some(9));
    }
}
