//! Compares updates with the base in a sample of coordinates, to tell deltas from weights.
//!
//! The sample is the same for all updates, and depends on the layout alone.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::kernels::element::Element;
use crate::model::class::TensorClass;
use crate::updates::likely_kind::Distances;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::{Client, UpdateSet};
use std::iter;
use std::ops::Range;

/// The number of ranges of a sample, and the coordinates of each.
const RANGES: usize = 8;
const COLUMNS: usize = 2048;

/// The updates that do not state their kind and look like deltas, by index in the set. None without a base.
///
/// # Errors
///
/// When an update or the base cannot be read.
pub fn likely_deltas(machine: &Machine, set: &UpdateSet) -> Result<Vec<usize>, PassError> {
    looking(machine, set, |client| !client.metadata.states_kind, Distances::is_delta)
}

/// The updates that are taken for deltas and look like weights, by index in the set. None without a base.
///
/// # Errors
///
/// When an update or the base cannot be read.
pub fn likely_weights(machine: &Machine, set: &UpdateSet) -> Result<Vec<usize>, PassError> {
    looking(machine, set, |client| client.metadata.kind == UpdateKind::Delta, Distances::is_weights)
}

/// The updates among those asked about whose values look like this, by index in the set. None without a base.
fn looking(
    machine: &Machine,
    set: &UpdateSet,
    is_asked: impl Fn(&Client) -> bool,
    looks: impl Fn(Distances) -> bool,
) -> Result<Vec<usize>, PassError> {
    let asked: Vec<usize> = (0..set.clients.len()).filter(|i| is_asked(&set.clients[*i])).collect();
    if set.base.is_none() || asked.is_empty() {
        return Ok(Vec::new());
    }
    let distances = distances(machine, &set.among(&asked)).map_err(|why| match why {
        PassError::Read { path, input: Some(input), source } => {
            PassError::Read { path, input: Some(asked[input]), source }
        }
        why => why,
    })?;
    Ok(asked.into_iter().zip(distances).filter_map(|(i, found)| looks(found).then_some(i)).collect())
}

/// The distances of each update of a set in a sample of its parameters. Statistics say nothing: training may shrink a
/// variance to almost zero.
///
/// # Errors
///
/// When an update or the base cannot be read.
fn distances(machine: &Machine, set: &UpdateSet) -> Result<Vec<Distances>, PassError> {
    let plan = TilePlan::of_ranges(set, set.clients.len(), &ranges(set.layout.parameters()));
    machine.run(&SamplePass { machine, set, plan })
}

/// Ranges that are evenly spread over the coordinates: all of them, if there are few.
pub fn ranges(coordinates: usize) -> Vec<Range<usize>> {
    if coordinates <= RANGES * COLUMNS {
        return iter::once(0..coordinates).collect();
    }
    let last = coordinates - COLUMNS;
    let start = |range: usize| (last as u128 * range as u128 / (RANGES as u128 - 1)) as usize;
    (0..RANGES).map(|range| start(range)..start(range) + COLUMNS).collect()
}

/// The pass that adds the distances of each update.
struct SamplePass<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
}

impl SamplePass<'_> {
    fn measure<E: Element>(&self, reader: &mut TileReader, tile: &Tile) -> Result<Vec<Distances>, PassError> {
        let (isa, clients) = (self.machine.isa, self.set.clients.len());
        if tile.class != TensorClass::Parameter {
            return Ok(vec![Distances::default(); clients]);
        }
        reader.read_base(tile)?;
        reader.read::<E>(tile, &(0..clients).collect::<Vec<usize>>())?;
        let rows = reader.rows::<E>(tile, clients);
        let of_client = |row: usize| {
            let mut sum = Distances::default();
            for piece in self.set.layout.pieces(tile.coordinates.clone()) {
                // A tensor that the update lacks says nothing.
                if !self.set.clients[row].placement[piece.tensor].is_absent() {
                    let start = self.set.layout.coordinates(piece.tensor).start + piece.start;
                    let place = start - tile.coordinates.start;
                    let columns = place..place + piece.len;
                    sum.add(Distances::of(isa, &rows.row(row)[columns.clone()], &reader.base()[columns]));
                }
            }
            sum
        };
        Ok((0..clients).map(of_client).collect())
    }
}

impl TilePass for SamplePass<'_> {
    type Worker<'p>
        = TileReader<'p>
    where
        Self: 'p;
    type Part = Vec<Distances>;
    type Sum = Vec<Distances>;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> TileReader<'_> {
        TileReader::new(self.machine.isa, self.set, &self.plan).without_screen()
    }

    fn tile(&self, reader: &mut TileReader, tile: &Tile) -> Result<Vec<Distances>, PassError> {
        for_element!(tile.working, E => self.measure::<E>(reader, tile))
    }

    fn start(&self) -> Vec<Distances> {
        vec![Distances::default(); self.set.clients.len()]
    }

    fn add(&self, sum: &mut Vec<Distances>, _: &Tile, part: Vec<Distances>) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| sum.add(part));
    }

    fn clock(&self, reader: &TileReader) -> Clock {
        reader.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_covers_both_ends() {
        assert_eq!((ranges(7).len(), ranges(7)[0].clone()), (1, 0..7));
        let many = ranges(1_000_003);
        assert_eq!((many.len(), many[0].start, many[RANGES - 1].end), (RANGES, 0, 1_000_003));
        assert!(many.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
}
