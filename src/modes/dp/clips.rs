//! What is done to each client before its update is added: one pass, for the norms and for what names the values.
//!
//! The norm is a sum in f64, rounded, so no client is held to it but to an upper bound of it, as far above as the sum may be
//! off: n additions of numbers that are not negative are off by at most a share of n 2^-53 of the sum. Integers at the
//! scale of that bound are admitted. They are made once, where they are added, and there their norm is verified, exactly.
//!
//! What a client sends decides about that client alone: an update that cannot be read, or is not finite, counts as zero,
//! and the round goes on. So does the run if nobody came. So that not a bit of one client's scale hangs on another, values
//! are added in an order that no other client changes: within what [`COLUMNS`] coordinates hold of one tensor, and then in
//! the order of coordinates.

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
use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::Piece;
use crate::modes::dp::COLUMNS;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::updates::set::UpdateSet;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// How one client is clipped, and what the pass found of it.
#[derive(Clone, PartialEq, Debug)]
pub struct ClientClip {
    /// How it is clipped.
    pub clip: Clip,
    /// The L2 norm of its delta; zero if it counts as zero.
    pub norm: f64,
    /// A BLAKE3 digest of its values; empty if they cannot be read.
    pub digest: String,
}

/// Measures every client of a set, and says how it is clipped to a grid.
///
/// # Errors
///
/// When the base cannot be read, or a signal asked to stop.
pub fn clips(machine: &Machine, set: &UpdateSet, grid: &Grid) -> Result<Vec<ClientClip>, PassError> {
    let measures: Vec<Option<NormMeasure>> = measure_clients(machine, set, &|_| true)?;
    let margin = margin(set);
    let mut clips: Vec<ClientClip> =
        measures.iter().map(|measure| clip_of(grid, margin, measure.as_ref())).collect();
    let is_beyond = |client: usize| measures[client].as_ref().is_some_and(NormMeasure::is_beyond);
    if (0..clips.len()).any(is_beyond) {
        let exact: Vec<Option<Squares>> = measure_clients(machine, set, &is_beyond)?;
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

/// A norm times this factor is above the exact norm. Half of the factor would do for the root of a sum; the rest covers the
/// operations behind it.
fn margin(set: &UpdateSet) -> f64 {
    let tensors = set.layout.tensors().len();
    let parts = set.layout.parameters().div_ceil(COLUMNS) + tensors;
    // Squares, those of a lane, lanes, parts.
    let roundings = 1 + COLUMNS.div_ceil(LANES) + LANES + parts;
    1.0 + roundings as f64 * f64::EPSILON
}

/// Measures the clients that count; `None` for a client that does not, or that cannot be read.
fn measure_clients<M: ClientMeasure>(
    machine: &Machine,
    set: &UpdateSet,
    counts: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Vec<Option<M>>, PassError> {
    machine.progress.start("measuring", set.data_bytes());
    let clients = set.clients.len();
    let pass = ClipPass {
        machine,
        set,
        plan: TilePlan::at_multiples(set, 1, &floats(set), COLUMNS),
        counts,
        unread: (0..clients).map(|_| AtomicBool::new(false)).collect(),
        measure: PhantomData::<fn() -> M>,
    };
    machine.run(&pass)
}

/// The pass that measures clients one by one, without regard to each other.
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
        // A base that is not finite is found now, before anything is charged.
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
            Err(why @ PassError::Read { .. }) => {
                if !unread.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{why}: the client counts as zero");
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

/// What a client's values are measured by: parts of tiles, that are added in their order.
trait ClientMeasure: Default + Send {
    /// That of a tile.
    type Part: Send;
    /// The part of a row, which pieces of tensors make up.
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

/// Sums that [`squared_norm`] adds in turn.
const LANES: usize = 16;

/// The squares of a client's delta, and what names its values.
#[derive(Default)]
struct NormMeasure {
    squares: f64,
    /// Whether a value is no finite number.
    is_void: bool,
    digest: Blake3,
}

impl NormMeasure {
    /// Whether the squares of finite values are beyond f64.
    fn is_beyond(&self) -> bool {
        !self.squares.is_finite() && !self.is_void
    }
}

/// The same of a row.
struct RowNorm {
    /// Of each piece of a tensor.
    squares: Vec<f64>,
    is_void: bool,
    dtype: Dtype,
    digest: [u8; 32],
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
        // A square that is not finite tells of every value that is not.
        let is_void = squares.iter().any(|squares| !squares.is_finite()) && !all_finite(isa, row);
        let digest = Blake3::of_bytes(bytemuck::cast_slice(row));
        RowNorm { squares, is_void, dtype: E::DTYPE, digest }
    }

    fn add(&mut self, part: RowNorm) {
        part.squares.iter().for_each(|squares| self.squares += squares);
        self.is_void |= part.is_void;
        self.digest.add_bytes(part.dtype.to_string().as_bytes());
        self.digest.add_bytes(&part.digest);
    }
}

/// Exact, and slow: for values whose squares are beyond f64.
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

/// The coordinates of the float tensors.
pub fn floats(set: &UpdateSet) -> Vec<Range<usize>> {
    let tensors = set.layout.tensors();
    let is_float = |tensor: &usize| tensors[*tensor].dtype.kind() == Kind::Float;
    (0..tensors.len()).filter(is_float).map(|tensor| set.layout.coordinates(tensor)).collect()
}
