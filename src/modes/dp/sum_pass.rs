//! The pass that adds up clipped clients and the sums of edges.
//!
//! The pass compares the digest of each client's values with the digest of the pass that measured them. Digests decide,
//! not times. A client whose values changed must count as zero, and the pass must run again.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::gpu::job::GpuError;
use crate::modes::dp::COLUMNS;
use crate::modes::dp::clips::ValuesDigest;
use crate::modes::dp::noised_sum::ClippedSum;
use crate::modes::dp::sum_on_gpu::{PieceDigests, SumLane, SumOnGpu, pieces};
use crate::updates::set::UpdateSet;
use std::ops::Range;

/// Receives the integers of tiles, in any order. The pass writes no tensors outside the clipped vector.
pub type WriteIntegers<'w> = dyn Fn(&Tile, &[i64]) -> Result<(), PassError> + Sync + 'w;

/// The digests of the clients of a sum; `None` for a client that cannot be read.
pub type Digests = Vec<Option<ValuesDigest>>;

/// Adds up the clients and the edges of a sum at some coordinates, on the GPU if the machine uses one. Returns the
/// digest of each client's values.
///
/// # Errors
///
/// When the base or a sum of an edge cannot be read, integers cannot be written, the GPU fails, or a signal asked to
/// stop.
pub fn run(
    machine: &Machine,
    set: &UpdateSet,
    coordinates: &[Range<usize>],
    sum: &ClippedSum,
    write: &WriteIntegers,
) -> Result<Digests, PassError> {
    machine.progress.start("adding up", set.data_bytes());
    let ring = machine.gpu();
    let device = ring.as_deref().map(|ring| SumOnGpu::new(ring, set, sum)).transpose()?;
    let columns = device.as_ref().map_or(COLUMNS, SumOnGpu::columns);
    let plan = TilePlan::at_multiples(set, 1, coordinates, columns);
    let pool = ring.as_deref().map_or(machine.pool, GpuRing::lanes);
    machine.run_on(pool, &SumPass { machine, set, plan, sum, write, device })
}

struct SumPass<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
    sum: &'a ClippedSum<'a>,
    write: &'a WriteIntegers<'a>,
    /// The sum on the GPU; `None` without one.
    device: Option<SumOnGpu<'a>>,
}

/// The buffers of one thread.
struct SumWorker<'p> {
    reader: TileReader<'p>,
    integers: Vec<i64>,
    /// The slots of the ring; `None` without a GPU.
    lane: Option<Result<SumLane<'p>, GpuError>>,
}

impl TilePass for SumPass<'_> {
    type Worker<'p>
        = SumWorker<'p>
    where
        Self: 'p;
    type Part = PieceDigests;
    type Sum = Digests;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> SumWorker<'_> {
        let reader = TileReader::new(self.machine.isa, self.set, &self.plan);
        SumWorker { reader, integers: Vec::new(), lane: self.device.as_ref().map(SumOnGpu::lane) }
    }

    fn tile(&self, worker: &mut SumWorker, tile: &Tile) -> Result<PieceDigests, PassError> {
        let SumWorker { reader, integers, lane } = worker;
        let (isa, layout) = (self.machine.isa, &self.set.layout);
        integers.clear();
        integers.resize(tile.coordinates.len(), 0);
        reader.read_base(tile)?;
        let device = self.device.as_ref().filter(|device| device.takes(tile, reader.base()));
        let digests = match device.zip(lane.as_mut()) {
            Some((device, lane)) => {
                let lane = lane.as_mut().map_err(|why| why.clone())?;
                let numbered = (tile, self.plan.tiles());
                for_element!(tile.working, E => device.add::<E>(isa, lane, reader, numbered, integers))?
            }
            None => self.add_pieces(reader, tile, integers)?,
        };
        self.sum.add_edges(isa, layout, tile, integers)?;
        (self.write)(tile, integers)?;
        let clients = self.sum.clients().len();
        self.machine.progress.advance((clients * integers.len() * tile.dtype.bytes()) as u64);
        Ok(digests)
    }

    fn start(&self) -> Digests {
        self.sum.clients().iter().map(|_| Some(ValuesDigest::default())).collect()
    }

    fn add(&self, all: &mut Digests, _: &Tile, parts: PieceDigests) {
        for parts in parts {
            for (all, part) in all.iter_mut().zip(parts) {
                match (all.as_mut(), part) {
                    (Some(all), Some(part)) => all.add(&part),
                    _ => *all = None,
                }
            }
        }
    }

    fn clock(&self, worker: &SumWorker) -> Clock {
        worker.reader.clock
    }
}

impl SumPass<'_> {
    /// Adds up the clients at the coordinates of a tile on the CPU, piece by piece.
    fn add_pieces(
        &self,
        reader: &mut TileReader,
        tile: &Tile,
        integers: &mut [i64],
    ) -> Result<PieceDigests, PassError> {
        let isa = self.machine.isa;
        let piece = |coordinates: Range<usize>| {
            let start = tile.coordinates.start;
            let integers = &mut integers[coordinates.start - start..coordinates.end - start];
            let piece = Tile { coordinates, ..tile.clone() };
            if piece != *tile {
                reader.read_base(&piece)?;
            }
            for_element!(tile.working, E => self.sum.add::<E>(isa, reader, &piece, integers))
        };
        pieces(&tile.coordinates).map(piece).collect()
    }
}
