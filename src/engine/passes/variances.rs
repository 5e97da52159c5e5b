//! Finds running variances and counters that an update sends as negative.

use crate::engine::passes::plan::Tile;
use crate::kernels::element::Element;
use crate::model::class::{TensorClass, is_variance_or_counter};
use crate::model::dtype::Dtype;
use crate::model::layout::Piece;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::UpdateSet;

/// The columns of a client's row of a tile at which a variance or counter is below zero, with its value: its weight, or
/// base plus delta. `base` is the base's values under a delta, and empty under weights. None of encoded updates and of
/// deltas without a base: a codec's error may take a variance below zero, and so may a delta's rounding to a shorter
/// float.
pub fn negative<'a, E: Element>(
    set: &'a UpdateSet,
    tile: &Tile,
    client: usize,
    row: &'a [E],
    base: &'a [f64],
) -> impl Iterator<Item = (usize, f64)> {
    let sender = &set.clients[client];
    let is_weights = sender.metadata.kind == UpdateKind::Weights;
    let is_known = sender.model.decoder.is_none() && (is_weights || !base.is_empty());
    let rounding = if is_weights { 0.0 } else { rounding(set, tile, client) };
    let columns = is_known.then(|| variances_and_counters(set, tile)).into_iter().flatten();
    let value = move |column: usize| {
        let (sent, base) = (row[column].widen(), base.get(column).copied().unwrap_or(0.0));
        let is_negative = base >= 0.0 && base + sent < -rounding * sent.abs();
        is_negative.then_some((column, base + sent))
    };
    columns.filter_map(value)
}

/// The relative error of a client's values of a tile: zero unless a shorter float than the layout's holds them.
fn rounding(set: &UpdateSet, tile: &Tile, client: usize) -> f64 {
    let placement = &set.clients[client].placement;
    let of_piece = |piece: Piece| match placement[piece.tensor].dtype {
        sent if sent.holds_all_of(tile.dtype) => 0.0,
        Dtype::BF16 => 2f64.powi(-8),
        Dtype::F16 => 2f64.powi(-10),
        Dtype::F32 => 2f64.powi(-23),
        _ => 0.0,
    };
    set.layout.pieces(tile.coordinates.clone()).map(of_piece).fold(0.0, f64::max)
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
