//! The first pass on a device: tiles go through the slots of its ring, and stay on the device where they all fit.

use crate::engine::passes::drive::{Clock, InTileOrder, PassError, for_each_tile};
use crate::engine::passes::geometry::sums::Sums;
use crate::engine::passes::geometry::{FITTING, FirstPass, Worker};
use crate::engine::passes::gpu_ring::{self, Device, Part, Reference};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::gpu::job::{GpuError, PAIRS_RELATIVE_ERROR, PairSums, PairsJob, TileShape};
use crate::gpu::{PairsProgram, RingSlot};
use crate::kernels::element::Element;
use crate::model::dtype::Working;
use half::{bf16, f16};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Columns of a tile that are looked at on the CPU as well.
const CHECKED_COLUMNS: usize = 1024;

/// Tiles of a pass of which that is done.
const CHECKED_TILES: usize = 4;

/// A slot and what its thread needs besides.
struct Lane<'a> {
    slot: RingSlot<'a>,
    host: Worker<'a>,
}

/// One part of the coordinates, compiled.
struct Compiled<'a> {
    device: &'a Device,
    program: PairsProgram,
    references: Vec<Reference>,
    stored: Working,
    clients: Vec<usize>,
    /// Whether tiles stay on the device for the second pass.
    keeps: AtomicBool,
    /// Every so many tiles one is checked.
    check_every: usize,
}

impl Compiled<'_> {
    fn fill<E: Element>(&self, lane: &mut Lane, tile: &Tile) -> Result<(), PassError> {
        gpu_ring::fill::<E>(&mut lane.slot, &mut lane.host.space, tile, &self.clients, &self.references, &[])
    }
}

impl FirstPass<'_> {
    /// Looks at what of the coordinates is for the device. Returns their sums and ranges.
    pub(crate) fn look_on_device(
        &self,
        device: &Device,
    ) -> Result<(Sums, Clock, Vec<Range<usize>>), PassError> {
        let (mut all, mut clock, mut done) = (self.sought.no_sums(), Clock::default(), Vec::new());
        for part in gpu_ring::parts(self.set) {
            let part = Part { ranges: self.within(part.ranges), ..part };
            if part.ranges.is_empty() {
                continue;
            }
            let (sums, spent) = self.look_at_part(device, &part)?;
            all.add(&sums);
            clock = clock.and(spent);
            done.extend(part.ranges);
        }
        Ok((all, clock, done))
    }

    fn look_at_part(&self, device: &Device, part: &Part) -> Result<(Sums, Clock), PassError> {
        let n = self.set.clients.len();
        let clients: Vec<usize> = (0..n).collect();
        let references = gpu_ring::references(self.set);
        let columns = device
            .columns(n, part.stored, references.len(), self.sought.points().max(self.sought.updates))?
            .min(PairsProgram::most_columns(device.gpu(), self.sought.points()));
        if columns == 0 {
            let adapter = device.gpu().adapter().name.clone();
            let most = (device.gpu().binding_bytes() / size_of::<f32>()).isqrt();
            return Err(GpuError::TooMany { adapter, what: "updates to compare", found: n, most }.into());
        }
        let shape = TileShape { rows: n, stored: part.stored, references: references.len(), columns };
        let job = PairsJob {
            shape,
            mixing: self.mixing.map(|mixing| gpu_ring::mixtures(self.set, mixing, &clients)),
            origin_is_base: references.contains(&Reference::Base),
            with_median: self.sought.references.median,
            with_centre: self.sought.references.centre,
            differences: self.sought.is_direct(),
            signs: self
                .sought
                .with_signs
                .then(|| (0..n).map(|client| gpu_ring::is_less_base(self.set, client)).collect()),
        };
        let plan = gpu_ring::plan(self.set, part, columns);
        let keeps = self.keeps && device.keeps(self.set, shape.bytes());
        let compiled = Compiled {
            device,
            program: PairsProgram::new(device.gpu(), &job)?,
            references,
            stored: part.stored,
            clients,
            keeps: AtomicBool::new(keeps),
            check_every: plan.tiles().div_ceil(CHECKED_TILES).max(1),
        };
        let sums = InTileOrder::new(self.sought.no_sums(), |sums: &mut Sums, tile| sums.add(&tile));
        let workers = for_each_tile(
            device.lanes(),
            &plan,
            || self.new_lane(&compiled, &plan),
            |lane: &mut Result<Lane, GpuError>, tile| {
                let lane = lane.as_mut().map_err(|why| why.clone())?;
                let found = match part.stored {
                    Working::BF16 => self.device_tile::<bf16>(lane, tile, &compiled),
                    Working::F16 => self.device_tile::<f16>(lane, tile, &compiled),
                    _ => self.device_tile::<f32>(lane, tile, &compiled),
                }?;
                sums.add(tile.number, found);
                self.progress.advance((n * tile.coordinates.len() * tile.dtype.bytes()) as u64);
                Ok::<_, PassError>(())
            },
        )?;
        match compiled.keeps.load(Ordering::Relaxed) {
            true => device.keep_shape(shape),
            false => device.keep_none(part.stored),
        }
        let clock =
            workers.iter().flatten().map(|lane| lane.host.space.clock).fold(Clock::default(), Clock::and);
        Ok((sums.finish(), clock))
    }

    fn new_lane<'a>(&'a self, compiled: &Compiled<'a>, plan: &TilePlan) -> Result<Lane<'a>, GpuError> {
        let slot = RingSlot::for_pairs(compiled.device.gpu(), &compiled.program)?;
        Ok(Lane { slot, host: self.new_worker(plan) })
    }

    fn device_tile<E: Element>(
        &self,
        lane: &mut Lane,
        tile: &Tile,
        compiled: &Compiled,
    ) -> Result<Sums, PassError> {
        if tile.number.is_multiple_of(compiled.check_every) {
            self.check::<E>(lane, tile, compiled)?;
        }
        compiled.fill::<E>(lane, tile)?;
        let started = Instant::now();
        let found = lane.slot.pairs(&compiled.program, None)?;
        lane.host.space.clock.compute += started.elapsed();
        if compiled.keeps.load(Ordering::Relaxed) {
            match lane.slot.keep() {
                Ok(input) => compiled.device.keep(compiled.stored, tile.number, input),
                Err(GpuError::OutOfMemory { .. }) => compiled.keeps.store(false, Ordering::Relaxed),
                Err(why) => return Err(why.into()),
            }
        }
        if self.fits(&found) {
            Ok(self.sums_of(found, tile.coordinates.len()))
        } else {
            self.look_elsewhere(tile)
        }
    }

    /// Whether f32 holds the products of all points; if not, or if a value is not finite, the CPU looks again.
    fn fits(&self, found: &PairSums) -> bool {
        let (updates, references) = found.largest_of_point.split_at(self.sought.updates);
        found.largest.is_finite()
            && updates.iter().all(|largest| *largest == 0.0 || FITTING.contains(largest))
            && references.iter().all(|largest| *largest < FITTING.end)
    }

    fn sums_of(&self, found: PairSums, columns: usize) -> Sums {
        Sums {
            products: found.products,
            squares: found.squares,
            signs: found.signs,
            floats: columns as u64,
            ..self.sought.no_sums()
        }
    }

    /// Looks at a tile on the CPU.
    fn look_elsewhere(&self, tile: &Tile) -> Result<Sums, PassError> {
        let n = self.set.clients.len();
        let plan = TilePlan::of_ranges(self.set, n, std::slice::from_ref(&tile.coordinates));
        let mut worker = self.new_worker(&plan);
        let mut sums = self.sought.no_sums();
        for number in 0..plan.tiles() {
            sums.add(&self.look_any(&mut worker, &plan.tile(number))?);
        }
        Ok(sums)
    }

    /// Compares what device and CPU make of the first columns of a tile.
    fn check<E: Element>(&self, lane: &mut Lane, tile: &Tile, compiled: &Compiled) -> Result<(), PassError> {
        let end = tile.coordinates.end.min(tile.coordinates.start + CHECKED_COLUMNS);
        let part = Tile { coordinates: tile.coordinates.start..end, ..tile.clone() };
        compiled.fill::<E>(lane, &part)?;
        let found = lane.slot.pairs(&compiled.program, None)?;
        if !self.fits(&found) {
            return Ok(());
        }
        let expected = self.look_elsewhere(&part)?;
        let found = self.sums_of(found, part.coordinates.len());
        compare(&found, &expected, self.sought.points(), self.sought.updates, compiled.device)
    }
}

/// Whether squared distances of points agree within the bounds of both. Inner products themselves need not: each
/// side takes them about a middle of its own.
fn compare(
    found: &Sums,
    expected: &Sums,
    points: usize,
    updates: usize,
    device: &Device,
) -> Result<(), PassError> {
    let square = |sums: &Sums, i: usize, j: usize| {
        let at = |i: usize, j: usize| sums.products[i * points + j];
        at(i, i) + at(j, j) - 2.0 * at(i, j)
    };
    let spread = |i: usize| found.products[i * points + i].max(expected.products[i * points + i]);
    for i in 0..points {
        for j in i + 1..points {
            let bound = 8.0 * PAIRS_RELATIVE_ERROR * (spread(i) + spread(j)) + f64::from(f32::MIN_POSITIVE);
            let mut pairs = vec![(square(found, i, j), square(expected, i, j))];
            if !found.squares.is_empty() && j < updates {
                pairs.push((found.squares[i * updates + j], expected.squares[i * updates + j]));
            }
            for (found, expected) in pairs {
                // What is no number is wrong too.
                let is_near = (found - expected).abs() <= bound;
                if !is_near {
                    let adapter = device.gpu().adapter().name.clone();
                    let what = format!("the squared distance of updates {i} and {j}");
                    return Err(GpuError::Wrong { adapter, what, found, expected, bound }.into());
                }
            }
        }
    }
    Ok(())
}
