//! The sum of clipped clients on a GPU: the integers of the CPU, and their squares, to the bit.
//!
//! The GPU takes tensors of floats of up to 32 bits. Rows pass through the slots of the ring a batch of clients at a
//! time, and the host adds up the sums of the batches. The CPU makes the digests, since it reads every row.
//!
//! A run checks some tiles: the sums of their first columns, and the squares of one client.

use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::TileReader;
use crate::gpu::integers::{IntegerSums, IntegersJob};
use crate::gpu::job::{GpuError, TileShape};
use crate::gpu::{IntegersProgram, RingSlot};
use crate::kernels::clip_integers::{Scale, add_quantized};
use crate::kernels::element::Element;
use crate::kernels::integer_sum::add_integers;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::modes::dp::COLUMNS;
use crate::modes::dp::clips::RowDigest;
use crate::modes::dp::noised_sum::ClippedSum;
use crate::privacy::clipping::Clip;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::UpdateSet;
use std::collections::HashMap;
use std::ops::Range;

/// Columns of a tile whose sums the CPU checks.
const CHECKED_COLUMNS: usize = 1024;

/// The number of tiles that a pass checks, about.
const CHECKED_TILES: usize = 16;

/// The most columns of a tile, in units of [`COLUMNS`].
const MOST_PIECES: usize = 16;

/// Floats of rows on a GPU.
const STORED: [Working; 3] = [Working::F32, Working::BF16, Working::F16];

/// The digests of the rows of a tile: for each piece of [`COLUMNS`] coordinates, those of the clients that count.
pub(super) type PieceDigests = Vec<Vec<Option<RowDigest>>>;

/// The pieces of a tile that lie between multiples of [`COLUMNS`].
pub(super) fn pieces(coordinates: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = coordinates.clone();
    let first = start / COLUMNS;
    let piece = move |number: usize| start.max(number * COLUMNS)..end.min((number + 1) * COLUMNS);
    (first..end.div_ceil(COLUMNS)).map(piece).filter(|piece| !piece.is_empty())
}

/// The sum of a set's clients on a GPU.
pub(super) struct SumOnGpu<'a> {
    ring: &'a GpuRing,
    sum: &'a ClippedSum<'a>,
    /// The compiled batches of each float.
    batches: HashMap<Working, Batches>,
    /// Columns of a tile: a multiple of [`COLUMNS`].
    columns: usize,
}

/// The batches of clients of one float, of equal size.
struct Batches {
    shape: TileShape,
    programs: Vec<IntegersProgram>,
}

/// The slots of one thread, by the float of their rows.
pub(super) type SumLane<'g> = HashMap<Working, RingSlot<'g>>;

/// What the CPU computed of a batch to check the GPU.
#[derive(Default)]
struct CheckedBatch {
    sums: Vec<i64>,
    /// The row whose squares are checked, and these squares.
    squares: Option<(usize, u128)>,
}

impl<'a> SumOnGpu<'a> {
    /// Compiles the sum of the clients of a set that count.
    pub(super) fn new(ring: &'a GpuRing, set: &UpdateSet, sum: &'a ClippedSum) -> Result<Self, GpuError> {
        let working = set.working();
        let widest = STORED.into_iter().filter(|stored| working.contains(stored)).map(Working::bytes).max();
        let row = COLUMNS * widest.unwrap_or(size_of::<f32>());
        // Three quarters of a binding leave room for the base and the ends of rows.
        let most = ring.gpu().options().slot_bytes.min(ring.gpu().binding_bytes() / 4 * 3);
        let rows = sum.clients().len().min(most / row).max(1);
        let columns = (most / (rows * row)).clamp(1, MOST_PIECES) * COLUMNS;
        let mut batches = HashMap::new();
        if !sum.clients().is_empty() {
            for stored in STORED.into_iter().filter(|stored| working.contains(stored)) {
                batches.insert(stored, Batches::new(ring, set, sum, (stored, rows, columns))?);
            }
        }
        Ok(Self { ring, sum, batches, columns })
    }

    /// Columns of a tile.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Makes the slots of a thread.
    pub(super) fn lane(&self) -> Result<SumLane<'_>, GpuError> {
        let slot = |(stored, batches): (&Working, &Batches)| {
            let programs = batches.programs.first();
            programs.map(|first| Ok((*stored, RingSlot::for_integers(self.ring.gpu(), first)?)))
        };
        self.batches.iter().filter_map(slot).collect()
    }

    /// Whether the GPU adds up the rows of a tile, whose base is read.
    pub(super) fn takes(&self, tile: &Tile, base: &[f64]) -> bool {
        let is_float = tile.dtype.kind() == Kind::Float && tile.dtype != Dtype::F64;
        let fits = |x: &f64| f64::from(*x as f32) == *x;
        is_float && self.batches.contains_key(&tile.working) && base.iter().all(fits)
    }

    /// Adds the clients that count to the integers of a tile, whose base is read. `tiles` is the number of tiles of the
    /// pass. Returns the digests of the rows.
    pub(super) fn add<E: Element>(
        &self,
        isa: Isa,
        lane: &mut SumLane,
        reader: &mut TileReader,
        (tile, tiles): (&Tile, usize),
        integers: &mut [i64],
    ) -> Result<PieceDigests, PassError> {
        let (Some(batches), Some(slot)) = (self.batches.get(&tile.working), lane.get_mut(&tile.working))
        else {
            return Ok(Vec::new());
        };
        let mut digests: PieceDigests = pieces(&tile.coordinates).map(|_| Vec::new()).collect();
        let is_checked = tile.number.is_multiple_of(tiles.div_ceil(CHECKED_TILES).max(1));
        for (number, program) in batches.programs.iter().enumerate() {
            let first = number * batches.shape.rows;
            let clients = first..self.sum.clients().len().min(first + batches.shape.rows);
            let checks = is_checked.then_some(isa);
            let expected = self.fill::<E>(slot, reader, (tile, checks), clients.clone(), &mut digests)?;
            let mut found = slot.integers(program, None)?;
            self.check(&found, &expected)?;
            add_integers(isa, &found.sums, integers);
            found.squares.truncate(clients.len());
            self.sum.count(first, found.squares);
        }
        Ok(digests)
    }

    /// Fills a slot with the rows of a batch of clients. A client that cannot be read has zeros, and no digest.
    fn fill<E: Element>(
        &self,
        slot: &mut RingSlot,
        reader: &mut TileReader,
        (tile, checks): (&Tile, Option<Isa>),
        batch: Range<usize>,
        digests: &mut PieceDigests,
    ) -> Result<CheckedBatch, PassError> {
        let rows = self.batches.get(&tile.working).map_or(0, |batches| batches.shape.rows);
        let columns = tile.coordinates.len();
        let checked = columns.min(CHECKED_COLUMNS);
        let mut expected =
            CheckedBatch { sums: vec![0; if checks.is_some() { checked } else { 0 }], squares: None };
        let checked_row = tile.number % batch.len().max(1);
        slot.fill::<PassError>(columns, |row, out| {
            if row >= rows {
                let out: &mut [f32] = bytemuck::cast_slice_mut(out);
                out.iter_mut().zip(reader.base()).for_each(|(out, x)| *out = *x as f32);
                return Ok(());
            }
            let Some(client) = batch.clone().nth(row) else {
                out.fill(0);
                return Ok(());
            };
            let (index, scale) = (self.sum.clients()[client], self.sum.clips()[client].scale);
            match reader.read::<E>(tile, &[index]) {
                Err(PassError::Read { .. }) => {
                    out.fill(0);
                    digests.iter_mut().for_each(|piece| piece.push(None));
                    return Ok(());
                }
                read => read?,
            }
            let (values, base) = (reader.rows::<E>(tile, 1), reader.base_of(index));
            let values = &values.row(0)[..columns];
            out.copy_from_slice(bytemuck::cast_slice(values));
            for (piece, digests) in pieces(&tile.coordinates).zip(digests.iter_mut()) {
                let piece = piece.start - tile.coordinates.start..piece.end - tile.coordinates.start;
                digests.push(Some(RowDigest::of(&values[piece])));
            }
            if let Some(isa) = checks {
                let of = base.get(..checked).unwrap_or_default();
                add_quantized(isa, &values[..checked], of, scale, &mut expected.sums);
                if row == checked_row {
                    let squares = add_quantized(isa, values, base, scale, &mut vec![0; columns]);
                    expected.squares = Some((row, squares));
                }
            }
            Ok(())
        })?;
        Ok(expected)
    }

    /// Compares the GPU's integers with those of the CPU.
    fn check(&self, found: &IntegerSums, expected: &CheckedBatch) -> Result<(), GpuError> {
        let wrong = |what: String, found: f64, expected: f64| {
            let adapter = self.ring.gpu().adapter().name.clone();
            Err(GpuError::Wrong { adapter, what, found, expected, bound: 0.0 })
        };
        let sums = found.sums.iter().zip(&expected.sums);
        if let Some((column, (found, expected))) = sums.enumerate().find(|(_, (a, b))| a != b) {
            return wrong(format!("the sum of integers in column {column}"), *found as f64, *expected as f64);
        }
        match expected.squares {
            Some((row, squares)) if found.squares[row] != squares => {
                let what = format!("the squares of the integers of update {row}");
                wrong(what, found.squares[row] as f64, squares as f64)
            }
            _ => Ok(()),
        }
    }
}

impl Batches {
    fn new(
        ring: &GpuRing,
        set: &UpdateSet,
        sum: &ClippedSum,
        (stored, rows, columns): (Working, usize, usize),
    ) -> Result<Self, GpuError> {
        let is_weights = |client: &usize| set.clients[*client].metadata.kind == UpdateKind::Weights;
        let less_base: Vec<bool> = sum.clients().iter().map(is_weights).collect();
        let references = usize::from(set.base.is_some() && less_base.contains(&true));
        let shape = TileShape { rows, stored, references, columns };
        let job = |(clips, less_base): (&[Clip], &[bool])| {
            let mut scales: Vec<Scale> = clips.iter().map(|clip| clip.scale).collect();
            let mut less_base = less_base.to_vec();
            // The last batch may have fewer clients.
            scales.resize(rows, Scale::ZERO);
            less_base.resize(rows, false);
            ring.gpu().compile_integers(&IntegersJob { shape, scales, less_base })
        };
        let programs = sum.clips().chunks(rows).zip(less_base.chunks(rows)).map(job);
        Ok(Self { shape, programs: programs.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_multiples_and_cover_a_tile() {
        for (start, end) in [(0, COLUMNS), (5, 6), (5, 3 * COLUMNS + 1), (COLUMNS - 1, COLUMNS + 1), (7, 7)] {
            let found: Vec<Range<usize>> = pieces(&(start..end)).collect();
            assert_eq!(found.iter().map(Range::len).sum::<usize>(), end - start);
            for pair in found.windows(2) {
                assert!(pair[0].end == pair[1].start && pair[0].end.is_multiple_of(COLUMNS), "{found:?}");
            }
            assert!(found.iter().all(|piece| !piece.is_empty() && piece.len() <= COLUMNS), "{found:?}");
        }
    }
}
