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

use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::drive::{InTileOrder, PassError, for_each_tile};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::Workspace;
use crate::io::digest::Blake3;
use crate::kernels::clip_integers::Squares;
use crate::kernels::element::Element;
use crate::kernels::finite::all_finite;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::squared_norm;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::model::layout::Piece;
use crate::modes::dp::noised_sum::COLUMNS;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads the updates of a set to see how they are clipped.
#[derive(Clone, Copy)]
pub struct Clips<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates, and the base that weights are less.
    pub set: &'a UpdateSet,
    /// The threads.
    pub pool: &'a ThreadPool,
    /// Told about every tile.
    pub progress: &'a Progress,
}

/// What was found of a client.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// How it is clipped.
    pub clip: Clip,
    /// The L2 norm of its delta; zero if it counts as zero.
    pub norm: f64,
    /// What names its values: a BLAKE3 digest; empty if they cannot be read.
    pub digest: String,
}

impl Clips<'_> {
    /// What is found of each client.
    ///
    /// # Errors
    ///
    /// When the base cannot be read, or a signal asked to stop.
    pub fn find(&self, grid: &Grid) -> Result<Vec<Found>, PassError> {
        let measures: Vec<Option<Measure>> = self.each_client(|_| true)?;
        let mut found: Vec<Found> =
            measures.iter().map(|measure| self.found(grid, measure.as_ref())).collect();
        let is_beyond = |client: usize| measures[client].as_ref().is_some_and(Measure::is_beyond);
        if (0..found.len()).any(is_beyond) {
            let exact: Vec<Option<Squares>> = self.each_client(is_beyond)?;
            for (found, squares) in found.iter_mut().zip(&exact) {
                if let Some(squares) = squares {
                    (found.clip, found.norm) = (grid.clip(squares, 1.0), squares.norm());
                }
            }
        }
        Ok(found)
    }

    fn found(&self, grid: &Grid, measure: Option<&Measure>) -> Found {
        let void = Found { clip: Clip::VOID, norm: 0.0, digest: String::new() };
        let Some(measure) = measure else { return void };
        let (norm, digest) = (measure.squares.sqrt(), measure.digest.hex());
        match grid.clip_of_norm(norm * self.margin(), 1.0) {
            clip if clip.treatment == Treatment::Void => Found { digest, ..void },
            clip => Found { clip, norm, digest },
        }
    }

    /// What a norm is multiplied by to be above the norm that is exact. Half of it would do for the root of a sum; the rest
    /// is for the operations behind it.
    fn margin(&self) -> f64 {
        let tensors = self.set.layout.tensors().len();
        let parts = self.set.layout.parameters().div_ceil(COLUMNS) + tensors;
        // Squares, those of a lane, lanes, parts.
        let roundings = 1 + COLUMNS.div_ceil(LANES) + LANES + parts;
        1.0 + roundings as f64 * f64::EPSILON
    }

    /// Measures those clients that count; none for one that cannot be read.
    fn each_client<M: Measured>(
        &self,
        counts: impl Fn(usize) -> bool + Sync,
    ) -> Result<Vec<Option<M>>, PassError> {
        self.progress.start("measuring", self.set.data_bytes());
        let plan = TilePlan::at_multiples(self.set, 1, &floats(self.set), COLUMNS);
        let clients = self.set.clients.len();
        let unread: Vec<AtomicBool> = (0..clients).map(|_| AtomicBool::new(false)).collect();
        let all: Vec<Option<M>> = (0..clients).map(|_| Some(M::default())).collect();
        let all = InTileOrder::new(all, |all: &mut Vec<Option<M>>, parts| add_parts(all, parts));
        let new = || Workspace::new(self.isa, self.set, &plan);
        for_each_tile(self.pool, &plan, new, |space, tile| {
            // Found now, before anything is charged.
            space.read_finite_base(tile)?;
            let mut parts = Vec::with_capacity(clients);
            for (client, unread) in unread.iter().enumerate() {
                if !counts(client) || unread.load(Ordering::Relaxed) {
                    parts.push(None);
                    continue;
                }
                let part = match self.measure::<M>(space, tile, client) {
                    Ok(part) => Some(part),
                    Err(why @ PassError::Read { .. }) => {
                        if !unread.swap(true, Ordering::Relaxed) {
                            tracing::warn!("{why}: the client counts as zero");
                        }
                        None
                    }
                    Err(why) => return Err(why),
                };
                parts.push(part);
            }
            all.add(tile.number, parts);
            self.progress.advance((clients * tile.coordinates.len() * tile.dtype.bytes()) as u64);
            Ok::<(), PassError>(())
        })?;
        Ok(all.finish())
    }

    fn measure<M: Measured>(
        &self,
        space: &mut Workspace,
        tile: &Tile,
        client: usize,
    ) -> Result<M::Part, PassError> {
        match tile.working {
            Working::BF16 => self.measure_row::<M, bf16>(space, tile, client),
            Working::F16 => self.measure_row::<M, f16>(space, tile, client),
            Working::F32 => self.measure_row::<M, f32>(space, tile, client),
            Working::F64 => self.measure_row::<M, f64>(space, tile, client),
        }
    }

    fn measure_row<M: Measured, E: Element>(
        &self,
        space: &mut Workspace,
        tile: &Tile,
        client: usize,
    ) -> Result<M::Part, PassError> {
        space.read::<E>(tile, &[client])?;
        let (rows, base) = (space.rows::<E>(tile, 1), space.base_of(client));
        let pieces = self.set.layout.pieces(tile.coordinates.clone());
        Ok(M::of_row(self.isa, rows.row(0), base, pieces))
    }
}

/// What a client's values are measured by: parts of tiles, that are added in their order.
trait Measured: Default + Send {
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

fn add_parts<M: Measured>(all: &mut [Option<M>], parts: Vec<Option<M::Part>>) {
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
struct Measure {
    squares: f64,
    /// Whether a value is no finite number.
    is_void: bool,
    digest: Blake3,
}

impl Measure {
    /// Whether the squares of finite values are beyond f64.
    fn is_beyond(&self) -> bool {
        !self.squares.is_finite() && !self.is_void
    }
}

/// The same of a row.
struct RowMeasure {
    /// Of each piece of a tensor.
    squares: Vec<f64>,
    is_void: bool,
    dtype: Dtype,
    digest: [u8; 32],
}

impl Measured for Measure {
    type Part = RowMeasure;

    fn of_row<E: Element>(
        isa: Isa,
        row: &[E],
        base: &[f64],
        pieces: impl Iterator<Item = Piece>,
    ) -> RowMeasure {
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
        RowMeasure { squares, is_void, dtype: E::DTYPE, digest }
    }

    fn add(&mut self, part: RowMeasure) {
        part.squares.iter().for_each(|squares| self.squares += squares);
        self.is_void |= part.is_void;
        self.digest.add_bytes(part.dtype.to_string().as_bytes());
        self.digest.add_bytes(&part.digest);
    }
}

/// Exact, and slow: for values whose squares are beyond f64.
impl Measured for Squares {
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
