//! A pass: work on every tile, with results that are added in the order of tiles.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::{Tile, TilePlan};

/// Work on every tile of a plan. Several threads work on tiles. Their parts are added in the order of tiles.
pub trait TilePass: Sync {
    /// The buffers of one thread, and on the GPU a slot of the ring.
    type Worker<'p>
    where
        Self: 'p;
    /// The result of one tile.
    type Part: Send;
    /// The sum of the parts.
    type Sum: Send;

    /// The tiles.
    fn plan(&self) -> &TilePlan;

    /// Makes the worker of one thread.
    fn worker(&self) -> Self::Worker<'_>;

    /// Works on one tile.
    ///
    /// # Errors
    ///
    /// When the tile cannot be read, computed or written.
    fn tile(&self, worker: &mut Self::Worker<'_>, tile: &Tile) -> Result<Self::Part, PassError>;

    /// The sum before the first tile.
    fn start(&self) -> Self::Sum;

    /// Adds the part of the next tile.
    fn add(&self, sum: &mut Self::Sum, tile: &Tile, part: Self::Part);

    /// The time of a worker.
    fn clock(&self, worker: &Self::Worker<'_>) -> Clock;
}

/// Runs `$body` with `$element` as the element type of a [`Working`](crate::model::dtype::Working) float.
macro_rules! for_element {
    ($working:expr, $element:ident => $body:expr) => {
        match $working {
            $crate::model::dtype::Working::BF16 => {
                type $element = half::bf16;
                $body
            }
            $crate::model::dtype::Working::F16 => {
                type $element = half::f16;
                $body
            }
            $crate::model::dtype::Working::F32 => {
                type $element = f32;
                $body
            }
            $crate::model::dtype::Working::F64 => {
                type $element = f64;
                $body
            }
        }
    };
}
pub(crate) use for_element;
