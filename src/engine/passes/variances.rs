//! Finds running variances and counters that an update sends as negative.

use crate::engine::passes::plan::Tile;
use crate::kernels::element::Element;
use crate::model::class::{TensorClass, is_variance_or_counter};
use crate::updates::metadata::UpdateKind;
use crate::updates::set::UpdateSet;

/// The columns of a client's row of a tile at which a variance or counter is below zero, with its value. None of deltas
/// and encoded updates: a codec's error may take a variance below zero, and clients may send its result as a delta.
pub fn negative<'a, E: Element>(
    set: &'a UpdateSet,
    tile: &Tile,
    client: usize,
    row: &'a [E],
) -> impl Iterator<Item = (usize, f64)> {
    let sender = &set.clients[client];
    let is_weights = sender.metadata.kind == UpdateKind::Weights && sender.model.decoder.is_none();
    let columns = is_weights.then(|| variances_and_counters(set, tile)).into_iter().flatten();
    columns.map(|column| (column, row[column].widen())).filter(|(_, value)| *value < 0.0)
}

/// The columns of a tile that are running variances and counters.
pub fn variances_and_counters<'a>(set: &'a UpdateSet, tile: &Tile) -> impl Iterator<Item = usize> + 'a {
    let is_checked = tile.class == TensorClass::Statistic;
    let coordinates = tile.coordinates.clone();
    let pieces = is_checked.then(|| set.layout.pieces(coordinates)).into_iter().flatten();
    let columns = pieces.scan(0, |start, piece| {
        let columns = *start..*start + piece.len;
        *start = columns.end;
        Some(if is_variance_or_counter(&set.layout.tensors()[piece.tensor].name) { columns } else { 0..0 })
    });
    columns.flatten()
}
