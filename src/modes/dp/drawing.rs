//! Draws noise from keys and adds it to integers: on the GPU, and after a failure on the CPU.
//!
//! The budget has paid for the noise, so a GPU that fails ends no run. The CPU draws the noise of some coordinates of
//! every portion too, and draws the whole portion again if one differs. The keys are overwritten in the GPU's memory
//! at the end.

use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::machine::Machine;
use crate::gpu::integers::NoiseJob;
use crate::gpu::job::GpuError;
use crate::gpu::{NoiseProgram, RingSlot};
use crate::kernels::chacha20::Stream;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::lanes::Isa;
use crate::modes::dp::streams::{self, SignedStream};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The distance of coordinates whose noise the CPU checks.
const CHECKED_EVERY: usize = 1 << 12;

/// The streams of a noise, and the GPU that draws them.
pub(super) struct Drawing<'r> {
    isa: Isa,
    level: Level,
    streams: Vec<SignedStream>,
    gpu: Option<DrawingGpu<'r>>,
}

/// A GPU that draws noise.
struct DrawingGpu<'r> {
    ring: &'r GpuRing,
    program: NoiseProgram,
    /// Slots that no thread uses now.
    slots: Mutex<Vec<RingSlot<'r>>>,
    /// The first failure. No portion is drawn on the GPU after it.
    failure: Mutex<Option<GpuError>>,
}

impl<'r> Drawing<'r> {
    /// The noise of streams, in portions of up to `columns` coordinates. Uses the GPU of `ring`, the machine's own, if
    /// there is one.
    pub(super) fn new(
        machine: &Machine,
        ring: Option<&'r GpuRing>,
        level: Level,
        streams: Vec<SignedStream>,
        columns: usize,
    ) -> Self {
        let gpu = ring.and_then(|ring| {
            let opened = DrawingGpu::new(ring, level, &streams, columns);
            opened.map_err(|why| machine.give_up_gpu(why)).ok()
        });
        Self { isa: machine.isa, level, streams, gpu }
    }

    /// Whether the noise is drawn on a GPU.
    pub(super) fn is_on_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Adds the noise of some streams, by number, to the integers of the coordinates from `first` on.
    pub(super) fn add(&self, of: Range<usize>, first: u64, integers: &mut [i64]) {
        let noised = self.gpu.as_ref().and_then(|gpu| {
            let noised = gpu.noised(self, of.clone(), first, integers)?;
            noised.map_err(|why| gpu.note(why)).ok()
        });
        match noised {
            Some(noised) => integers.copy_from_slice(&noised),
            None => self.add_on_cpu(of, first, integers),
        }
    }

    fn add_on_cpu(&self, of: Range<usize>, first: u64, integers: &mut [i64]) {
        streams::add(self.isa, self.level, &self.streams[of], first, integers);
    }

    /// Overwrites the keys in the GPU's memory. A GPU that failed is not used again.
    pub(super) fn finish(self, machine: &Machine) {
        let Some(gpu) = self.gpu else { return };
        let wiped = gpu.ring.gpu().wipe(&gpu.program).err();
        let failure = gpu.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = failure.or(wiped) {
            machine.give_up_gpu(why);
        }
    }

    /// Compares the noise of some coordinates with the CPU's.
    fn check(&self, of: &Range<usize>, first: u64, integers: &[i64], noised: &[i64]) -> Option<WrongNoise> {
        let last = integers.len().saturating_sub(1);
        (0..last).step_by(CHECKED_EVERY).chain([last]).find_map(|column| {
            let coordinate = first + column as u64;
            let mut expected = [integers[column]];
            self.add_on_cpu(of.clone(), coordinate, &mut expected);
            let found = noised.get(column).copied().unwrap_or_default();
            (found != expected[0]).then_some(WrongNoise { coordinate, found, expected: expected[0] })
        })
    }
}

/// An integer whose noise the GPU and the CPU draw differently.
struct WrongNoise {
    coordinate: u64,
    found: i64,
    expected: i64,
}

impl<'r> DrawingGpu<'r> {
    fn new(
        ring: &'r GpuRing,
        level: Level,
        streams: &[SignedStream],
        columns: usize,
    ) -> Result<Self, GpuError> {
        let streams: Vec<(Stream, bool)> = streams.iter().map(|of| (of.stream(), of.is_negative)).collect();
        let program = ring.gpu().compile_noise(&NoiseJob { level, streams: &streams, columns })?;
        Ok(Self { ring, program, slots: Mutex::default(), failure: Mutex::default() })
    }

    /// The integers plus the GPU's noise; `None` after a failure.
    fn noised(
        &self,
        drawing: &Drawing,
        of: Range<usize>,
        first: u64,
        integers: &[i64],
    ) -> Option<Result<Vec<i64>, GpuError>> {
        let has_failed = self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        (!has_failed).then(|| {
            let free = self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut slot = free.map_or_else(|| RingSlot::for_noise(self.ring.gpu(), &self.program), Ok)?;
            slot.fill_integers(drawing.level, first, of.clone(), integers)?;
            let noised = slot.noise(&self.program, None)?;
            self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
            match drawing.check(&of, first, integers, &noised) {
                None => Ok(noised),
                Some(wrong) => Err(GpuError::Wrong {
                    adapter: self.ring.gpu().adapter().name.clone(),
                    what: format!("the noised integer at coordinate {}", wrong.coordinate),
                    found: wrong.found as f64,
                    expected: wrong.expected as f64,
                    bound: 0.0,
                }),
            }
        })
    }

    fn note(&self, why: GpuError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}
