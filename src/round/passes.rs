//! Streams the tiles of all clients through the worker threads.
//!
//! A tile is a range of coordinates of one dtype, small enough that all clients' rows of it stay in a core's
//! cache. Threads take tiles in order; each has its own buffers, so memory is one tile a thread
//! whatever the model's size. The shape of a tile depends on the clients and the layout only, never on threads.

use crate::io::interrupt::{self, Interrupted};
use crate::io::model_file::ModelFile;
use crate::kernels::convert::decode;
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Dtype, Working};
use crate::model::layout::{Layout, Piece};
use crate::model::tile::{LINE_BYTES, Rows, TileBuffer};
use crate::round::metadata::UpdateKind;
use crate::round::roster::{Client, Frame, Placement, UpdateSet};
use rayon::ThreadPool;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a tile that its shape aims at: what stays in a core's share of the caches.
const TILE_BYTES: usize = 3 << 20;

/// Bytes of one row of a tile: enough to be read at full speed, at most what a tile of few rows needs.
const ROW_BYTES: Range<usize> = 32 << 10..256 << 10;

/// Bytes that a tile of very many rows may take; rows get shorter than [`ROW_BYTES`] to keep to it.
const MAX_TILE_BYTES: usize = 40 << 20;

/// A range of coordinates that is merged in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Its place in the order of tiles.
    pub number: usize,
    /// Its coordinates.
    pub coordinates: Range<usize>,
    /// The float that kernels work in.
    pub working: Working,
    /// The dtype of the layout's tensors there.
    pub dtype: Dtype,
}

/// All tiles of a layout, in order, without a list of them.
#[derive(Debug)]
pub struct TilePlan {
    stretches: Vec<Stretch>,
    tiles: usize,
    rows: usize,
}

/// Consecutive tensors of one dtype and one working float.
#[derive(Debug)]
struct Stretch {
    coordinates: Range<usize>,
    working: Working,
    dtype: Dtype,
    columns: usize,
    first_tile: usize,
}

impl TilePlan {
    /// Cuts the layout of an update set into tiles of which `rows` clients' rows are held at once.
    pub fn new(set: &UpdateSet, rows: usize) -> Self {
        let mut stretches: Vec<Stretch> = Vec::new();
        for (tensor, working) in set.working().into_iter().enumerate() {
            let dtype = set.layout.tensors()[tensor].dtype;
            let coordinates = set.layout.coordinates(tensor);
            match stretches.last_mut() {
                _ if coordinates.is_empty() => {}
                Some(last) if (last.working, last.dtype) == (working, dtype) => {
                    last.coordinates.end = coordinates.end;
                }
                _ => {
                    let columns = tile_columns(rows, working.bytes());
                    stretches.push(Stretch { coordinates, working, dtype, columns, first_tile: 0 });
                }
            }
        }
        let mut tiles = 0;
        for stretch in &mut stretches {
            stretch.first_tile = tiles;
            tiles += stretch.coordinates.len().div_ceil(stretch.columns);
        }
        Self { stretches, tiles, rows }
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    fn tile(&self, number: usize) -> Tile {
        let stretch = self.stretches.partition_point(|stretch| stretch.first_tile <= number) - 1;
        let stretch = &self.stretches[stretch];
        let start = stretch.coordinates.start + (number - stretch.first_tile) * stretch.columns;
        let end = (start + stretch.columns).min(stretch.coordinates.end);
        Tile { number, coordinates: start..end, working: stretch.working, dtype: stretch.dtype }
    }

    pub(crate) fn most_columns(&self) -> usize {
        self.stretches.iter().map(|s| s.columns.min(s.coordinates.len())).max().unwrap_or(0)
    }

    fn most_row_bytes(&self) -> usize {
        let bytes = |s: &Stretch| s.columns.min(s.coordinates.len()) * s.working.bytes();
        self.stretches.iter().map(bytes).max().unwrap_or(0)
    }
}

fn tile_columns(rows: usize, value_bytes: usize) -> usize {
    let rows = rows.max(1);
    let row_bytes = (TILE_BYTES / rows).clamp(ROW_BYTES.start, ROW_BYTES.end);
    let row_bytes = row_bytes.min(MAX_TILE_BYTES / rows).max(LINE_BYTES * size_of::<f64>());
    (row_bytes / value_bytes).next_multiple_of(LINE_BYTES)
}

/// Why a pass stopped.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PassError {
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, client: Option<usize>, source: io::Error },
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

/// The buffers of one worker: rows of the current tile, base values, and room for stored values.
pub struct Workspace<'a> {
    isa: Isa,
    set: &'a UpdateSet,
    tile: TileBuffer,
    stored: TileBuffer,
    base: Vec<f64>,
    /// Where this worker's time went.
    pub clock: Clock,
}

impl<'a> Workspace<'a> {
    /// Buffers for the largest tile of a plan.
    pub fn new(isa: Isa, set: &'a UpdateSet, plan: &TilePlan) -> Self {
        Self {
            isa,
            set,
            tile: TileBuffer::new(plan.rows, plan.most_row_bytes()),
            stored: TileBuffer::new(1, plan.most_columns() * size_of::<f64>()),
            base: Vec::new(),
            clock: Clock::default(),
        }
    }

    /// The base's values of a tile as it was read last; empty if [`read_base`](Self::read_base) was not called.
    pub fn base(&self) -> &[f64] {
        &self.base
    }

    /// What to subtract from a client's row to get its delta: the base, or nothing where rows are deltas already.
    pub fn base_of(&self, client: usize) -> &[f64] {
        let weights = self.set.clients[client].metadata.kind == UpdateKind::Weights;
        if weights && self.set.frame == Frame::AsSent { &self.base } else { &[] }
    }

    /// Reads the base's values of a tile, if there is a base.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or changed since it was opened.
    pub fn read_base(&mut self, tile: &Tile) -> Result<(), PassError> {
        let Some(base) = &self.set.base else { return Ok(()) };
        let started = Instant::now();
        self.base.resize(tile.coordinates.len(), 0.0);
        let read = Reading {
            isa: self.isa,
            model: &base.model,
            placement: &base.placement,
            layout: &self.set.layout,
        };
        read.tile(tile, &mut self.stored, &mut self.base).map_err(|source| PassError::Read {
            path: base.model.path.clone(),
            client: None,
            source,
        })?;
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// Reads some clients' rows of a tile. Where weights and deltas are mixed, the base must have been read.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or changed since it was opened.
    pub fn read<E: Element>(&mut self, tile: &Tile, clients: Range<usize>) -> Result<(), PassError> {
        let started = Instant::now();
        let columns = tile.coordinates.len();
        for (row, index) in clients.enumerate() {
            let client = &self.set.clients[index];
            let values = &mut bytemuck::cast_slice_mut::<u8, E>(self.tile.row_mut(row))[..columns];
            let (model, placement) = (&client.model, &client.placement);
            let read = Reading { isa: self.isa, model, placement, layout: &self.set.layout };
            read.tile(tile, &mut self.stored, values).map_err(|source| read_error(index, client, source))?;
            if self.set.frame == Frame::Mixed && client.metadata.kind == UpdateKind::Weights {
                for (x, base) in values.iter_mut().zip(&self.base) {
                    *x = E::from_exact(x.widen() - base);
                }
            }
            self.tile.clear_behind(row, columns * size_of::<E>());
        }
        self.clock.read += started.elapsed();
        Ok(())
    }

    /// The rows that were read last, so many of them.
    pub fn rows<E: Element>(&self, tile: &Tile, rows: usize) -> Rows<'_, E> {
        self.tile.rows(rows, tile.coordinates.len())
    }
}

fn read_error(row: usize, client: &Client, source: io::Error) -> PassError {
    PassError::Read { path: client.model.path.clone(), client: Some(row), source }
}

/// One model to read tiles of.
struct Reading<'a> {
    isa: Isa,
    model: &'a ModelFile,
    placement: &'a Placement,
    layout: &'a Layout,
}

impl Reading<'_> {
    /// Reads the model's values of a tile: straight into the row where the file holds what the kernels
    /// work in, else by way of `stored`. Neighbouring tensors that are neighbours in the file too are read in one go.
    fn tile<E: Element>(&self, tile: &Tile, stored: &mut TileBuffer, values: &mut [E]) -> io::Result<()> {
        let pieces = self.layout.pieces(tile.coordinates.clone());
        let mut column = 0;
        for run in (Runs { placement: self.placement, pieces, next: None }) {
            let values = &mut values[column..column + run.len];
            let file = &self.model.files[run.file];
            if E::DTYPE == run.dtype {
                file.read_exact_at(bytemuck::cast_slice_mut(values), run.offset)?;
            } else {
                let bytes = &mut stored.row_mut(0)[..run.len * run.dtype.bytes()];
                file.read_exact_at(bytes, run.offset)?;
                decode(self.isa, run.dtype, bytes, values);
            }
            column += run.len;
        }
        Ok(())
    }
}

/// Values of one dtype that stand together in one file.
#[derive(Clone, Copy)]
struct Run {
    file: usize,
    offset: u64,
    dtype: Dtype,
    len: usize,
}

/// Joins pieces into runs.
struct Runs<'a, I> {
    placement: &'a Placement,
    pieces: I,
    next: Option<Run>,
}

impl<I: Iterator<Item = Piece>> Iterator for Runs<'_, I> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        for piece in self.pieces.by_ref() {
            let place = self.placement[piece.tensor];
            let run = Run {
                file: place.file,
                offset: place.offset + (piece.start * place.dtype.bytes()) as u64,
                dtype: place.dtype,
                len: piece.len,
            };
            match &mut self.next {
                Some(last) if last.continues_with(&run) => last.len += run.len,
                _ => {
                    if let Some(done) = self.next.replace(run) {
                        return Some(done);
                    }
                }
            }
        }
        self.next.take()
    }
}

impl Run {
    fn continues_with(&self, other: &Self) -> bool {
        (self.file, self.dtype) == (other.file, other.dtype)
            && self.offset + (self.len * self.dtype.bytes()) as u64 == other.offset
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
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.tiles() {
                return worker;
            }
            let visited = interrupt::check().map_err(E::from);
            if let Err(why) = visited.and_then(|()| visit(&mut worker, &plan.tile(number))) {
                next.store(plan.tiles(), Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(other, _)| number < *other) {
                    *failed = Some((number, why));
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
    waiting: std::collections::BTreeMap<usize, T>,
    sum: S,
}

impl<T, S> InTileOrder<T, S> {
    /// Starts with `sum`; each tile's part is folded into it.
    pub fn new(sum: S, fold: fn(&mut S, T)) -> Self {
        Self { state: Mutex::new(Folding { next: 0, waiting: Default::default(), sum }), fold }
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
