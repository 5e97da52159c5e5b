//! The same surface without the `gpu` feature: no device can be opened, so nothing else can be called.

use crate::gpu::job::{
    Adapter, CombineJob, Combined, DeviceTime, Finding, GpuError, Options, PairSums, PairsJob, TileShape,
};
use crate::kernels::block_quantize::Draw;
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::Scale;
use crate::kernels::discrete_gaussian::Level;
use std::time::Duration;

/// No adapters.
pub fn adapters() -> Vec<Adapter> {
    Vec::new()
}

/// Nothing to test.
pub fn self_test(gpu: &Gpu) -> Vec<Finding> {
    match *gpu {}
}

/// A device that cannot be opened.
#[derive(Debug)]
pub enum Gpu {}

/// See the `gpu` feature.
#[derive(Debug)]
pub enum CombineProgram {}

/// See the `gpu` feature.
#[derive(Debug)]
pub enum PairsProgram {}

/// See the `gpu` feature.
#[derive(Debug)]
pub enum ResidentTile {}

/// See the `gpu` feature.
#[derive(Debug)]
pub enum RingSlot<'g> {
    /// Cannot be made.
    Never(&'g Gpu),
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "as with the `gpu` feature")]
impl Gpu {
    pub fn open(_: &Options) -> Result<Self, GpuError> {
        Err(GpuError::NotBuilt)
    }

    pub fn adapter(&self) -> &Adapter {
        match *self {}
    }

    pub fn options(&self) -> &Options {
        match *self {}
    }

    pub fn lose(&self) {
        match *self {}
    }

    pub fn binding_bytes(&self) -> usize {
        match *self {}
    }

    pub fn resident_bytes(&self) -> u64 {
        match *self {}
    }

    pub fn latency(&self) -> Result<Duration, GpuError> {
        match *self {}
    }

    pub fn copy_bytes_per_s(&self) -> Result<f64, GpuError> {
        match *self {}
    }

    pub fn multiply_adds_per_s(&self) -> Result<f64, GpuError> {
        match *self {}
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "as with the `gpu` feature")]
impl CombineProgram {
    pub fn new(gpu: &Gpu, _: &CombineJob) -> Result<Self, GpuError> {
        match *gpu {}
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "as with the `gpu` feature")]
impl PairsProgram {
    pub fn new(gpu: &Gpu, _: &PairsJob) -> Result<Self, GpuError> {
        match *gpu {}
    }

    pub fn most_columns(gpu: &Gpu, _: usize) -> usize {
        match *gpu {}
    }
}

#[expect(missing_docs, reason = "as with the `gpu` feature")]
impl ResidentTile {
    pub fn tile(&self) -> &TileShape {
        match *self {}
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "as with the `gpu` feature")]
impl<'g> RingSlot<'g> {
    pub fn for_combine(gpu: &'g Gpu, _: &CombineProgram) -> Result<Self, GpuError> {
        match *gpu {}
    }

    pub fn for_pairs(gpu: &'g Gpu, _: &PairsProgram) -> Result<Self, GpuError> {
        match *gpu {}
    }

    pub fn fill<E: From<GpuError>>(
        &mut self,
        _: usize,
        _: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self::Never(gpu) = self;
        match **gpu {}
    }

    pub fn keep(&mut self) -> Result<ResidentTile, GpuError> {
        let Self::Never(gpu) = self;
        match **gpu {}
    }

    pub fn combine(
        &mut self,
        program: &CombineProgram,
        _: Option<&ResidentTile>,
        _: &mut Vec<f64>,
    ) -> Result<Combined, GpuError> {
        match *program {}
    }

    pub fn pairs(&mut self, program: &PairsProgram, _: Option<&ResidentTile>) -> Result<PairSums, GpuError> {
        match *program {}
    }

    pub fn time(&self) -> DeviceTime {
        let Self::Never(gpu) = self;
        match **gpu {}
    }
}

/// See the `gpu` feature.
#[derive(Clone, Copy, Debug)]
pub enum Vectors<'g> {
    /// Cannot be made.
    Never(&'g Gpu),
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "as with the `gpu` feature")]
impl<'g> Vectors<'g> {
    pub fn on(gpu: &'g Gpu) -> Self {
        match *gpu {}
    }

    pub fn spoiled(self) -> Self {
        self.never()
    }

    fn never(&self) -> ! {
        let Self::Never(gpu) = self;
        match **gpu {}
    }

    pub fn block_ends(&self, _: &[f32], _: usize) -> Result<Vec<[f32; 2]>, GpuError> {
        self.never()
    }

    pub fn quantize(&self, _: &[f32], _: usize, _: &[[f32; 2]], _: u8, _: Draw) -> Result<Vec<u8>, GpuError> {
        self.never()
    }

    pub fn quantize_symmetric(
        &self,
        _: &[f32],
        _: usize,
        _: &[f32],
        _: i8,
        _: Draw,
    ) -> Result<Vec<i8>, GpuError> {
        self.never()
    }

    pub fn dequantize(&self, _: &[u8], _: usize, _: &[[f32; 2]]) -> Result<Vec<f32>, GpuError> {
        self.never()
    }

    pub fn dequantize_symmetric(&self, _: &[i8], _: usize, _: &[f32]) -> Result<Vec<f32>, GpuError> {
        self.never()
    }

    pub fn rotate(&self, _: &[f32], _: &[&[u32]]) -> Result<Vec<f32>, GpuError> {
        self.never()
    }

    pub fn bucketize(&self, _: &[f32], _: usize, _: &[f32], _: &[f32]) -> Result<Vec<u8>, GpuError> {
        self.never()
    }

    pub fn rotate_and_bucketize(
        &self,
        _: &[f32],
        _: &[&[u32]],
        _: &[f32],
        _: &[f32],
    ) -> Result<(Vec<u8>, Vec<f32>), GpuError> {
        self.never()
    }

    pub fn histogram(&self, _: &[f32], _: [u32; 4]) -> Result<Vec<u64>, GpuError> {
        self.never()
    }

    pub fn take(&self, _: &[f32], _: u32, _: u64) -> Result<Vec<u32>, GpuError> {
        self.never()
    }

    pub fn noise(&self, _: Stream, _: Level, _: u64, _: usize) -> Result<Vec<i64>, GpuError> {
        self.never()
    }

    pub fn integer_sums(&self, _: &[f32], _: usize, _: &[Scale]) -> Result<Vec<i64>, GpuError> {
        self.never()
    }

    pub fn select_largest(&self, _: &[f32], _: usize) -> Result<Vec<u32>, GpuError> {
        self.never()
    }
}
