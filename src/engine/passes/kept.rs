//! Checks the values that a state keeps.

use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::Tile;
use crate::kernels::convert::all_within;
use crate::kernels::element::Merged;
use crate::kernels::lanes::Isa;
use crate::model::state::StateTensor;
use crate::updates::set::UpdateSet;
use std::path::Path;

/// Refuses values of a slot in a tile that no run leaves in the state at `path`.
///
/// # Errors
///
/// The first such value.
pub fn check_kept<K: Merged>(
    isa: Isa,
    (set, tile): (&UpdateSet, &Tile),
    slot: StateTensor,
    path: &Path,
    values: &[K],
) -> Result<(), PassError> {
    let (limits, expected) = match slot {
        StateTensor::SecondMoment => (0.0..=f64::MAX, "a finite number, at least 0"),
        _ => (f64::MIN..=f64::MAX, "a finite number"),
    };
    if all_within(isa, values, &limits) {
        return Ok(());
    }
    let column = values.iter().position(|x| !limits.contains(&x.widen())).unwrap_or(0);
    let (tensor, index) = set.layout.locate(tile.coordinates.start + column);
    let (path, tensor) = (path.to_owned(), format!("{}{}", slot.prefix(), tensor.name));
    Err(PassError::BadState { path, tensor, index, value: values[column].widen(), expected })
}
