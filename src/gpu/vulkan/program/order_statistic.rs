//! Order statistics of columns as steps.
//!
//! One invocation sorts a column in registers, or several bisect its keys.

use super::{Place, Program, Source, shape};
use crate::gpu::job::{GpuError, MOST_SORTED_ROWS, TileShape};
use crate::gpu::shape::column_groups;
use crate::gpu::variants::{self, COORDINATE_MEDIAN, GROUP, Lanes, NETWORK_GROUP, OrderStatistic};
use crate::gpu::vulkan::device::VulkanDevice;
use crate::kernels::network::MAX_SHADER_ROWS;

impl Program {
    /// The two middle values of every column.
    pub(super) fn median(
        &mut self,
        gpu: &VulkanDevice,
        source: Source,
        middle: Place,
    ) -> Result<(), GpuError> {
        self.order_statistic(gpu, &COORDINATE_MEDIAN, source, middle, 0)
    }

    /// An order statistic of every column: sorts up to [`MAX_SHADER_ROWS`] rows, bisects the keys of more.
    pub(super) fn order_statistic(
        &mut self,
        gpu: &VulkanDevice,
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
                adapter: gpu.adapter.name.clone(),
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
