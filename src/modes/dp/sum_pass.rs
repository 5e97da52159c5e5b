//! The pass that adds up clipped clients and the sums of edges.
//!
//! The pass compares the digest of each client's values with the digest of the pass that measured them. Digests decide,
//! not times. A client whose values changed must count as zero, and the pass must run again.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::modes::dp::COLUMNS;
use crate::modes::dp::clips::{RowDigest, ValuesDigest};
use crate::modes::dp::noised_sum::ClippedSum;
use crate::updates::set::UpdateSet;
use std::ops::Range;

/// Receives the integers of tiles, in any order. The pass writes no tensors outside the clipped vector.
pub type WriteIntegers<'w> = dyn Fn(&Tile, &[i64]) -> Result<(), PassError> + Sync + 'w;

/// The digests of the clients of a sum; `None` for a client that cannot be read.
pub type Digests = Vec<Option<ValuesDigest>>;

/// Adds up the clients and the edges of a sum at some coordinates. Returns the digest of each client's values.
///
/// # Errors
///
/// When the base or a sum of an edge cannot be read, integers cannot be written, or a signal asked to stop.
pub fn run(
    machine: &Machine,
    set: &UpdateSet,
    coordinates: &[Range<usize>],
    sum: &ClippedSum,
    write: &WriteIntegers,
) -> Result<Digests, PassError> {
    machine.progress.start("adding up", set.data_bytes());
    let plan = TilePlan::at_multiples(set, 1, coordinates, COLUMNS);
    machine.run(&SumPass { machine, set, plan, sum, write })
}

struct SumPass<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
    sum: &'a ClippedSum<'a>,
    write: &'a WriteIntegers<'a>,
}

impl TilePass for SumPass<'_> {
    type Worker<'p>
        = (TileReader<'p>, Vec<i64>)
    where
        Self: 'p;
    type Part = Vec<Option<RowDigest>>;
    type Sum = Digests;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> (TileReader<'_>, Vec<i64>) {
        (TileReader::new(self.machine.isa, self.set, &self.plan), Vec::new())
    }

    fn tile(
        &self,
        (reader, integers): &mut (TileReader, Vec<i64>),
        tile: &Tile,
    ) -> Result<Vec<Option<RowDigest>>, PassError> {
        let (isa, layout) = (self.machine.isa, &self.set.layout);
        integers.clear();
        integers.resize(tile.coordinates.len(), 0);
        reader.read_base(tile)?;
        let digests =
            for_element!(tile.working, E => self.sum.add::<E>(isa, layout, reader, tile, integers))?;
        (self.write)(tile, integers)?;
        self.machine.progress.advance((digests.len() * integers.len() * tile.dtype.bytes()) as u64);
        Ok(digests)
    }

    fn start(&self) -> Digests {
        self.sum.clients().iter().map(|_| Some(ValuesDigest::default())).collect()
    }

    fn add(&self, all: &mut Digests, _: &Tile, parts: Vec<Option<RowDigest>>) {
        for (all, part) in all.iter_mut().zip(parts) {
            match (all.as_mut(), part) {
                (Some(all), Some(part)) => all.add(&part),
                _ => *all = None,
            }
        }
    }

    fn clock(&self, (reader, _): &(TileReader, Vec<i64>)) -> Clock {
        reader.clock
    }
}
