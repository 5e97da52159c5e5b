//! A pass: work on every tile, whose results are added in the order of tiles.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::{Tile, TilePlan};

/// Work on every tile of a plan. Tiles run on several threads; their parts are added in the order of tiles.
pub trait TilePass: Sync {
    /// What one thread needs: buffers, a place of the GPU's ring.
    type Worker<'p>
    where
        Self: 'p;
    /// The result of one tile.
    type Part: Send;
    /// The sum of the parts.
    type Sum: Send;

    /// The tiles.
    fn plan(&self) -> &TilePlan;

    /// Makes what one thread needs.
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

    /// Where a thread's time went.
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
