//! The noise of a release on a GPU: added to the sum on disk, with the bits of the CPU.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::modes::dp::drawing::Drawing;
use crate::modes::dp::noise::Noise;
use crate::modes::dp::noised_sum::SumOnDisk;
use crate::updates::set::UpdateSet;
use std::ops::Range;
use std::time::Instant;

/// Columns of a tile.
const COLUMNS: usize = 1 << 18;

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
    let count = streams.len();
    let drawing = Drawing::new(machine, Some(&ring), level, streams, COLUMNS);
    if !drawing.is_on_gpu() {
        return Ok(false);
    }
    let plan = TilePlan::at_multiples(set, 1, coordinates, COLUMNS);
    let pass = NoisePass { drawing, streams: 0..count, sum, plan };
    let done = machine.run_on(ring.lanes(), &pass);
    pass.drawing.finish(machine);
    done.map(|()| true)
}

/// The tiles of a sum, each of which gets its noise.
struct NoisePass<'a> {
    drawing: Drawing<'a>,
    streams: Range<usize>,
    sum: &'a SumOnDisk,
    plan: TilePlan,
}

impl TilePass for NoisePass<'_> {
    type Worker<'p>
        = Clock
    where
        Self: 'p;
    type Part = ();
    type Sum = ();

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> Clock {
        Clock::default()
    }

    fn tile(&self, clock: &mut Clock, tile: &Tile) -> Result<(), PassError> {
        let started = Instant::now();
        let mut integers = vec![0; tile.coordinates.len()];
        self.sum.read(tile, &mut integers)?;
        self.drawing.add(self.streams.clone(), tile.coordinates.start as u64, &mut integers);
        self.sum.write(tile, &integers)?;
        clock.compute += started.elapsed();
        Ok(())
    }

    fn start(&self) {}

    fn add(&self, (): &mut (), _: &Tile, (): ()) {}

    fn clock(&self, clock: &Clock) -> Clock {
        *clock
    }
}
