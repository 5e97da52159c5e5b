//! Measures the norm and a digest of each client's values, before the second pass adds them.
//!
//! The norm is a rounded sum in f64, so the clip uses an upper bound of it. The bound adds the largest error of the
//! sum: n additions of non-negative numbers have a relative error of at most n 2^-53. Values are scaled by that bound
//! and rounded to integers once, in the pass that adds them. That pass verifies the norm of the integers exactly.
//!
//! An update affects no other client: an update that cannot be read, or is not finite, counts as zero, and the run
//! continues. The run also continues without any client. Squares are added within [`COLUMNS`] coordinates of one
//! tensor, and these sums in the order of coordinates. That order depends on no other client, so neither does any bit
//! of a client's scale.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::io::digest::Blake3;
use crate::kernels::clip_integers::Squares;
use crate::kernels::element::Element;
use crate::kernels::finite::all_finite;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;
use crate::model::dtype::Dtype;
use crate::model::layout::Piece;
use crate::modes::dp::COLUMNS;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::updates::set::UpdateSet;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// The clip of one client, and its measurements.
#[derive(Clone, PartialEq, Debug)]
pub struct ClientClip {
    /// The scale and the treatment.
    pub clip: Clip,
    /// The L2 norm of its delta; zero if the client counts as zero.
    pub norm: f64,
    /// The BLAKE3 digest of its values; empty if they cannot be read.
    pub digest: String,
}

/// Measures every client of a set at some coordinates, and computes its clip to a grid.
///
/// # Errors
///
/// When the base cannot be read, or a signal asked to stop.
pub fn clips(
    machine: &Machine,
    set: &UpdateSet,
    coordinates: &[Range<usize>],
    grid: &Grid,
) -> Result<Vec<ClientClip>, PassError> {
    let measures: Vec<Option<NormMeasure>> = measure_clients(machine, set, coordinates, &|_| true)?;
    let margin = margin(set);
    let mut clips: Vec<ClientClip> =
        measures.iter().map(|measure| clip_of(grid, margin, measure.as_ref())).collect();
    let is_beyond = |client: usize| measures[client].as_ref().is_some_and(NormMeasure::is_beyond);
    if (0..clips.len()).any(is_beyond) {
        let exact: Vec<Option<Squares>> = measure_clients(machine, set, coordinates, &is_beyond)?;
        for (clip, squares) in clips.iter_mut().zip(&exact) {
            if let Some(squares) = squares {
                (clip.clip, clip.norm) = (grid.clip(squares, 1.0), squares.norm());
            }
        }
    }
    Ok(clips)
}

fn clip_of(grid: &Grid, margin: f64, measure: Option<&NormMeasure>) -> ClientClip {
    let void = ClientClip { clip: Clip::VOID, norm: 0.0, digest: String::new() };
    let Some(measure) = measure else { return void };
    let (norm, digest) = (measure.squares.sqrt(), measure.digest.hex());
    match grid.clip_of_norm(norm * margin, 1.0) {
        clip if clip.treatment == Treatment::Void => ClientClip { digest, ..void },
        clip => ClientClip { clip, norm, digest },
    }
}

/// A rounded norm times this factor is above the exact norm. Half of the margin covers the root of the sum. The other
/// half covers the operations after it.
fn margin(set: &UpdateSet) -> f64 {
    let tensors = set.layout.tensors().len();
    let parts = set.layout.parameters().div_ceil(COLUMNS) + tensors;
    // One rounding for each square, then those of the sums in a lane, over lanes and over parts.
    let roundings = 1 + COLUMNS.div_ceil(LANES) + LANES + parts;
    1.0 + roundings as f64 * f64::EPSILON
}

/// Measures the clients for which `counts` is true. `None` for the others, and for clients that cannot be read.
fn measure_clients<M: ClientMeasure>(
    machine: &Machine,
    set: &UpdateSet,
    coordinates: &[Range<usize>],
    counts: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Vec<Option<M>>, PassError> {
    machine.progress.start("measuring", set.data_bytes());
    let clients = set.clients.len();
    let pass = ClipPass {
        machine,
        set,
        plan: TilePlan::at_multiples(set, 1, coordinates, COLUMNS),
        counts,
        unread: (0..clients).map(|_| AtomicBool::new(false)).collect(),
        measure: PhantomData::<fn() -> M>,
    };
    machine.run(&pass)
}

/// The pass that measures each client alone.
struct ClipPass<'a, M> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
    counts: &'a (dyn Fn(usize) -> bool + Sync),
    /// Clients that could not be read.
    unread: Vec<AtomicBool>,
    measure: PhantomData<fn() -> M>,
}

impl<M: ClientMeasure> TilePass for ClipPass<'_, M> {
    type Worker<'p>
        = TileReader<'p>
    where
        Self: 'p;
    type Part = Vec<Option<M::Part>>;
    type Sum = Vec<Option<M>>;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> TileReader<'_> {
        TileReader::new(self.machine.isa, self.set, &self.plan)
    }

    fn tile(&self, reader: &mut TileReader, tile: &Tile) -> Result<Vec<Option<M::Part>>, PassError> {
        // Finds a base that is not finite before the budget is charged.
        reader.read_finite_base(tile)?;
        let clients = 0..self.set.clients.len();
        let parts = clients.clone().map(|client| self.client(reader, tile, client)).collect();
        self.machine.progress.advance((clients.len() * tile.coordinates.len() * tile.dtype.bytes()) as u64);
        parts
    }

    fn start(&self) -> Vec<Option<M>> {
        (0..self.set.clients.len()).map(|_| Some(M::default())).collect()
    }

    fn add(&self, sum: &mut Vec<Option<M>>, _: &Tile, parts: Vec<Option<M::Part>>) {
        add_parts(sum, parts);
    }

    fn clock(&self, reader: &TileReader) -> Clock {
        reader.clock
    }
}

impl<M: ClientMeasure> ClipPass<'_, M> {
    fn client(
        &self,
        reader: &mut TileReader,
        tile: &Tile,
        client: usize,
    ) -> Result<Option<M::Part>, PassError> {
        let unread = &self.unread[client];
        if !(self.counts)(client) || unread.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match for_element!(tile.working, E => self.row::<E>(reader, tile, client)) {
            Err(why @ (PassError::Read { .. } | PassError::Unfit { .. })) => {
                if !unread.swap(true, Ordering::Relaxed) {
                    tracing::warn!(client, "{why}: the client counts as zero");
                }
                Ok(None)
            }
            part => part.map(Some),
        }
    }

    fn row<E: Element>(
        &self,
        reader: &mut TileReader,
        tile: &Tile,
        client: usize,
    ) -> Result<M::Part, PassError> {
        reader.read::<E>(tile, &[client])?;
        let (rows, base) = (reader.rows::<E>(tile, 1), reader.base_of(client));
        let pieces = self.set.layout.pieces(tile.coordinates.clone());
        Ok(M::of_row(self.machine.isa, rows.row(0), base, pieces))
    }
}

/// A measurement of a client's values. The parts of tiles are added in order.
trait ClientMeasure: Default + Send {
    /// The measurement of a tile.
    type Part: Send;
    /// Measures a row. `pieces` are the pieces of tensors in it.
    fn of_row<E: Element>(
        isa: Isa,
        row: &[E],
        base: &[f64],
        pieces: impl Iterator<Item = Piece>,
    ) -> Self::Part;
    /// Adds the part of the next tile.
    fn add(&mut self, part: Self::Part);
}

fn add_parts<M: ClientMeasure>(all: &mut [Option<M>], parts: Vec<Option<M::Part>>) {
    for (all, part) in all.iter_mut().zip(parts) {
        match (all.as_mut(), part) {
            (Some(all), Some(part)) => all.add(part),
            _ => *all = None,
        }
    }
}

/// The number of partial sums of [`squared_norm`].
const LANES: usize = 16;

/// The sum of squares of a client's delta, and the digest of its values.
#[derive(Default)]
struct NormMeasure {
    squares: f64,
    /// Whether a value is NaN or infinite.
    is_void: bool,
    digest: ValuesDigest,
}

/// The digest of a client's values, from the digests of the rows of its tiles in order.
#[derive(Default, Debug)]
pub struct ValuesDigest(Blake3);

/// The digest of one row of a tile.
#[derive(Clone, Copy, Debug)]
pub struct RowDigest {
    dtype: Dtype,
    digest: [u8; 32],
}

impl RowDigest {
    /// The digest of a row.
    pub fn of<E: Element>(row: &[E]) -> Self {
        Self { dtype: E::DTYPE, digest: Blake3::of_bytes(bytemuck::cast_slice(row)) }
    }
}

impl ValuesDigest {
    /// Adds the row of the next tile.
    pub fn add(&mut self, row: &RowDigest) {
        self.0.add_bytes(row.dtype.to_string().as_bytes());
        self.0.add_bytes(&row.digest);
    }

    /// The digest, in lower-case hex.
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

impl NormMeasure {
    /// Whether all values are finite, but the sum of squares does not fit f64.
    fn is_beyond(&self) -> bool {
        !self.squares.is_finite() && !self.is_void
    }
}

/// The norm of one row of a tile.
struct RowNorm {
    /// The sum of squares of each piece of a tensor.
    squares: Vec<f64>,
    is_void: bool,
    digest: RowDigest,
}

impl ClientMeasure for NormMeasure {
    type Part = RowNorm;

    fn of_row<E: Element>(isa: Isa, row: &[E], base: &[f64], pieces: impl Iterator<Item = Piece>) -> RowNorm {
        let mut start = 0;
        let squares = pieces.map(|piece| {
            let columns = start..start + piece.len;
            start = columns.end;
            squared_norm(isa, &row[columns.clone()], base.get(columns).unwrap_or_default())
        });
        let squares: Vec<f64> = squares.collect();
        // Every non-finite value makes a sum of squares non-finite.
        let is_void = squares.iter().any(|squares| !squares.is_finite()) && !all_finite(isa, row);
        RowNorm { squares, is_void, digest: RowDigest::of(row) }
    }

    fn add(&mut self, part: RowNorm) {
        part.squares.iter().for_each(|squares| self.squares += squares);
        self.is_void |= part.is_void;
        self.digest.add(&part.digest);
    }
}

/// Exact and slow, for values whose squares do not fit f64.
impl ClientMeasure for Squares {
    type Part = Self;

    fn of_row<E: Element>(_: Isa, row: &[E], base: &[f64], _: impl Iterator<Item = Piece>) -> Self {
        let mut squares = Self::default();
        squares.add(row, base);
        squares
    }

    fn add(&mut self, part: Self) {
        self.merge(&part);
    }
}
