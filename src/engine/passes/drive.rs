//! Streams the tiles of all clients through the worker threads.
//!
//! Threads take tiles in order. Each thread has its own buffers, so memory is one tile per thread for any size of
//! model. The parts of tiles are added in the order of tiles, not in the order in which threads finish.

use crate::engine::passes::error::PassError;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::io::interrupt;
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time of one worker, or of all, split by its use.
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
    /// The sum of two clocks.
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

/// Runs a pass on every tile, on all threads of the pool. Returns the sum of all parts, and the added times of the
/// threads.
///
/// # Errors
///
/// The error of the failed tile with the lowest number. Threads start no tile after it.
pub(super) fn drive<P: TilePass>(pool: &ThreadPool, pass: &P) -> Result<(P::Sum, Clock), PassError> {
    let sum = InTileOrder::new(pass.start(), |sum, (tile, part): (Tile, P::Part)| pass.add(sum, &tile, part));
    let clocks = for_each_tile(
        pool,
        pass.plan(),
        || pass.worker(),
        |worker, tile| {
            let part = pass.tile(worker, &tile)?;
            sum.add(tile.number, (tile, part));
            Ok(())
        },
        |worker| pass.clock(worker),
    )?;
    Ok((sum.finish(), clocks.into_iter().fold(Clock::default(), Clock::and)))
}

/// Calls `visit` on every tile. Returns the result of `close` for each thread's worker.
fn for_each_tile<W, C: Send>(
    pool: &ThreadPool,
    plan: &TilePlan,
    new_worker: impl Fn() -> W + Sync,
    visit: impl Fn(&mut W, Tile) -> Result<(), PassError> + Sync,
    close: impl Fn(&W) -> C + Sync,
) -> Result<Vec<C>, PassError> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<(usize, PassError)>> = Mutex::new(None);
    let closed = pool.broadcast(|_| {
        let mut worker = new_worker();
        loop {
            let first = next.fetch_add(plan.at_once, Ordering::Relaxed);
            if first >= plan.tiles() {
                return close(&worker);
            }
            for number in first..plan.tiles().min(first + plan.at_once) {
                let visited = interrupt::check().map_err(PassError::from);
                if let Err(why) = visited.and_then(|()| visit(&mut worker, plan.tile(number))) {
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
        None => Ok(closed),
    }
}

/// Adds the parts of tiles in the order of their numbers, although threads deliver them in any order.
struct InTileOrder<T, S, F> {
    state: Mutex<Folding<T, S>>,
    fold: F,
}

struct Folding<T, S> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    sum: S,
}

impl<T, S, F: Fn(&mut S, T)> InTileOrder<T, S, F> {
    /// Starts with `sum`; each tile's part is folded into it.
    fn new(sum: S, fold: F) -> Self {
        Self { state: Mutex::new(Folding { next: 0, waiting: BTreeMap::new(), sum }), fold }
    }

    /// Takes the part of one tile. Keeps it until all parts before it are added.
    fn add(&self, tile: usize, part: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.insert(tile, part);
        let state = &mut *state;
        while let Some(part) = state.waiting.remove(&state.next) {
            (self.fold)(&mut state.sum, part);
            state.next += 1;
        }
    }

    /// The sum of all tiles.
    fn finish(self) -> S {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).sum
    }
}
