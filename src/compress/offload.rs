//! A GPU that computes part of the work of encoders and decoders.

use crate::codecs::{Codec, Device};
use crate::gpu::Gpu;
use crate::gpu::job::{GpuError, Options};
use crate::kernels::block_quantize::{BlockRun, Draw};
use std::sync::{Arc, Mutex, PoisonError};

/// An open GPU, shared by the encoders or decoders of all threads. Keeps its first failure.
#[derive(Debug)]
pub struct Offload {
    gpu: Gpu,
    trouble: Mutex<Option<GpuError>>,
}

impl Offload {
    /// Opens the GPU that the options choose.
    ///
    /// # Errors
    ///
    /// When no GPU fits the options, or it cannot be opened.
    pub fn open(options: &Options) -> Result<Arc<Self>, GpuError> {
        Ok(Arc::new(Self { gpu: Gpu::open(options)?, trouble: Mutex::default() }))
    }

    /// The codec with this GPU; the codec itself if none of its kernels has a shader.
    pub fn to(self: &Arc<Self>, codec: &Arc<dyn Codec>) -> Arc<dyn Codec> {
        let device: Arc<dyn Device> = Arc::<Self>::clone(self);
        codec.on_device(device).unwrap_or_else(|| Arc::clone(codec))
    }

    /// Checks that the GPU did all its work.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn check(&self) -> Result<(), GpuError> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        trouble.map_or(Ok(()), Err)
    }

    /// The result of the GPU; `None` after a failure, of which the first is kept.
    fn found<T>(&self, found: Result<T, GpuError>) -> Option<T> {
        let keep = |why| {
            self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        };
        found.map_err(keep).ok()
    }
}

impl Device for Offload {
    fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Option<Vec<u64>> {
        self.found(self.gpu.histogram(values, digit))
    }

    fn take(&self, values: &[f32], key: u32, ties: u64) -> Option<Vec<u32>> {
        self.found(self.gpu.take(values, key, ties))
    }

    fn quantize(
        &self,
        values: &[f32],
        run: BlockRun,
        grids: &[[f32; 2]],
        top: u8,
        draw: Draw,
    ) -> Option<Vec<u8>> {
        self.found(self.gpu.quantize(values, run, grids, top, draw))
    }

    fn quantize_symmetric(
        &self,
        values: &[f32],
        run: BlockRun,
        inverses: &[f32],
        top: i8,
        draw: Draw,
    ) -> Option<Vec<i8>> {
        self.found(self.gpu.quantize_symmetric(values, run, inverses, top, draw))
    }

    fn rotate_and_bucketize(
        &self,
        values: &[f32],
        flips: [&[u32]; 2],
        factors: &[f32],
        thresholds: &[f32],
    ) -> Option<(Vec<u8>, Vec<f32>)> {
        self.found(self.gpu.rotate_and_bucketize(values, &flips, factors, thresholds))
    }

    fn dequantize(&self, codes: &[u8], run: BlockRun, grids: &[[f32; 2]]) -> Option<Vec<f32>> {
        self.found(self.gpu.dequantize(codes, run, grids))
    }

    fn dequantize_symmetric(&self, codes: &[i8], run: BlockRun, steps: &[f32]) -> Option<Vec<f32>> {
        self.found(self.gpu.dequantize_symmetric(codes, run, steps))
    }

    fn rotate_back(
        &self,
        codes: &[u8],
        levels: &[f32],
        flips: [&[u32]; 2],
        scales: &[f32],
    ) -> Option<Vec<f32>> {
        self.found(self.gpu.rotate_back(codes, levels, flips, scales))
    }
}
