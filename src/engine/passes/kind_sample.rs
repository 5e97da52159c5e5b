//! Compares updates with the base in a sample of coordinates, to tell deltas from weights.
//!
//! The weights of a client that trained from the base are about as long as the base. A delta is far shorter. The sample
//! is the same for all updates, and depends on the layout alone.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::kernels::element::Element;
use crate::kernels::norms::squared_norm;
use crate::model::dtype::Kind;
use crate::updates::set::UpdateSet;
use std::iter;
use std::ops::Range;

/// The number of ranges of a sample, and the coordinates of each.
const RANGES: usize = 8;
const COLUMNS: usize = 2048;

/// An update is far shorter than the base below this part of the base's norm.
pub const FAR_BELOW: f64 = 0.2;

/// The updates that do not state their kind and are far shorter than the base, by index in the set. None without a
/// base.
///
/// # Errors
///
/// When an update or the base cannot be read.
pub fn likely_deltas(machine: &Machine, set: &UpdateSet) -> Result<Vec<usize>, PassError> {
    let is_silent = |i: &usize| !set.clients[*i].metadata.states_kind;
    let silent: Vec<usize> = (0..set.clients.len()).filter(is_silent).collect();
    if set.base.is_none() || silent.is_empty() {
        return Ok(Vec::new());
    }
    let likely = far_below_base(machine, &set.among(&silent)).map_err(|why| match why {
        PassError::Read { path, input: Some(input), source } => {
            PassError::Read { path, input: Some(silent[input]), source }
        }
        why => why,
    })?;
    Ok(silent.into_iter().zip(likely).filter_map(|(client, likely)| likely.then_some(client)).collect())
}

/// Whether each update of a set is far shorter than the base in a sample of their floats. None is if the base is zero.
///
/// # Errors
///
/// When an update or the base cannot be read.
fn far_below_base(machine: &Machine, set: &UpdateSet) -> Result<Vec<bool>, PassError> {
    let plan = TilePlan::of_ranges(set, set.clients.len(), &ranges(set.layout.parameters()));
    let mut squares = machine.run(&SamplePass { machine, set, plan })?;
    let base = squares.pop().unwrap_or(0.0);
    Ok(squares.into_iter().map(|square| is_far_below(square, base)).collect())
}

/// Whether one vector is far shorter than the base, by the squares of both norms.
pub fn is_far_below(square: f64, base: f64) -> bool {
    base.is_finite() && square < FAR_BELOW * FAR_BELOW * base
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

/// The pass that adds squares: those of each update, then those of the base.
struct SamplePass<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
}

impl SamplePass<'_> {
    fn squares<E: Element>(&self, reader: &mut TileReader, tile: &Tile) -> Result<Vec<f64>, PassError> {
        let (isa, clients) = (self.machine.isa, self.set.clients.len());
        if tile.dtype.kind() != Kind::Float {
            return Ok(vec![0.0; clients + 1]);
        }
        reader.read_base(tile)?;
        reader.read::<E>(tile, &(0..clients).collect::<Vec<usize>>())?;
        let rows = reader.rows::<E>(tile, clients);
        let of_clients = (0..clients).map(|row| squared_norm(isa, rows.row(row), &[]));
        Ok(of_clients.chain([squared_norm(isa, reader.base(), &[])]).collect())
    }
}

impl TilePass for SamplePass<'_> {
    type Worker<'p>
        = TileReader<'p>
    where
        Self: 'p;
    type Part = Vec<f64>;
    type Sum = Vec<f64>;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> TileReader<'_> {
        TileReader::new(self.machine.isa, self.set, &self.plan).without_screen()
    }

    fn tile(&self, reader: &mut TileReader, tile: &Tile) -> Result<Vec<f64>, PassError> {
        for_element!(tile.working, E => self.squares::<E>(reader, tile))
    }

    fn start(&self) -> Vec<f64> {
        vec![0.0; self.set.clients.len() + 1]
    }

    fn add(&self, sum: &mut Vec<f64>, _: &Tile, part: Vec<f64>) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
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
