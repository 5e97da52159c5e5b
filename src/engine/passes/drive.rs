//! Streams the tiles of all clients through the worker threads.
//!
//! Threads take tiles in order; each has its own buffers, so memory is one tile a thread whatever the model's
//! size. What tiles add up to is added in their order, whichever thread is done first.

use crate::engine::passes::plan::{Tile, TilePlan};
use crate::gpu::job::GpuError;
use crate::io::interrupt::{self, Interrupted};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why a pass stopped.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PassError {
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, client: Option<usize>, source: io::Error },
    #[error("{}: tensor `{tensor}` of the base holds {value} at flat index {index}, expected a finite number", .path.display())]
    BaseNotFinite { path: PathBuf, tensor: String, index: usize, value: f64 },
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Where the time of one worker, or of all, went.
#[derive(Clone, Copy, Default, Debug)]
pub struct Clock {
    /// Reading rows from files.
    pub read: Duration,
    /// Everything else between reading and writing.
    pub compute: Duration,
    /// Writing merged values.
    pub write: Duration,
}

impl Clock {
    /// The sum of two.
    pub fn and(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            compute: self.compute + other.compute,
            write: self.write + other.write,
        }
    }

    /// Runs `work` and adds its time to the part of the clock that `part` picks.
    pub fn time<T>(&mut self, part: impl FnOnce(&mut Self) -> &mut Duration, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        *part(self) += started.elapsed();
        done
    }
}

/// Calls `visit` on every tile, in order of their numbers, from all threads of the pool. Returns each
/// worker's state.
///
/// # Errors
///
/// That of the first tile, by number, that failed; later tiles are not started.
pub fn for_each_tile<W: Send, E: From<Interrupted> + Send>(
    pool: &ThreadPool,
    plan: &TilePlan,
    new_worker: impl Fn() -> W + Sync,
    visit: impl Fn(&mut W, &Tile) -> Result<(), E> + Sync,
) -> Result<Vec<W>, E> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let workers = pool.broadcast(|_| {
        let mut worker = new_worker();
        loop {
            let first = next.fetch_add(plan.at_once, Ordering::Relaxed);
            if first >= plan.tiles() {
                return worker;
            }
            for number in first..plan.tiles().min(first + plan.at_once) {
                let visited = interrupt::check().map_err(E::from);
                if let Err(why) = visited.and_then(|()| visit(&mut worker, &plan.tile(number))) {
                    next.store(plan.tiles(), Ordering::Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(other, _)| number < *other) {
                        *failed = Some((number, why));
                    }
                    break;
                }
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, why)) => Err(why),
        None => Ok(workers),
    }
}

/// Adds up what tiles give, in order of their numbers, as they come from several threads.
pub struct InTileOrder<T, S> {
    state: Mutex<Folding<T, S>>,
    fold: fn(&mut S, T),
}

struct Folding<T, S> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    sum: S,
}

impl<T, S> InTileOrder<T, S> {
    /// Starts with `sum`; each tile's part is folded into it.
    pub fn new(sum: S, fold: fn(&mut S, T)) -> Self {
        Self { state: Mutex::new(Folding { next: 0, waiting: BTreeMap::new(), sum }), fold }
    }

    /// Takes the part of one tile. Waits with it until all before it came.
    pub fn add(&self, tile: usize, part: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.insert(tile, part);
        let state = &mut *state;
        while let Some(part) = state.waiting.remove(&state.next) {
            (self.fold)(&mut state.sum, part);
            state.next += 1;
        }
    }

    /// The sum of all tiles.
    pub fn finish(self) -> S {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).sum
    }
}
