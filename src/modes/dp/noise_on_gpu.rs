//! The noise of a release on a GPU: added to the sum on disk, with the bits of the CPU.
//!
//! The budget has paid for the release, so a GPU that fails ends no run: the CPU adds the noise of the tiles that are
//! left. The CPU draws the noise of some coordinates of every tile too, before the tile is written, and does not take
//! a tile in which one differs. The keys are overwritten in the GPU's memory at the end.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::gpu::integers::NoiseJob;
use crate::gpu::job::GpuError;
use crate::gpu::{NoiseProgram, RingSlot};
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::lanes::Isa;
use crate::modes::dp::noise::{Noise, SignedStream};
use crate::modes::dp::noised_sum::{SumOnDisk, add_noise};
use crate::updates::set::UpdateSet;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Columns of a tile.
const COLUMNS: usize = 1 << 18;

/// The distance of coordinates whose noise the CPU checks.
const CHECKED_EVERY: usize = 1 << 12;

/// Adds noise to a sum on disk on the GPU, if the machine uses one and the noise comes from keys. Returns whether the
/// sum holds its noise now.
///
/// # Errors
///
/// When the sum cannot be read or written, or a signal asked to stop.
pub(super) fn add(
    machine: &Machine,
    set: &UpdateSet,
    coordinates: &[Range<usize>],
    noise: &Noise,
    sum: &SumOnDisk,
) -> Result<bool, PassError> {
    let (Some(ring), Some((level, streams))) = (machine.gpu(), noise.streams()) else { return Ok(false) };
    let program = match compile(&ring, level, &streams) {
        Ok(program) => program,
        Err(why) => {
            machine.give_up_gpu(why);
            return Ok(false);
        }
    };
    let plan = TilePlan::at_multiples(set, 1, coordinates, COLUMNS);
    let pass = NoisePass {
        isa: machine.isa,
        ring: &ring,
        program,
        level,
        noise,
        sum,
        plan,
        failure: Mutex::default(),
    };
    let done = machine.run_on(ring.lanes(), &pass);
    let wiped = ring.gpu().wipe(&pass.program).err();
    let failure = pass.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(why) = failure.or(wiped) {
        machine.give_up_gpu(why);
    }
    done.map(|()| true)
}

fn compile(ring: &GpuRing, level: Level, streams: &[SignedStream]) -> Result<NoiseProgram, GpuError> {
    let streams: Vec<(Stream, bool)> = streams.iter().map(|of| (of.stream(), of.is_negative)).collect();
    ring.gpu().compile_noise(&NoiseJob { level, streams: &streams, columns: COLUMNS })
}

/// The tiles of a sum, each of which gets its noise.
struct NoisePass<'a> {
    isa: Isa,
    ring: &'a GpuRing,
    program: NoiseProgram,
    level: Level,
    noise: &'a Noise,
    sum: &'a SumOnDisk,
    plan: TilePlan,
    /// The first failure of the GPU.
    failure: Mutex<Option<GpuError>>,
}

/// A slot of the ring, and the time of its thread.
struct NoiseLane<'p> {
    /// `None` after the first failure of the GPU.
    slot: Option<RingSlot<'p>>,
    clock: Clock,
}

impl TilePass for NoisePass<'_> {
    type Worker<'p>
        = NoiseLane<'p>
    where
        Self: 'p;
    type Part = ();
    type Sum = ();

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> NoiseLane<'_> {
        let slot = RingSlot::for_noise(self.ring.gpu(), &self.program);
        NoiseLane { slot: slot.map_err(|why| self.note(why)).ok(), clock: Clock::default() }
    }

    fn tile(&self, lane: &mut NoiseLane, tile: &Tile) -> Result<(), PassError> {
        let started = Instant::now();
        let mut integers = vec![0; tile.coordinates.len()];
        self.sum.read(tile, &mut integers)?;
        match self.noised(lane.slot.as_mut(), tile, &integers) {
            Some(noised) => integers = noised,
            None => {
                lane.slot = None;
                add_noise(self.noise, self.isa, tile, &mut integers)?;
            }
        }
        self.sum.write(tile, &integers)?;
        lane.clock.compute += started.elapsed();
        Ok(())
    }

    fn start(&self) {}

    fn add(&self, (): &mut (), _: &Tile, (): ()) {}

    fn clock(&self, lane: &NoiseLane) -> Clock {
        lane.clock
    }
}

impl NoisePass<'_> {
    /// The integers of a tile plus the GPU's noise; `None` if the GPU failed.
    fn noised(&self, slot: Option<&mut RingSlot>, tile: &Tile, integers: &[i64]) -> Option<Vec<i64>> {
        let slot = slot?;
        let mut run = || {
            slot.fill_integers(self.level, tile.coordinates.start as u64, integers)?;
            let noised = slot.noise(&self.program, None)?;
            self.check(tile, integers, &noised).map(|()| noised)
        };
        run().map_err(|why| self.note(why)).ok()
    }

    /// Compares the noise of some coordinates with the CPU's.
    fn check(&self, tile: &Tile, integers: &[i64], noised: &[i64]) -> Result<(), GpuError> {
        let last = integers.len().saturating_sub(1);
        for column in (0..last).step_by(CHECKED_EVERY).chain([last]) {
            let coordinate = tile.coordinates.start + column;
            let mut expected = [integers[column]];
            // Noise from keys is drawn without any file.
            let drawn = self.noise.add(self.isa, coordinate as u64, &mut expected);
            if drawn.is_err() || noised.get(column) != Some(&expected[0]) {
                let found = noised.get(column).copied().unwrap_or_default();
                return Err(GpuError::Wrong {
                    adapter: self.ring.gpu().adapter().name.clone(),
                    what: format!("the noised sum at coordinate {coordinate}"),
                    found: found as f64,
                    expected: expected[0] as f64,
                    bound: 0.0,
                });
            }
        }
        Ok(())
    }

    fn note(&self, why: GpuError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}
