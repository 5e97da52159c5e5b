//! The most that the machine can do, as a limit for every row.

use super::BenchError;
use super::sampling::timed;
use crate::gpu::Gpu;
use crate::io::source::{OpenFiles, SourceFile};
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::finite::all_finite;
use crate::kernels::lanes::Isa;
use crate::kernels::peak::multiply_adds;
use crate::model::tile::TileBuffer;
use rayon::ThreadPool;
use serde::Serialize;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that the read floor reads at a time into a buffer on a cache line: the fastest power of two from 32 KiB to 1
/// MiB.
const FLOOR_CHUNK_BYTES: usize = 1 << 20;

/// Bytes that each thread copies: more than caches hold.
const COPY_BYTES: usize = 64 << 20;

/// Repeats of a measurement, of which the best counts.
const ATTEMPTS: usize = 5;

/// The limits of the host with all threads.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct HostLimits {
    /// Bytes per second through memory, by reading or by copying, whichever is faster. A copied byte counts twice.
    pub memory_bytes_per_s: f64,
    /// Multiply-adds of f32 per second.
    pub multiply_adds_per_s: f64,
}

/// The limits of a device.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct DeviceLimits {
    /// Bytes per second through its memory while it copies. A copied byte counts twice.
    pub memory_bytes_per_s: f64,
    /// Multiply-adds of f32 per second.
    pub multiply_adds_per_s: f64,
    /// Seconds of an almost empty run.
    pub latency_s: f64,
}

impl HostLimits {
    /// Measures the limits.
    pub fn measure(isa: Isa, pool: &ThreadPool) -> Self {
        Self {
            memory_bytes_per_s: memory_bytes_per_s(isa, pool),
            multiply_adds_per_s: multiply_adds_per_s(isa, pool),
        }
    }
}

impl DeviceLimits {
    /// Measures the limits.
    ///
    /// # Errors
    ///
    /// When the device fails.
    pub fn measure(gpu: &Gpu) -> Result<Self, BenchError> {
        Ok(Self {
            memory_bytes_per_s: gpu.copy_bytes_per_s()?,
            multiply_adds_per_s: gpu.multiply_adds_per_s()?,
            latency_s: gpu.latency()?.as_secs_f64(),
        })
    }
}

/// Multiply-adds per second of all threads together.
fn multiply_adds_per_s(isa: Isa, pool: &ThreadPool) -> f64 {
    let peak = || {
        let rates = pool.broadcast(|_| {
            let (time, (count, sum)) = timed(|| multiply_adds(isa, 1_000_000));
            black_box(sum);
            count as f64 / time.as_secs_f64()
        });
        rates.iter().sum::<f64>()
    };
    (0..ATTEMPTS).map(|_| peak()).fold(0.0, f64::max)
}

fn memory_bytes_per_s(isa: Isa, pool: &ThreadPool) -> f64 {
    let buffers: Vec<Mutex<[TileBuffer; 2]>> = (0..pool.current_num_threads())
        .map(|_| Mutex::new([TileBuffer::new(1, COPY_BYTES), TileBuffer::new(1, COPY_BYTES)]))
        .collect();
    let rate = |bytes: usize, work: &(dyn Fn(&mut [TileBuffer; 2]) + Sync)| {
        let run = || {
            pool.broadcast(|context| {
                work(&mut buffers[context.index()].lock().unwrap_or_else(PoisonError::into_inner));
            });
        };
        run();
        let best = (0..ATTEMPTS).map(|_| timed(run).0).min().unwrap_or(Duration::MAX);
        (bytes * buffers.len()) as f64 / best.as_secs_f64()
    };
    let copied = rate(2 * COPY_BYTES, &|[from, to]| {
        to.row_mut(0).copy_from_slice(from.row_mut(0));
        black_box(to);
    });
    let read = rate(COPY_BYTES, &|[from, _]| {
        black_box(all_finite::<f32>(isa, bytemuck::cast_slice(from.row_mut(0))));
    });
    copied.max(read)
}

/// The files of the read floor.
pub struct ReadFloor {
    sources: Vec<SourceFile>,
}

impl ReadFloor {
    /// Opens the updates.
    ///
    /// # Errors
    ///
    /// When they cannot be opened.
    pub fn of(updates: &SyntheticUpdates) -> Result<Self, BenchError> {
        let files = OpenFiles::raise_limit();
        let open = |path| SourceFile::open(path, &files);
        let sources: std::io::Result<_> = updates.files().iter().map(|path| open(path)).collect();
        Ok(Self { sources: sources.map_err(BenchError::NotRead)? })
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(SourceFile::bytes).sum()
    }

    /// Bytes per second that all threads read, each byte once, from a warm page cache; the best of a few runs.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn bytes_per_s(&self, pool: &ThreadPool) -> Result<f64, BenchError> {
        let mut best = self.read(pool)?;
        for _ in 0..ATTEMPTS {
            best = best.min(self.read(pool)?);
        }
        Ok(self.bytes() as f64 / best.as_secs_f64())
    }

    fn read(&self, pool: &ThreadPool) -> Result<Duration, BenchError> {
        let next = AtomicUsize::new(0);
        let (time, read) = timed(|| pool.broadcast(|_| self.read_chunks(&next)));
        read.into_iter().collect::<std::io::Result<()>>().map_err(BenchError::NotRead)?;
        Ok(time)
    }

    fn read_chunks(&self, next: &AtomicUsize) -> std::io::Result<()> {
        let largest = self.sources.iter().map(SourceFile::bytes).max().unwrap_or(0) as usize;
        let chunks = largest.div_ceil(FLOOR_CHUNK_BYTES).max(1);
        let mut buffer = TileBuffer::new(1, FLOOR_CHUNK_BYTES);
        let buffer = buffer.row_mut(0);
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            let (file, chunk) = (piece / chunks, piece % chunks);
            let Some(source) = self.sources.get(file) else { return Ok(()) };
            let offset = (chunk * FLOOR_CHUNK_BYTES) as u64;
            let len = (source.bytes().saturating_sub(offset) as usize).min(FLOOR_CHUNK_BYTES);
            source.read_exact_at(&mut buffer[..len], offset)?;
        }
    }
}
