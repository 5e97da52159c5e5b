//! Order statistics of columns as steps: sorted in the registers of one invocation, or found by bisection of keys where
//! rows are many.

use super::{Place, Program, Source, column_groups, shape};
use crate::gpu::device::Gpu;
use crate::gpu::job::{GpuError, MOST_SORTED_ROWS, TileShape};
use crate::gpu::variants::{self, COORDINATE_MEDIAN, GROUP, Lanes, NETWORK_GROUP, OrderStatistic};
use crate::kernels::network::MAX_SHADER_ROWS;

impl Program {
    /// The two middle values of every column.
    pub(super) fn median(&mut self, gpu: &Gpu, source: Source, middle: Place) -> Result<(), GpuError> {
        self.order_statistic(gpu, &COORDINATE_MEDIAN, source, middle, 0)
    }

    /// An order statistic of every column: sorted in registers, or found by bisection where they are many.
    pub(super) fn order_statistic(
        &mut self,
        gpu: &Gpu,
        statistic: &OrderStatistic,
        source: Source,
        out: Place,
        parameter: usize,
    ) -> Result<(), GpuError> {
        let places = vec![source.place, Place::Constant(source.chosen), out];
        let shape = move |tile: &TileShape| shape(&source, tile, parameter);
        if source.rows <= MAX_SHADER_ROWS {
            let variant = variants::sorted(statistic, source.stored, source.rows);
            return self
                .step(gpu, &variant, places, shape, |tile| column_groups(tile.columns, NETWORK_GROUP));
        }
        let Some(lanes) = Lanes::of(source.rows, gpu.subgroup) else {
            return Err(GpuError::TooMany {
                adapter: gpu.adapter().name.clone(),
                what: "rows to put in order",
                found: source.rows,
                most: MOST_SORTED_ROWS,
            });
        };
        let variant = variants::bisected(statistic, source.stored, lanes);
        let columns = GROUP / lanes.lanes;
        self.step(gpu, &variant, places, shape, move |tile| column_groups(tile.columns, columns))
    }
}
