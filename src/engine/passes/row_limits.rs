//! The values of a client's row that the merged model can hold.

use crate::engine::passes::plan::Tile;
use crate::model::dtype::Dtype;
use crate::updates::set::UpdateSet;
use std::ops::RangeInclusive;

/// The range of the values of a client's row of a tile that the merged model can hold: weights, or the base plus a delta.
///
/// The largest integer of 64 bits is rounded up in f64, and the model holds it. From another dtype, or as a sum, the same
/// f64 is one more than the model can hold.
pub fn row_limits(set: &UpdateSet, tile: &Tile, client: usize, is_onto_base: bool) -> RangeInclusive<f64> {
    let limits = tile.dtype.limits();
    if !matches!(tile.dtype, Dtype::I64 | Dtype::U64) {
        return limits;
    }
    let placement = &set.clients[client].placement;
    let mut places = set.layout.pieces(tile.coordinates.clone()).map(|piece| &placement[piece.tensor]);
    let is_as_sent = !is_onto_base && places.all(|place| place.is_absent() || place.dtype == tile.dtype);
    if is_as_sent { limits } else { *limits.start()..=limits.end().next_down() }
}
