//! The GPU of a run: the coordinates that it takes, their tiles, and the tiles that stay.
//!
//! The GPU works on parameters of up to 32 bits. The CPU takes statistics and tensors of f64, and all tensors if the
//! run mixes weights and deltas. Each slot of the ring has its own thread, which reads files into the slot, waits for
//! the results and hands them on. So threads read files while the GPU works.

use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::gpu::job::{GpuError, TileShape};
use crate::gpu::{Gpu, ResidentTile, RingSlot};
use crate::kernels::element::Element;
use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Working};
use crate::model::tile::{LINE_BYTES, TileBuffer};
use crate::rules::mixing::Mixing;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::{UpdateSet, ValueKind};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The most columns of a tile. The host holds merged values and the base's values of a tile in f64: at most 4 MiB each.
const MOST_COLUMNS: usize = 512 << 10;

/// The default range of the number of slots.
const SLOTS: Range<usize> = 3..8;

/// A GPU and the threads of its slots.
#[derive(Debug)]
pub struct GpuRing {
    gpu: Gpu,
    lanes: ThreadPool,
    /// Whether the CPU takes over if the GPU fails.
    pub falls_back: bool,
    kept: Mutex<KeptTiles>,
}

/// Tiles that stayed on the GPU, by their stored float and number.
#[derive(Default)]
struct KeptTiles {
    shapes: HashMap<Working, TileShape>,
    tiles: HashMap<(Working, usize), Arc<ResidentTile>>,
}

impl std::fmt::Debug for KeptTiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptTiles").field("shapes", &self.shapes).field("tiles", &self.tiles.len()).finish()
    }
}

/// Coordinates that the GPU takes, all of one stored float.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct GpuShare {
    pub(crate) stored: Working,
    pub(crate) ranges: Vec<Range<usize>>,
}

/// A row of f32 after the clients' rows in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReferenceRow {
    /// The base's values, if rows are weights.
    Base,
    /// The centre that an earlier run left, as a delta.
    Centre,
    /// A state tensor of the server's step, by index in the state.
    Kept(usize),
}

/// The reference rows of a set.
pub(crate) fn references(set: &UpdateSet) -> Vec<ReferenceRow> {
    let base = (set.value_kind == ValueKind::AsSent && set.base.is_some()).then_some(ReferenceRow::Base);
    let centre = set.centre().is_some().then_some(ReferenceRow::Centre);
    base.into_iter().chain(centre).collect()
}

impl GpuRing {
    /// Starts a thread for each slot. `threads` is the number of the host's worker threads.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn new(gpu: Gpu, threads: usize, falls_back: bool) -> Result<Self, GpuError> {
        let slots = gpu.options().slots.unwrap_or((threads + 1).clamp(SLOTS.start, SLOTS.end));
        let lanes = ThreadPoolBuilder::new().num_threads(slots.max(1)).build().map_err(|why| {
            GpuError::NotOpened { adapter: gpu.adapter().name.clone(), why: why.to_string() }
        })?;
        Ok(Self { gpu, lanes, falls_back, kept: Mutex::default() })
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The threads, one per slot.
    pub(crate) fn lanes(&self) -> &ThreadPool {
        &self.lanes
    }

    /// Forgets the tiles that stayed on the GPU, before passes over another set.
    pub(crate) fn forget(&self) {
        *self.kept() = KeptTiles::default();
    }

    /// Whether all tiles of a set fit in GPU memory beside the slots. `bytes` is the size of a tile.
    pub(crate) fn keeps(&self, set: &UpdateSet, bytes: usize) -> bool {
        let slots = self.lanes.current_num_threads() * bytes * 3;
        set.data_bytes() + slots as u64 <= self.gpu.resident_bytes()
    }

    /// Remembers the shape of the tiles that stay.
    pub(crate) fn keep_shape(&self, shape: TileShape) {
        self.kept().shapes.insert(shape.stored, shape);
    }

    /// Remembers a tile that stays.
    pub(crate) fn keep(&self, stored: Working, tile: usize, input: ResidentTile) {
        self.kept().tiles.insert((stored, tile), Arc::new(input));
    }

    /// Forgets all tiles of this float, if not all of them fit.
    pub(crate) fn keep_none(&self, stored: Working) {
        let mut kept = self.kept();
        kept.shapes.remove(&stored);
        kept.tiles.retain(|(of, _), _| *of != stored);
    }

    /// The shape of the tiles of this float; `None` if not all of them stayed.
    pub(crate) fn kept_shape(&self, stored: Working) -> Option<TileShape> {
        self.kept().shapes.get(&stored).copied()
    }

    /// A tile that stayed; `None` if it did not.
    pub(crate) fn kept_tile(&self, stored: Working, tile: usize) -> Option<Arc<ResidentTile>> {
        self.kept().tiles.get(&(stored, tile)).map(Arc::clone)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, KeptTiles> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most columns of a tile with `rows` rows, beside which the GPU holds `scratch_rows` rows of f32.
    ///
    /// # Errors
    ///
    /// When the narrowest tile does not fit a binding.
    pub(crate) fn columns(
        &self,
        rows: usize,
        stored: Working,
        references: usize,
        scratch_rows: usize,
    ) -> Result<usize, GpuError> {
        let bytes = rows * stored.bytes() + references * size_of::<f32>();
        let bound = bytes.max(scratch_rows.max(2) * size_of::<f32>());
        let most = (self.gpu.binding_bytes().saturating_sub(512) / bound).min(MOST_COLUMNS);
        let columns = (self.gpu.options().slot_bytes / bytes).clamp(LINE_BYTES, MOST_COLUMNS).min(most);
        if columns < LINE_BYTES {
            let most = self.gpu.binding_bytes() / LINE_BYTES / size_of::<f32>();
            let adapter = self.gpu.adapter().name.clone();
            return Err(GpuError::TooMany { adapter, what: "updates of a tile", found: rows, most });
        }
        Ok(columns / LINE_BYTES * LINE_BYTES)
    }
}

/// The coordinates of a set that the GPU takes: f32 must hold the values, the base and the centre.
pub(crate) fn shares(set: &UpdateSet) -> Vec<GpuShare> {
    let mut shares: Vec<GpuShare> = Vec::new();
    for (tensor, working) in set.working().into_iter().enumerate() {
        let coordinates = set.layout.coordinates(tensor);
        let dtype = set.layout.tensors()[tensor].dtype;
        let is_parameter = set.layout.classes()[tensor] == TensorClass::Parameter;
        if coordinates.is_empty() || !is_parameter || !is_for_device(dtype, working) {
            continue;
        }
        let share = match shares.iter_mut().position(|share| share.stored == working) {
            Some(known) => &mut shares[known],
            None => {
                shares.push(GpuShare { stored: working, ranges: Vec::new() });
                let last = shares.len() - 1;
                &mut shares[last]
            }
        };
        match share.ranges.last_mut() {
            Some(last) if last.end == coordinates.start => last.end = coordinates.end,
            _ => share.ranges.push(coordinates),
        }
    }
    shares
}

fn is_for_device(dtype: Dtype, working: Working) -> bool {
    dtype != Dtype::F64 && working != Working::F64
}

/// The coordinates of a set that are not among `taken`, in order.
pub(crate) fn rest(set: &UpdateSet, mut taken: Vec<Range<usize>>) -> Vec<Range<usize>> {
    taken.sort_by_key(|range| range.start);
    let mut rest = Vec::new();
    let mut next = 0;
    for range in taken {
        if next < range.start {
            rest.push(next..range.start);
        }
        next = next.max(range.end);
    }
    if next < set.layout.parameters() {
        rest.push(next..set.layout.parameters());
    }
    rest
}

/// A plan of a part's tiles.
pub(crate) fn plan(set: &UpdateSet, part: &GpuShare, columns: usize) -> TilePlan {
    TilePlan::within(set, 0, &part.ranges, |_| columns)
}

/// Whether a client's row holds weights, from which the pass must subtract the base.
pub(crate) fn is_less_base(set: &UpdateSet, client: usize) -> bool {
    let is_weights = set.clients[client].metadata.kind == UpdateKind::Weights;
    is_weights && set.base.is_some() && set.value_kind == ValueKind::AsSent
}

/// The coefficients of mixtures as the GPU takes them: one for each client's row. If rows contain the base, the base's
/// coefficient follows: one minus the sum of the others.
pub(crate) fn mixtures(set: &UpdateSet, mixing: &Mixing, clients: &[usize]) -> Vec<Vec<f64>> {
    let brings_base = set.value_kind == ValueKind::AsSent && set.base.is_some();
    let mixture = |k: usize| {
        let whole = mixing.row(k);
        let mut row: Vec<f64> = clients.iter().map(|client| whole[*client]).collect();
        row.push(if brings_base { 1.0 - row.iter().sum::<f64>() } else { 0.0 });
        row
    };
    (0..mixing.len()).map(mixture).collect()
}

/// Reads the clients' rows and the reference rows of a tile into a slot. The rows of the state are there already.
pub(crate) fn fill<E: Element>(
    slot: &mut RingSlot,
    reader: &mut TileReader,
    tile: &Tile,
    clients: &[usize],
    references: &[ReferenceRow],
    kept: &[TileBuffer],
) -> Result<(), PassError> {
    for reference in references {
        match reference {
            ReferenceRow::Base => reader.read_finite_base(tile)?,
            ReferenceRow::Centre => reader.read_centre(tile)?,
            ReferenceRow::Kept(_) => {}
        }
    }
    slot.fill::<PassError>(tile.coordinates.len(), |row, out| match clients.get(row) {
        Some(client) => reader.read_row::<E>(tile, *client, bytemuck::cast_slice_mut(out)),
        None => {
            write_reference(reader, references[row - clients.len()], kept, out);
            Ok(())
        }
    })
}

/// Writes a reference's values of a tile, which the reader holds.
fn write_reference(reader: &TileReader, reference: ReferenceRow, kept: &[TileBuffer], out: &mut [u8]) {
    let values = match reference {
        ReferenceRow::Base => reader.base(),
        ReferenceRow::Centre => reader.centre(),
        // Reference rows on the GPU are f32.
        ReferenceRow::Kept(place) => return out.copy_from_slice(&kept[place].row(0)[..out.len()]),
    };
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    for (out, value) in out.iter_mut().zip(values) {
        *out = *value as f32;
    }
}
