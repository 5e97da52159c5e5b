//! The second pass where rows are merged by an order statistic, as they are or mixed.

use crate::engine::intake::admit::Frame;
use crate::engine::passes::blocks::{add_rows, blocks, mix, reduce};
use crate::engine::passes::combine::reducer::Select;
use crate::engine::passes::combine::{CombineError, Pass, Worker};
use crate::engine::passes::plan::Tile;
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::{Element, Merged};
use crate::model::tile::{Rows, TileBuffer};
use crate::rules::OrderStatistic;
use crate::rules::mixing::Mixing;

impl Pass<'_> {
    /// Merges all rows by an order statistic.
    pub(crate) fn select_tile<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        select: &Select,
    ) -> Result<(), CombineError> {
        worker.space.read::<E>(tile, &select.clients)?;
        worker.space.subtract_base::<E>(tile, &select.clients);
        if let Some(mixing) = select.mixing {
            return self.select_mixed::<E>(worker, tile, &select.clients, mixing, select.statistic);
        }
        match select.statistic {
            // A median is one of the values, or half way between two.
            OrderStatistic::Median if tile.dtype == E::DTYPE && self.set.frame == Frame::AsSent => {
                self.select_blocks::<E, E::Median>(worker, tile, &select.clients, |rows, merged| {
                    coordinate_median(self.isa, rows, merged)
                })
            }
            statistic => self.select_blocks::<E, f64>(worker, tile, &select.clients, |rows, merged| {
                reduce(self.isa, statistic, rows, merged)
            }),
        }
    }

    /// Merges rows a block of columns at a time, by a kernel that says whether all values are finite.
    fn select_blocks<E: Element, F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        clients: &[usize],
        kernel: impl Fn(&Rows<E>, &mut [F]) -> bool,
    ) -> Result<(), CombineError> {
        let mut merged = Vec::new();
        for block in blocks::<E>(clients.len(), tile.coordinates.len()) {
            merged.resize(block.len(), F::default());
            let rows = worker.space.rows::<E>(tile, clients.len());
            if !kernel(&rows.at(block.clone()), &mut merged) {
                return Err(CombineError::NonFinite);
            }
            let squares = self.squared_norms(&worker.space, &rows, clients, block.clone(), tile);
            worker.squared_norms.resize(squares.len(), 0.0);
            add_rows(&mut worker.squared_norms, &squares);
            self.finish_block(worker, tile, block, &mut merged)?;
        }
        Ok(())
    }

    /// Mixes rows a block of columns at a time, and merges the mixtures.
    fn select_mixed<E: Element>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        clients: &[usize],
        mixing: &Mixing,
        statistic: OrderStatistic,
    ) -> Result<(), CombineError> {
        let (columns, brings_base) = (tile.coordinates.len(), self.set.frame == Frame::AsSent);
        let most = blocks::<E>(clients.len(), columns).map(|block| block.len()).max().unwrap_or(0);
        let row_bytes = most * size_of::<f64>();
        let mut mixed = match worker.mixed.take() {
            Some(buffer) if buffer.holds(mixing.len(), row_bytes) => buffer,
            _ => TileBuffer::new(mixing.len(), row_bytes),
        };
        let mut merged = Vec::new();
        for block in blocks::<E>(clients.len(), columns) {
            let rows = worker.space.rows::<E>(tile, clients.len()).at(block.clone());
            let base = worker.space.base().get(block.clone()).filter(|_| brings_base).unwrap_or_default();
            mix(self.isa, &rows, clients, mixing, base, &mut mixed);
            merged.resize(block.len(), 0.0);
            let mixtures = mixed.rows::<E::Mixed>(mixing.len(), block.len());
            if !reduce(self.isa, statistic, &mixtures, &mut merged) {
                return Err(CombineError::NonFinite);
            }
            self.finish_block(worker, tile, block, &mut merged)?;
        }
        worker.mixed = Some(mixed);
        Ok(())
    }
}
