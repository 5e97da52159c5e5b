//! The geometry pass on the GPU.
//!
//! Tiles go through the slots of the ring, and stay in GPU memory if all of them fit.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::geometry::sums::{TileSums, Triangles};
use crate::engine::passes::geometry::{self, FITTING, GeometryPass, GeometryWorker};
use crate::engine::passes::gpu_ring::{self, GpuRing, GpuShare, ReferenceRow};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::gpu::job::{GpuError, PAIRS_RELATIVE_ERROR, PairSums, PairsJob, TileShape};
use crate::gpu::{PairsProgram, RingSlot};
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::model::dtype::Working;
use crate::rules::numeric::triangle;
use half::{bf16, f16};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Columns of a tile that the CPU measures as well, to check the GPU.
const CHECKED_COLUMNS: usize = 1024;

/// The number of tiles that a pass checks.
const CHECKED_TILES: usize = 4;

impl GeometryPass<'_> {
    /// Measures the coordinates that the GPU takes. Returns the sums and the ranges.
    pub(super) fn run_on_gpu(
        &self,
        machine: &Machine,
        ring: &GpuRing,
    ) -> Result<(TileSums, Vec<Range<usize>>), PassError> {
        let (mut all, mut done) = (TileSums::none(&self.request), Vec::new());
        for share in gpu_ring::shares(self.set) {
            let share = GpuShare { ranges: self.within(share.ranges), ..share };
            if share.ranges.is_empty() {
                continue;
            }
            all.add(&self.run_share(machine, ring, &share)?);
            done.extend(share.ranges);
        }
        Ok((all, done))
    }

    fn run_share(&self, machine: &Machine, ring: &GpuRing, share: &GpuShare) -> Result<TileSums, PassError> {
        let (n, points) = (self.set.clients.len(), self.request.points());
        let clients: Vec<usize> = (0..n).collect();
        let references = gpu_ring::references(self.set);
        let columns = ring
            .columns(n, share.stored, references.len(), points.max(self.request.updates))?
            .min(PairsProgram::most_columns(ring.gpu(), points));
        if columns == 0 {
            let adapter = ring.gpu().adapter().name.clone();
            let most = (ring.gpu().binding_bytes() / size_of::<f32>()).isqrt();
            return Err(GpuError::TooMany { adapter, what: "updates to compare", found: n, most }.into());
        }
        let shape = TileShape { rows: n, stored: share.stored, references: references.len(), columns };
        let plan = gpu_ring::plan(self.set, share, columns);
        let on_gpu = GeometryOnGpu {
            pass: self,
            machine,
            ring,
            program: PairsProgram::new(ring.gpu(), &self.job(shape, &clients, &references))?,
            references,
            stored: share.stored,
            clients,
            keeps: AtomicBool::new(self.keeps && ring.keeps(self.set, shape.bytes())),
            check_every: plan.tiles().div_ceil(CHECKED_TILES).max(1),
            plan,
        };
        let sums = machine.run_on(ring.lanes(), &on_gpu)?;
        match on_gpu.keeps.load(Ordering::Relaxed) {
            true => ring.keep_shape(shape),
            false => ring.keep_none(share.stored),
        }
        Ok(sums)
    }

    fn job(&self, shape: TileShape, clients: &[usize], references: &[ReferenceRow]) -> PairsJob {
        let signs = || clients.iter().map(|client| gpu_ring::is_less_base(self.set, *client)).collect();
        PairsJob {
            shape,
            mixing: self.request.mixing.map(|mixing| gpu_ring::mixtures(self.set, mixing, clients)),
            origin_is_base: references.contains(&ReferenceRow::Base),
            with_median: self.request.references.median,
            with_centre: self.request.references.centre,
            differences: self.request.is_direct(),
            signs: self.request.with_signs.then(signs),
        }
    }

    fn sums_of(&self, found: PairSums, columns: usize) -> TileSums {
        let squares = if self.request.is_direct() { self.request.updates } else { 0 };
        TileSums {
            pairs: Triangles {
                products: upper_triangle(self.request.points(), &found.products),
                squares: upper_triangle(squares, &found.squares),
            },
            signs: found.signs,
            floats: columns as u64,
            ..TileSums::none(&self.request)
        }
    }

    /// Measures a tile on the CPU.
    fn measure_on_cpu(&self, isa: Isa, tile: &Tile) -> Result<TileSums, PassError> {
        let n = self.set.clients.len();
        let plan = TilePlan::of_ranges(self.set, n, std::slice::from_ref(&tile.coordinates));
        let mut worker = self.new_worker(isa, &plan);
        let mut sums = TileSums::none(&self.request);
        for number in 0..plan.tiles() {
            sums.add(&self.measure_tile(isa, &mut worker, &plan.tile(number))?);
        }
        Ok(sums)
    }
}

/// A slot of the ring, and the buffers of its thread.
struct GeometryLane<'a> {
    slot: RingSlot<'a>,
    host: GeometryWorker<'a>,
}

/// The tiles of one share of the coordinates, and the compiled program.
struct GeometryOnGpu<'a> {
    pass: &'a GeometryPass<'a>,
    machine: &'a Machine<'a>,
    ring: &'a GpuRing,
    plan: TilePlan,
    program: PairsProgram,
    references: Vec<ReferenceRow>,
    stored: Working,
    clients: Vec<usize>,
    /// Whether tiles stay on the GPU for the second pass.
    keeps: AtomicBool,
    /// The pass checks every tile whose number is a multiple of this.
    check_every: usize,
}

impl TilePass for GeometryOnGpu<'_> {
    type Worker<'p>
        = Result<GeometryLane<'p>, GpuError>
    where
        Self: 'p;
    type Part = TileSums;
    type Sum = TileSums;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> Result<GeometryLane<'_>, GpuError> {
        let slot = RingSlot::for_pairs(self.ring.gpu(), &self.program)?;
        Ok(GeometryLane { slot, host: self.pass.new_worker(self.machine.isa, &self.plan) })
    }

    fn tile(&self, lane: &mut Result<GeometryLane, GpuError>, tile: &Tile) -> Result<TileSums, PassError> {
        let lane = lane.as_mut().map_err(|why| why.clone())?;
        let sums = match self.stored {
            Working::BF16 => self.measure::<bf16>(lane, tile),
            Working::F16 => self.measure::<f16>(lane, tile),
            _ => self.measure::<f32>(lane, tile),
        }?;
        let bytes = self.clients.len() * tile.coordinates.len() * tile.dtype.bytes();
        self.machine.progress.advance(bytes as u64);
        Ok(sums)
    }

    fn start(&self) -> TileSums {
        TileSums::none(&self.pass.request)
    }

    fn add(&self, sum: &mut TileSums, _: &Tile, part: TileSums) {
        sum.add(&part);
    }

    fn clock(&self, lane: &Result<GeometryLane, GpuError>) -> Clock {
        lane.as_ref().map_or_else(|_| Clock::default(), |lane| lane.host.reader.clock)
    }
}

impl GeometryOnGpu<'_> {
    fn measure<E: Element>(&self, lane: &mut GeometryLane, tile: &Tile) -> Result<TileSums, PassError> {
        if tile.number.is_multiple_of(self.check_every) {
            self.check::<E>(lane, tile)?;
        }
        self.fill::<E>(lane, tile)?;
        let started = Instant::now();
        let found = lane.slot.pairs(&self.program, None)?;
        lane.host.reader.clock.compute += started.elapsed();
        if self.keeps.load(Ordering::Relaxed) {
            match lane.slot.keep() {
                Ok(input) => self.ring.keep(self.stored, tile.number, input),
                Err(GpuError::OutOfMemory { .. }) => self.keeps.store(false, Ordering::Relaxed),
                Err(why) => return Err(why.into()),
            }
        }
        match fits(&found, self.pass.request.mixing.is_some()) {
            true => Ok(self.pass.sums_of(found, tile.coordinates.len())),
            false => self.pass.measure_on_cpu(self.machine.isa, tile),
        }
    }

    fn fill<E: Element>(&self, lane: &mut GeometryLane, tile: &Tile) -> Result<(), PassError> {
        gpu_ring::fill::<E>(&mut lane.slot, &mut lane.host.reader, tile, &self.clients, &self.references, &[])
    }

    /// Compares the GPU's sums over the first columns of a tile with the CPU's.
    fn check<E: Element>(&self, lane: &mut GeometryLane, tile: &Tile) -> Result<(), PassError> {
        let end = tile.coordinates.end.min(tile.coordinates.start + CHECKED_COLUMNS);
        let part = Tile { coordinates: tile.coordinates.start..end, ..tile.clone() };
        self.fill::<E>(lane, &part)?;
        let found = lane.slot.pairs(&self.program, None)?;
        if !fits(&found, self.pass.request.mixing.is_some()) {
            return Ok(());
        }
        let expected = self.pass.measure_on_cpu(self.machine.isa, &part)?;
        // The device rounds the median and the centre to f32.
        let columns = part.coordinates.len() as f64;
        let rounding = f64::from(f32::EPSILON) / 2.0 * f64::from(found.largest) * columns.sqrt();
        let found = self.pass.sums_of(found, part.coordinates.len());
        let GeometryPass { request, .. } = self.pass;
        compare(&found, &expected, rounding, (request.points(), request.updates), self.ring)
    }
}

/// Whether f32 holds the products of all points, which are mixtures if `is_mixed`. If not, or if a value is not finite,
/// the CPU measures the tile.
fn fits(found: &PairSums, is_mixed: bool) -> bool {
    // A device may take mixtures of small values for zero.
    let may_vanish = is_mixed && found.largest != 0.0 && found.largest < FITTING.start;
    found.largest.is_finite() && !may_vanish && found.largest_of_point.iter().all(|x| geometry::fits(*x))
}

/// The upper triangle of a square, row by row from the diagonal on.
fn upper_triangle(size: usize, square: &[f64]) -> Vec<f64> {
    (0..size).flat_map(|i| &square[i * size + i..(i + 1) * size]).copied().collect()
}

/// Whether squared distances of points agree within the bounds of both, where each of the points behind the updates may
/// be off by the length `rounding`. Inner products may differ: the GPU and the CPU centre the points differently.
fn compare(
    found: &TileSums,
    expected: &TileSums,
    rounding: f64,
    (points, updates): (usize, usize),
    ring: &GpuRing,
) -> Result<(), PassError> {
    let square = |sums: &TileSums, i: usize, j: usize| {
        let at = |i: usize, j: usize| sums.pairs.products[triangle::start(points, i) + j - i];
        at(i, i) + at(j, j) - 2.0 * at(i, j)
    };
    let squares = |i: usize| [found, expected].map(|sums| sums.pairs.products[triangle::start(points, i)]);
    let spread = |i: usize| squares(i).into_iter().fold(f64::NEG_INFINITY, f64::max);
    for i in 0..points {
        for j in i + 1..points {
            let rounded = [i, j].into_iter().filter(|point| *point >= updates).count() as f64 * rounding;
            let off = (2.0 * square(expected, i, j).max(0.0).sqrt() + rounded) * rounded;
            let bound =
                8.0 * PAIRS_RELATIVE_ERROR * (spread(i) + spread(j)) + off + f64::from(f32::MIN_POSITIVE);
            let mut pairs = vec![(square(found, i, j), square(expected, i, j))];
            if !found.pairs.squares.is_empty() && j < updates {
                let place = triangle::start(updates, i) + j - i;
                pairs.push((found.pairs.squares[place], expected.pairs.squares[place]));
            }
            for (found, expected) in pairs {
                // NaN counts as wrong.
                let is_near = (found - expected).abs() <= bound;
                if !is_near {
                    let adapter = ring.gpu().adapter().name.clone();
                    let what = format!("the squared distance of updates {i} and {j}");
                    return Err(GpuError::Wrong { adapter, what, found, expected, bound }.into());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of a tile with these largest magnitudes: as sent, and of the points.
    fn found(largest: f32, largest_of_point: &[f32]) -> PairSums {
        let (products, squares) = (Vec::new(), Vec::new());
        PairSums { products, squares, largest_of_point: largest_of_point.to_vec(), largest, signs: 0 }
    }

    #[test]
    fn tiles_that_f32_does_not_hold_are_left_to_the_cpu() {
        for is_mixed in [false, true] {
            assert!(fits(&found(1.0, &[1.0, 0.0, 1e-9]), is_mixed));
            assert!(fits(&found(0.0, &[0.0, 0.0]), is_mixed));
            for point in [1e-45, 1e-22, 1e-12, 1e18, f32::INFINITY] {
                assert!(!fits(&found(1.0, &[1.0, 0.0, point]), is_mixed), "{point:e}");
            }
            assert!(!fits(&found(f32::INFINITY, &[1.0]), is_mixed));
        }
        // Small values whose mixtures a device took for zero.
        assert!(fits(&found(1e-41, &[0.0, 0.0]), false));
        assert!(!fits(&found(1e-41, &[0.0, 0.0]), true));
    }
}
