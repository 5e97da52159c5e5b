//! Measures how far the largest values of two deltas lie in the same places.
//!
//! The support of a client is where its delta has the k largest magnitudes, in f32: k is a share of all float values. A
//! value as large as the k-th counts too, and a zero never does; so the support of an update of fewer values than k is all
//! that it sent. The overlap of two clients is Jaccard's index: the coordinates in both supports by those in either.
//!
//! Three reads find each client's k-th magnitude exactly ([`Search`]); the fourth counts the common coordinates of all
//! pairs. Memory is a histogram for each client and a number for each pair, per thread.

use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::survey::{Quantity, Survey, read_all};
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::select_largest::{Search, key};
use crate::model::dtype::Kind;
use crate::updates::set::UpdateSet;

/// Reads of each update.
pub const READS: u64 = 4;

/// The mean overlap of two clients' supports, from 0 to 1. `None` if no two clients have a value that is not zero. All
/// updates must be finite; `share` is above 0 and at most 1.
///
/// # Errors
///
/// When an update cannot be read.
pub fn mean_overlap(machine: &Machine, set: &UpdateSet, share: f64) -> Result<Option<f64>, PassError> {
    let tensors = set.layout.tensors().iter();
    let floats: usize = tensors.filter(|spec| spec.dtype.kind() == Kind::Float).map(|spec| spec.len).sum();
    if floats == 0 || set.clients.len() < 2 {
        return Ok(None);
    }
    let largest = ((share * floats as f64).ceil() as u64).clamp(1, floats as u64);
    let mut searches = vec![Search::new(largest); set.clients.len()];
    while searches[0].next_digit().is_some() {
        let counts = machine.run(&Survey::new(machine, set, Digits { searches: &searches }))?;
        for (search, counts) in searches.iter_mut().zip(&counts) {
            search.narrow(counts);
        }
    }
    let least = searches.iter().filter_map(Search::threshold).map(|threshold| threshold.key.max(1)).collect();
    let common = machine.run(&Survey::new(machine, set, Common { least }))?;
    Ok(mean_of_pairs(&common, set.clients.len()))
}

/// The place of a pair of clients, `a` not above `b`, in a list of all.
fn pair(a: usize, b: usize) -> usize {
    b * (b + 1) / 2 + a
}

/// The mean of Jaccard's index over all pairs of which one has a support. `common` has the sizes of all intersections; a
/// client's with itself is that of its support.
fn mean_of_pairs(common: &[u64], clients: usize) -> Option<f64> {
    let (mut sum, mut pairs) = (0.0, 0usize);
    for b in 0..clients {
        for a in 0..b {
            let both = common[pair(a, b)];
            let either = common[pair(a, a)] + common[pair(b, b)] - both;
            if either > 0 {
                sum += both as f64 / either as f64;
                pairs += 1;
            }
        }
    }
    (pairs > 0).then(|| sum / pairs as f64)
}

/// Reads the deltas of a tile into f32, and gives each to `take`. Integers have none.
fn each_delta<E: Element>(
    reader: &mut TileReader,
    tile: &Tile,
    clients: usize,
    mut take: impl FnMut(usize, &[f32]),
) -> Result<(), PassError> {
    if tile.dtype.kind() != Kind::Float {
        return Ok(());
    }
    read_all::<E>(reader, tile, clients)?;
    reader.subtract_base::<E>(tile, &(0..clients).collect::<Vec<usize>>());
    let rows = reader.rows::<E>(tile, clients);
    let mut delta = vec![0.0f32; tile.coordinates.len()];
    for client in 0..clients {
        let (row, base) = (rows.row(client), reader.base_of(client));
        for (column, (delta, value)) in delta.iter_mut().zip(row).enumerate() {
            *delta = (value.widen() - base.get(column).copied().unwrap_or(0.0)) as f32;
        }
        take(client, &delta);
    }
    Ok(())
}

/// Counts the next digit of each client's magnitudes.
struct Digits<'s> {
    searches: &'s [Search],
}

impl Quantity for Digits<'_> {
    type Value = Vec<u64>;

    fn none(&self, clients: usize) -> Vec<Vec<u64>> {
        vec![Vec::new(); clients]
    }

    fn of_rows<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        clients: usize,
    ) -> Result<Vec<Vec<u64>>, PassError> {
        let mut counts = self.none(clients);
        each_delta::<E>(reader, tile, clients, |client, delta| {
            counts[client] = self.searches[client].count(isa, delta);
        })?;
        Ok(counts)
    }

    fn add(&self, all: &mut [Vec<u64>], tile: &[Vec<u64>]) {
        for (all, tile) in all.iter_mut().zip(tile) {
            all.resize(all.len().max(tile.len()), 0);
            all.iter_mut().zip(tile).for_each(|(all, count)| *all += count);
        }
    }
}

/// Counts the coordinates that two supports have in common, for each pair of clients.
struct Common {
    /// The least key of each client's support.
    least: Vec<u32>,
}

impl Quantity for Common {
    type Value = u64;

    fn none(&self, clients: usize) -> Vec<u64> {
        vec![0; clients * (clients + 1) / 2]
    }

    fn of_rows<E: Element>(
        &self,
        _: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        clients: usize,
    ) -> Result<Vec<u64>, PassError> {
        let mut supports: Vec<Vec<u64>> = vec![Vec::new(); clients];
        each_delta::<E>(reader, tile, clients, |client, delta| {
            let least = self.least[client];
            let word = |values: &[f32]| {
                values.iter().rev().fold(0u64, |word, x| word << 1 | u64::from(key(*x) >= least))
            };
            supports[client] = delta.chunks(64).map(word).collect();
        })?;
        let common = |(a, b): (usize, usize)| -> u64 {
            supports[a].iter().zip(&supports[b]).map(|(a, b)| u64::from((a & b).count_ones())).sum()
        };
        Ok((0..clients).flat_map(|b| (0..=b).map(move |a| (a, b))).map(common).collect())
    }

    fn add(&self, all: &mut [u64], tile: &[u64]) {
        all.iter_mut().zip(tile).for_each(|(all, count)| *all += count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_without_any_value_do_not_count() {
        // Supports of 2, 0 and 0 coordinates.
        assert_eq!(mean_of_pairs(&[2, 0, 0, 0, 0, 0], 3), Some(0.0));
        assert_eq!(mean_of_pairs(&[0; 6], 3), None);
        // Supports of 2, 2 and 1, with 1, 1 and 0 in common.
        assert_eq!(mean_of_pairs(&[2, 1, 2, 1, 0, 1], 3), Some((1.0 / 3.0 + 0.5) / 3.0));
    }
}
