//! The first pass: one read of every update gives its non-finite values, and the geometry that rules decide on.
//!
//! Tile by tile, [`BLOCK`] coordinates at a time, rows are centred about their coordinate median (of many rows with few
//! hostile ones, the median of the medians of a few groups), and the products of all pairs are added up. The centre
//! takes off what all updates have in common before anything is rounded to f32, and being a median, hostile clients
//! cannot move it away and so blur the distances of the others. Blocks whose values are too large or small for their squares to fit f32
//! are summed in f64.

pub mod gpu;
pub mod sums;

use crate::engine::intake::admit::{Frame, UpdateSet};
use crate::engine::passes::blocks::{blocks, mix};
use crate::engine::passes::drive::{Clock, InTileOrder, PassError, for_each_tile};
use crate::engine::passes::geometry::sums::{Precision, Sought, Sums, Totals};
use crate::engine::passes::gpu_ring::{self, Device};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::Workspace;
use crate::engine::passes::sections::{Branches, SectionSums, Summand, coordinates_of, section_of};
use crate::engine::passes::survey::{Measured, measure_non_finite};
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::{Element, Merged};
use crate::kernels::finite::all_finite;
use crate::kernels::gram::{BLOCK, Product, SquaredDifference, add_pair_sums, add_wide_pair_sums, centre};
use crate::kernels::lanes::Isa;
use crate::kernels::network::MAX_BLOCK;
use crate::kernels::signs::add_signs;
use crate::model::dtype::{Kind, Working};
use crate::model::tile::{Rows, TileBuffer};
use crate::rules::geometry::References;
use crate::rules::mixing::Mixing;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;

/// How the distances between clients are found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Distances {
    /// From differences for few clients, else from the Gram matrix.
    #[default]
    Auto,
    /// From the Gram matrix.
    Gram,
    /// From differences: a subtraction more a pair and coordinate, and exact however far clients are from the centre.
    Direct,
}

/// The most clients whose distances are found from differences by themselves: so few cost next to nothing.
const DIRECT_CLIENTS: usize = 16;

impl Distances {
    /// What `Auto` means for so many clients.
    #[must_use]
    pub fn resolved(self, clients: usize) -> Self {
        match self {
            Self::Auto if clients <= DIRECT_CLIENTS => Self::Direct,
            Self::Auto => Self::Gram,
            chosen => chosen,
        }
    }
}

/// The pass, ready to run.
pub struct FirstPass<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates.
    pub set: &'a UpdateSet,
    /// What is looked for.
    pub sought: Sought,
    /// How many clients are assumed hostile, if the run says.
    pub hostile: Option<usize>,
    /// The updates to look at, as combinations of the clients'; none for these themselves.
    pub mixing: Option<&'a Mixing>,
    /// The sections to look at.
    pub sections: Range<usize>,
    /// The device to run on, as far as it can; none for the CPU alone.
    pub device: Option<&'a Device>,
    /// Whether updates may stay on the device for the second pass.
    pub keeps: bool,
    /// Told about every tile.
    pub progress: &'a Progress,
}

/// Magnitudes whose squares, a block of them added, f32 holds.
pub(crate) const FITTING: Range<f32> = 1.0 / (1u64 << 39) as f32..(1u64 << 57) as f32;

pub(crate) struct Worker<'a> {
    pub(crate) space: Workspace<'a>,
    panels: Panels,
}

/// All points of a block, less its centre.
struct Panels {
    narrow: TileBuffer,
    /// Of a block that f32 does not hold, if there was one.
    wide: Option<TileBuffer>,
}

impl FirstPass<'_> {
    /// Runs the pass. Returns the branches of its sections, and where the time went, added over the threads. If an
    /// update measures values that are not finite, the rest means nothing.
    ///
    /// # Errors
    ///
    /// When an update cannot be read.
    pub fn run(&self, pool: &ThreadPool) -> Result<(Branches<Option<Totals>>, Clock), PassError> {
        let (on_device, device_clock, done) = match self.device {
            Some(device) => {
                let (sums, clock, done) = self.look_on_device(device)?;
                (Some(sums), clock, done)
            }
            None => (None, Clock::default(), Vec::new()),
        };
        let rest = gpu_ring::rest(self.set, done);
        let plan = TilePlan::of_ranges(self.set, self.set.clients.len(), &self.within(rest));
        let sums = SectionSums::starting_at(self.sections.start);
        let sums = InTileOrder::new(sums, |sums, (section, totals)| sums.add(section, totals));
        let workers = for_each_tile(
            pool,
            &plan,
            || self.new_worker(&plan),
            |worker, tile| {
                let started = (Instant::now(), worker.space.clock.read);
                let tile_sums = self.look_any(worker, tile)?;
                let read = worker.space.clock.read - started.1;
                worker.space.clock.compute += started.0.elapsed().saturating_sub(read);
                let section = section_of(tile.coordinates.start);
                sums.add(tile.number, (section, self.sought.totals(tile_sums)));
                self.progress
                    .advance((self.set.clients.len() * tile.coordinates.len() * tile.dtype.bytes()) as u64);
                Ok::<_, PassError>(())
            },
        )?;
        let clock = workers.iter().map(|worker| worker.space.clock).fold(device_clock, Clock::and);
        let mut branches = sums.finish().finish(self.sections.end);
        if let Some(first) = branches.0.first_mut() {
            first.sum.add(&on_device.map(|sums| self.sought.totals(sums)));
        }
        Ok((branches, clock))
    }

    /// What of some ranges lies in the sections to look at.
    pub(crate) fn within(&self, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
        let all = coordinates_of(&self.sections, self.set.layout.parameters());
        let part = |range: Range<usize>| range.start.max(all.start)..range.end.min(all.end);
        ranges.into_iter().map(part).filter(|range| !range.is_empty()).collect()
    }

    /// Looks at one tile of any float; integers are not looked at.
    pub(crate) fn look_any(&self, worker: &mut Worker, tile: &Tile) -> Result<Sums, PassError> {
        match tile.working {
            _ if tile.dtype.kind() != Kind::Float => Ok(self.sought.no_sums()),
            Working::BF16 => self.look::<bf16>(worker, tile),
            Working::F16 => self.look::<f16>(worker, tile),
            Working::F32 => self.look::<f32>(worker, tile),
            Working::F64 => self.look::<f64>(worker, tile),
        }
    }

    pub(crate) fn new_worker(&self, plan: &TilePlan) -> Worker<'_> {
        Worker {
            space: Workspace::new(self.isa, self.set, plan),
            panels: Panels {
                narrow: TileBuffer::new(self.sought.points(), BLOCK * size_of::<f32>()),
                wide: None,
            },
        }
    }

    fn look<E: Element>(&self, worker: &mut Worker, tile: &Tile) -> Result<Sums, PassError> {
        let clients: Vec<usize> = (0..self.set.clients.len()).collect();
        worker.space.read_finite_base(tile)?;
        worker.space.read_centre(tile)?;
        worker.space.read::<E>(tile, &clients)?;
        worker.space.subtract_base::<E>(tile, &clients);
        let mut sums = self.sought.no_sums();
        let columns = tile.coordinates.len();
        let Worker { space, panels } = worker;
        for start in (0..columns).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(columns);
            let rows = space.rows::<E>(tile, clients.len()).at(block.clone());
            let look = BlockLook {
                pass: self,
                origin: self.origin(space, &block),
                centre: space.centre().get(block.clone()).unwrap_or_default(),
                first: tile.coordinates.start + start,
            };
            match self.mixing {
                None => look.at::<E>(&rows, panels, &mut sums),
                Some(mixing) => {
                    let mut mixed = TileBuffer::new(mixing.len(), block.len() * size_of::<E::Mixed>());
                    mix(self.isa, &rows, &clients, mixing, look.origin, &mut mixed);
                    look.at::<E::Mixed>(&mixed.rows(mixing.len(), block.len()), panels, &mut sums);
                }
            }
            if self.sought.with_signs {
                sums.signs += count_signs(self.isa, space, &rows, &block);
            }
        }
        sums.floats = columns as u64;
        Ok(sums)
    }

    /// What the zero delta is among the rows: the base where they are weights, else zero.
    fn origin<'s>(&self, space: &'s Workspace, block: &Range<usize>) -> &'s [f64] {
        match self.set.frame {
            Frame::AsSent => space.base().get(block.clone()).unwrap_or_default(),
            Frame::Deltas | Frame::Mixed => &[],
        }
    }
}

/// One block of coordinates to look at.
struct BlockLook<'a> {
    pass: &'a FirstPass<'a>,
    /// Empty for zero.
    origin: &'a [f64],
    /// The delta that an earlier round left; empty if there is none.
    centre: &'a [f64],
    first: usize,
}

impl BlockLook<'_> {
    fn at<E: Element>(&self, rows: &Rows<E>, panels: &mut Panels, sums: &mut Sums) {
        let (isa, columns, pass) = (self.pass.isa, rows.columns(), self.pass);
        let mut points = Centred {
            middle: vec![E::Mixed::default(); columns],
            origin: self.origin,
            centre: self.centre,
            median: vec![0.0; if pass.sought.references.median { columns } else { 0 }],
        };
        // A row's values are still in the cache from finding the middle when it is taken off.
        let fits = blocks::<E>(rows.len(), columns).fold(true, |fits, part| {
            points.find(pass, &rows.at(part.clone()), part.clone());
            points.fill(isa, &rows.at(part.clone()), part, &mut panels.narrow) && fits
        });
        let narrow = self.pass.sought.precision == Precision::Usual && fits;
        if narrow && points.fill_references(rows.len(), pass.sought.references, &mut panels.narrow) {
            let panel = panels.narrow.rows::<f32>(pass.sought.points(), columns);
            add_pair_sums::<Product>(isa, &panel, &mut sums.products);
            if pass.sought.is_direct() {
                let updates = panels.narrow.rows::<f32>(rows.len(), columns);
                add_pair_sums::<SquaredDifference>(isa, &updates, &mut sums.squares);
            }
        } else if !note_non_finite(isa, rows, self.first, &mut sums.measured) {
            let panel = panels
                .wide
                .get_or_insert_with(|| TileBuffer::new(pass.sought.points(), BLOCK * size_of::<f64>()));
            points.fill_wide(rows, pass.sought.references, panel);
            add_wide_pair_sums::<Product>(
                isa,
                &panel.rows(pass.sought.points(), columns),
                &mut sums.products,
            );
            if pass.sought.is_direct() {
                let updates = panel.rows::<f64>(rows.len(), columns);
                add_wide_pair_sums::<SquaredDifference>(isa, &updates, &mut sums.squares);
            }
        }
    }
}

/// What the points of a block are centred about, and the references among them.
struct Centred<'a, C> {
    middle: Vec<C>,
    /// Empty for zero.
    origin: &'a [f64],
    /// As a delta; empty if it is no point.
    centre: &'a [f64],
    /// Empty if it is no point.
    median: Vec<f64>,
}

impl<C: Element + Merged> Centred<'_, C> {
    /// Finds the middle of some columns, and their median.
    fn find<E: Element<Mixed = C>>(&mut self, pass: &FirstPass, rows: &Rows<E>, columns: Range<usize>) {
        robust_centre(pass.isa, rows, pass.hostile, &mut self.middle[columns.clone()]);
        if pass.sought.references.median {
            coordinate_median(pass.isa, rows, &mut self.median[columns]);
        }
    }

    /// Writes some columns of the rows, less the middle, to the panel. Returns whether f32 holds their products.
    fn fill<E: Element>(
        &self,
        isa: Isa,
        rows: &Rows<E>,
        columns: Range<usize>,
        panel: &mut TileBuffer,
    ) -> bool {
        let mut fits = true;
        for i in 0..rows.len() {
            let row: &mut [f32] = bytemuck::cast_slice_mut(panel.row_mut(i));
            let largest = centre(isa, rows.row(i), &self.middle[columns.clone()], &mut row[columns.clone()]);
            let largest = f32::from_bits(largest);
            fits &= largest == 0.0 || FITTING.contains(&largest);
            panel.clear_behind(i, columns.end * size_of::<f32>());
        }
        fits
    }

    /// Writes the references, less the middle, behind so many rows of the panel. Returns whether f32 holds their
    /// products.
    fn fill_references(&self, rows: usize, references: References, panel: &mut TileBuffer) -> bool {
        let mut fits = true;
        for (i, reference) in self.references(references).enumerate() {
            let row: &mut [f32] = bytemuck::cast_slice_mut(panel.row_mut(rows + i));
            for ((out, x), middle) in row.iter_mut().zip(reference.iter()).zip(&self.middle) {
                *out = (x - Merged::widen(*middle)) as f32;
            }
            fits &= row[..self.middle.len()].iter().fold(true, |fits, x| fits & (x.abs() < FITTING.end));
            panel.clear_behind(rows + i, self.middle.len() * size_of::<f32>());
        }
        fits
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

/// A point amid the rows that so many hostile ones cannot move far, coordinate by coordinate: the median, or where
/// that is as good and much cheaper, the median of the medians of every g-th row.
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

/// An odd number of groups of up to 32 rows, if it takes more than the hostile ones to be half of most groups.
fn safe_groups(rows: usize, hostile: Option<usize>) -> Option<usize> {
    let groups = rows.div_ceil(MAX_BLOCK) | 1;
    let half_of_most = groups.div_ceil(2) * (rows / groups).div_ceil(2);
    (rows > MAX_BLOCK && hostile? < half_of_most).then_some(groups)
}

/// Notes which rows hold values that are not finite. Returns whether any does.
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

/// The sum over the block's coordinates of how many more deltas have one sign than the other.
fn count_signs<E: Element>(isa: Isa, space: &Workspace, rows: &Rows<E>, block: &Range<usize>) -> u64 {
    let mut counts = vec![0; block.len()];
    for i in 0..rows.len() {
        add_signs(isa, rows.row(i), space.base_of(i).get(block.clone()).unwrap_or_default(), &mut counts);
    }
    counts.iter().map(|count| u64::from(count.unsigned_abs())).sum()
}

#[cfg(test)]
mod tests {
    use super::safe_groups;

    #[test]
    fn groups_are_only_used_where_they_are_safe() {
        assert_eq!(safe_groups(32, Some(0)), None, "one block is sorted as cheaply");
        assert_eq!(safe_groups(40, None), None, "nobody said how many are hostile");
        // Three groups of 13: two of them with seven hostile rows each.
        assert_eq!((safe_groups(40, Some(13)), safe_groups(40, Some(14))), (Some(3), None));
        assert_eq!(safe_groups(256, Some(51)), Some(9));
    }
}
