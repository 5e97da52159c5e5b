//! The server's step, the last step of a merge: it reads the output of the reduction.

use super::CombineProgram;
use crate::gpu::job::{GpuError, Reduction};
use crate::gpu::shape::{Shape, column_groups};
use crate::gpu::step::StepJob;
use crate::gpu::variants::{self, GROUP};
use crate::gpu::vulkan::device::VulkanDevice;
use crate::gpu::vulkan::program::Place;
use crate::kernels::server_step::{SecondMoment, ServerStep};

/// The numbers of a step in the shader's order: factors of the old and new value of the first moment, the same two of
/// the second moment, the learning rate, tau.
fn numbers(step: &ServerStep) -> [f64; 6] {
    match *step {
        ServerStep::Average { lr } => [0.0, 1.0, 0.0, 0.0, lr, 0.0],
        ServerStep::Momentum { lr, momentum } => [momentum, 1.0, 0.0, 0.0, lr, 0.0],
        ServerStep::Adaptive { lr, beta1, beta2, tau, second } => {
            let [keep, take] = match second {
                SecondMoment::Adam | SecondMoment::Yogi => [beta2, 1.0 - beta2],
                SecondMoment::Adagrad => [1.0, 1.0],
            };
            [beta1, 1.0 - beta1, keep, take, lr, tau]
        }
    }
}

impl CombineProgram {
    /// Adds the server's step behind the reduction. Returns the number of rows that it writes.
    pub(super) fn add_step(&mut self, gpu: &VulkanDevice, job: &StepJob) -> Result<usize, GpuError> {
        let rows = 1 + job.moments();
        debug_assert!(self.program.shape.references >= rows, "the base and the moments are references");
        // Turns the reduction's sums into merged values, as the host would.
        let of_sums = match self.reduction {
            Reduction::WeightedSum => self.scale,
            Reduction::Median => 1.0,
            Reduction::TrimmedMean { cut } => 1.0 / (self.rows - 2 * cut) as f64,
            Reduction::MeanNearMedian { kept } => 1.0 / kept as f64,
        };
        let delta = [of_sums * job.scale, job.less_base];
        let bits: Vec<u32> = delta.iter().chain(&numbers(&job.step)).map(|x| (*x as f32).to_bits()).collect();
        let program = &mut self.program;
        let numbers = program.constant(gpu, "numbers", &bits)?;
        let stepped = program.output(move |tile| rows * tile.columns);
        let variant = variants::server_step(&job.step, self.reduction == Reduction::Median);
        program.step(
            gpu,
            &variant,
            vec![Place::Output(0), Place::Constant(numbers), Place::References, stepped],
            |tile| Shape::flat(tile.columns),
            |tile| column_groups(tile.columns, GROUP),
        )?;
        Ok(rows)
    }
}
