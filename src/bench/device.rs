//! Kernels on a GPU, over rows that pass through a ring of slots or stay on the device.

use super::BenchError;
use super::kernel::{Kernel, LEVEL, STREAM, Value, coefficient, scale, seeds};
use super::sampling::{Sample, timed};
use crate::gpu::integers::{IntegersJob, NoiseJob};
use crate::gpu::job::{CombineJob, DeviceTime, GpuError, PairsJob, Reduction, TileShape};
use crate::gpu::{CombineProgram, Gpu, IntegersProgram, NoiseProgram, PairsProgram, ResidentTile, RingSlot};
use crate::io::synthetic;
use rayon::ThreadPool;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Slots of the ring if the options give no number.
const SLOTS: usize = 4;

/// Bytes that may stay on a device of unknown memory.
const RESIDENT_BYTES: u64 = 1 << 30;

/// Divisor of the first column of each tile, so that a word never spans two tiles.
const COLUMN_STEP: usize = 64;

/// Synthetic rows in memory.
pub(super) struct HostMatrix {
    rows: Vec<Vec<u8>>,
    value_bytes: usize,
    parameters: usize,
}

impl HostMatrix {
    pub(super) fn new<E: Value>(rows: usize, parameters: usize) -> Self {
        let row = |row: usize| {
            let values: Vec<E> = synthetic::values(row as u64).take(parameters).map(E::nearest).collect();
            bytemuck::cast_slice(&values).to_vec()
        };
        Self { rows: (0..rows).map(row).collect(), value_bytes: size_of::<E>(), parameters }
    }

    /// The rows' bits as elements of the field. No finite float has the bits of one beyond the prime.
    fn elements(&self) -> Vec<Vec<u32>> {
        let element = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes);
        self.rows.iter().map(|row| row.as_chunks().0.iter().map(element).collect()).collect()
    }

    fn bytes(&self) -> u64 {
        (self.rows.len() * self.parameters * self.value_bytes) as u64
    }
}

enum Program {
    Combine(CombineProgram),
    Pairs(PairsProgram),
    Integers(IntegersProgram),
    Noise(NoiseProgram),
    /// The seeds of masks. Neither this nor the next takes tiles.
    Masks(Vec<[u8; 32]>),
    Elements(Vec<Vec<u32>>),
}

/// A compiled kernel and its slots.
pub(super) struct DeviceCase<'a> {
    gpu: &'a Gpu,
    matrix: &'a HostMatrix,
    program: Program,
    slots: Vec<Mutex<RingSlot<'a>>>,
    columns: usize,
}

impl<'a> DeviceCase<'a> {
    /// Compiles a kernel for the rows of a matrix.
    pub(super) fn new<E: Value>(
        kernel: Kernel,
        gpu: &'a Gpu,
        matrix: &'a HostMatrix,
        threads: usize,
    ) -> Result<Self, GpuError> {
        let n = matrix.rows.len();
        let columns = columns(kernel, gpu, matrix);
        let shape = TileShape { rows: n, stored: E::DTYPE.working(), references: 0, columns };
        let program = match kernel {
            Kernel::Pairs => Program::Pairs(PairsProgram::new(gpu, &PairsJob::of_rows(shape))?),
            Kernel::Integers => {
                let (scales, less_base) = (vec![scale(); n], vec![false; n]);
                Program::Integers(gpu.compile_integers(&IntegersJob { shape, scales, less_base })?)
            }
            Kernel::Noise => {
                let streams = &[(STREAM, false)];
                Program::Noise(gpu.compile_noise(&NoiseJob {
                    level: LEVEL,
                    streams,
                    columns: n * columns,
                })?)
            }
            Kernel::Masks => Program::Masks(seeds(n)),
            Kernel::Elements => Program::Elements(matrix.elements()),
            _ => Program::Combine(CombineProgram::new(gpu, &combine_job(kernel, shape))?),
        };
        let tiles = matrix.parameters.div_ceil(columns);
        let slots = gpu.options().slots.unwrap_or(SLOTS).min(threads).min(tiles).max(1);
        let slot = || match &program {
            Program::Combine(program) => Some(RingSlot::for_combine(gpu, program)),
            Program::Pairs(program) => Some(RingSlot::for_pairs(gpu, program)),
            Program::Integers(program) => Some(RingSlot::for_integers(gpu, program)),
            Program::Noise(program) => Some(RingSlot::for_noise(gpu, program)),
            Program::Masks(_) | Program::Elements(_) => None,
        };
        let slots = (0..slots).map_while(|_| slot()).map(|slot| slot.map(Mutex::new));
        let slots = slots.collect::<Result<_, _>>()?;
        Ok(Self { gpu, matrix, program, slots, columns })
    }

    /// Whether all rows can stay in the device's memory.
    pub(super) fn fits(&self) -> bool {
        // A merge keeps no rows on a software adapter; a measurement of kernels alone does.
        !self.slots.is_empty() && self.matrix.bytes() <= self.gpu.resident_bytes().max(RESIDENT_BYTES)
    }

    /// Sends all rows through the ring, or whole where the kernel takes no tiles.
    pub(super) fn stream(&self, pool: &ThreadPool) -> Result<Sample, BenchError> {
        let parameters = self.matrix.parameters;
        let flat = |work: &dyn Fn() -> Result<Vec<u32>, GpuError>| {
            let (total, found) = timed(work);
            Ok(found.map(|_| Sample::whole(total))?)
        };
        match &self.program {
            Program::Masks(seeds) => return flat(&|| self.gpu.masks(seeds, 0, parameters)),
            Program::Elements(rows) => {
                let rows: Vec<&[u32]> = rows.iter().map(|row| &row[..]).collect();
                return flat(&|| self.gpu.sum_elements(&rows));
            }
            _ => {}
        }
        let next = AtomicUsize::new(0);
        let work = |context: rayon::BroadcastContext<'_>| match self.slots.get(context.index()) {
            Some(slot) => {
                self.stream_through(&mut slot.lock().unwrap_or_else(PoisonError::into_inner), &next)
            }
            None => Ok(Vec::new()),
        };
        let (total, times) = timed(|| pool.broadcast(work));
        let times: Vec<Vec<DeviceTime>> = times.into_iter().collect::<Result<_, _>>()?;
        let sum = |of: fn(&DeviceTime) -> Option<Duration>| times.iter().flatten().map(of).sum();
        Ok(Sample { total, transfer: sum(|time| time.upload), compute: sum(|time| time.kernels) })
    }

    fn stream_through(&self, slot: &mut RingSlot, next: &AtomicUsize) -> Result<Vec<DeviceTime>, GpuError> {
        let (mut times, mut merged) = (Vec::new(), Vec::new());
        while let Some(tile) = self.tile(next.fetch_add(1, Ordering::Relaxed)) {
            self.fill(slot, tile)?;
            self.run(slot, None, &mut merged)?;
            times.push(slot.time());
        }
        Ok(times)
    }

    /// Sends all rows to the device, where they stay.
    pub(super) fn upload(&self) -> Result<Vec<ResidentTile>, BenchError> {
        let Some(slot) = self.slots.first() else { return Ok(Vec::new()) };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let tiles = (0..).map_while(|number| self.tile(number));
        let inputs = tiles.map(|tile| {
            self.fill(&mut slot, tile)?;
            self.run(&mut slot, None, &mut Vec::new())?;
            slot.keep()
        });
        Ok(inputs.collect::<Result<_, GpuError>>()?)
    }

    /// Runs the kernel over rows on the device. The time is that of kernels if the device has a clock, else the wait.
    pub(super) fn run_resident(&self, inputs: &[ResidentTile]) -> Result<Sample, BenchError> {
        let Some(slot) = self.slots.first() else { return Ok(Sample::default()) };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut total, mut merged) = (Duration::ZERO, Vec::new());
        for input in inputs {
            self.run(&mut slot, Some(input), &mut merged)?;
            let time = slot.time();
            total += time.kernels.unwrap_or(time.waited);
        }
        Ok(Sample::whole(total))
    }

    fn tile(&self, number: usize) -> Option<Range<usize>> {
        let start = number.checked_mul(self.columns)?;
        (start < self.matrix.parameters).then(|| start..(start + self.columns).min(self.matrix.parameters))
    }

    fn fill(&self, slot: &mut RingSlot, tile: Range<usize>) -> Result<(), GpuError> {
        if let Program::Noise(_) = self.program {
            return slot.fill_integers(LEVEL, 0, 0..1, &vec![0; self.matrix.rows.len() * tile.len()]);
        }
        let bytes = tile.start * self.matrix.value_bytes..tile.end * self.matrix.value_bytes;
        slot.fill(tile.len(), |row, out| {
            out.copy_from_slice(&self.matrix.rows[row][bytes.clone()]);
            Ok(())
        })
    }

    fn run(
        &self,
        slot: &mut RingSlot,
        kept: Option<&ResidentTile>,
        merged: &mut Vec<f64>,
    ) -> Result<(), GpuError> {
        match &self.program {
            Program::Combine(program) => slot.combine(program, kept, merged).map(drop),
            Program::Pairs(program) => slot.pairs(program, kept).map(drop),
            Program::Integers(program) => slot.integers(program, kept).map(drop),
            Program::Noise(program) => slot.noise(program, kept).map(drop),
            // They have no slots.
            Program::Masks(_) | Program::Elements(_) => Ok(()),
        }
    }
}

/// Columns of a tile: the most that a slot and every buffer of the kernel hold.
fn columns(kernel: Kernel, gpu: &Gpu, matrix: &HostMatrix) -> usize {
    let n = matrix.rows.len();
    // Noise reads and writes integers.
    let value_bytes = if kernel == Kernel::Noise { size_of::<i64>() } else { matrix.value_bytes };
    let in_slot = gpu.options().slot_bytes / (n * value_bytes);
    // The widest buffer holds all points in f32, or all integers.
    let bound = gpu.binding_bytes() / ((n + 2) * value_bytes.max(size_of::<f32>()));
    let most = if kernel == Kernel::Pairs { PairsProgram::most_columns(gpu, n + 1) } else { usize::MAX };
    let columns = in_slot.min(bound).min(most) / COLUMN_STEP * COLUMN_STEP;
    columns.max(COLUMN_STEP).min(matrix.parameters)
}

fn combine_job(kernel: Kernel, shape: TileShape) -> CombineJob {
    let n = shape.rows;
    // A coefficient for each client, and zero for the base.
    let mixture = |k: usize| (0..n).map(|i| coefficient(k, i, n)).chain([0.0]).collect::<Vec<f64>>();
    CombineJob {
        shape,
        chosen: (0..u32::try_from(n).unwrap_or(u32::MAX)).collect(),
        weights: (0..n).map(|i| (100 + i) as f64).collect(),
        mixing: (kernel == Kernel::MixingMedian).then(|| (0..n).map(mixture).collect()),
        reduction: match kernel {
            Kernel::Median | Kernel::MixingMedian => Reduction::Median,
            Kernel::TrimmedMean => Reduction::TrimmedMean { cut: Kernel::left_out(n) },
            Kernel::MeanNearMedian => Reduction::MeanNearMedian { kept: n - Kernel::left_out(n) },
            // Those behind norms have programs that are no merge.
            Kernel::WeightedSum
            | Kernel::Norms
            | Kernel::Pairs
            | Kernel::Integers
            | Kernel::Noise
            | Kernel::Masks
            | Kernel::Elements => Reduction::WeightedSum,
        },
        norms: (kernel == Kernel::Norms).then(|| vec![false; n]),
        step: None,
    }
}
