//! Noise on integers as a step, and the keys of its streams.

use super::{Place, Program, integers_of};
use crate::gpu::integers::{INTEGER_WORDS, NOISE_HEAD, NoiseJob};
use crate::gpu::job::{GpuError, TileShape};
use crate::gpu::shape::{Shape, column_groups, words};
use crate::gpu::variants::{self, GROUP};
use crate::gpu::vulkan::device::VulkanDevice;
use crate::gpu::vulkan::secret::SecretWords;
use crate::kernels::discrete_gaussian::THRESHOLDS;
use crate::model::dtype::Working;
use zeroize::Zeroize;

/// Words of a stream: its key, its numbers, its sign.
const STREAM_WORDS: usize = 12;

/// A [`NoiseJob`], compiled.
pub(in crate::gpu) struct NoiseProgram {
    pub(in crate::gpu::vulkan) program: Program,
    pub(in crate::gpu::vulkan) keys: SecretWords,
}

/// The integers of a tile, without those in front.
fn integers(tile: &TileShape) -> usize {
    (tile.columns / INTEGER_WORDS).saturating_sub(NOISE_HEAD)
}

impl NoiseProgram {
    /// Compiles a job, and sends its keys to the device.
    pub(in crate::gpu::vulkan) fn new(gpu: &VulkanDevice, job: &NoiseJob) -> Result<Self, GpuError> {
        let columns = INTEGER_WORDS * (NOISE_HEAD + job.columns);
        let mut program = Program::new(TileShape { rows: 1, stored: Working::F32, references: 0, columns });
        let thresholds = program.constant(gpu, "thresholds", bytemuck::cast_slice(&THRESHOLDS))?;
        let mut streams: Vec<u32> = Vec::with_capacity(job.streams.len() * STREAM_WORDS);
        for (stream, is_negative) in job.streams {
            streams.extend(stream.key.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
            streams.extend([stream.domain, stream.segment, u32::from(*is_negative), 0]);
        }
        let keys = SecretWords::new(gpu, "streams", &streams);
        streams.as_mut_slice().zeroize();
        let keys = keys?;
        program.constants.push(keys.memory().clone());
        let streams = Place::Constant(program.constants.len() - 1);
        let noised = program.output(|tile| INTEGER_WORDS * integers(tile));
        let count = job.streams.len();
        program.step(
            gpu,
            &variants::noise(job.level),
            vec![Place::Rows, Place::Constant(thresholds), streams, noised],
            move |tile| Shape { rows: words(count), columns: words(integers(tile)), stride: 0, parameter: 0 },
            |tile| column_groups(integers(tile), GROUP),
        )?;
        Ok(Self { program, keys })
    }

    /// The noised integers of a run.
    pub(in crate::gpu::vulkan) fn read(outputs: &[&[u32]]) -> Vec<i64> {
        integers_of(outputs[0])
    }
}
