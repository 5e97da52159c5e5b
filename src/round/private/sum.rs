//! The sum that is released: every client clipped and rounded to integers of one grid, and noise on top.
//!
//! Integers add up exactly, so threads, tiles and the order of clients change nothing. Noise of a coordinate hangs on the
//! key and the coordinate's number alone. What leaves is `unit * (sum + noise) / denominator`, a function of the noised sum
//! and of public numbers.

use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::quantize;
use crate::kernels::discrete_gaussian::noise;
use crate::kernels::element::Element;
use crate::kernels::integer_sum::{add_integers, to_floats};
use crate::kernels::lanes::Isa;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::privacy::key::Key;
use crate::round::passes::PassError;
use crate::round::tiles::Tile;
use crate::round::workspace::Workspace;
use std::sync::{Mutex, PoisonError};

/// What the stream of a release is for.
mod domain {
    /// Noise on the coordinates.
    pub(super) const COORDINATES: u32 = 1;
    /// Noise on the count of updates below the clip bound.
    pub(super) const COUNT: u32 = 2;
}

/// Values that are rounded at a time: they stay in the first-level cache.
const ROUNDED: usize = 2048;

/// What is done to every client, and the noise of a release.
#[derive(Debug)]
pub struct NoisedSum {
    grid: Grid,
    key: Key,
    denominator: u64,
    /// Who counts; the others count as zero.
    clients: Vec<usize>,
    /// As what.
    clips: Vec<Clip>,
    /// How the squares of each one's integers add up.
    squares: Mutex<Vec<u128>>,
}

/// A client whose integers are longer than the bound that was verified before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Longer {
    /// Its place in the set.
    pub client: usize,
}

impl NoisedSum {
    /// Of clients that were clipped so, verified before.
    pub fn new(grid: Grid, key: Key, denominator: u64, clips: &[Clip]) -> Self {
        let counts = |(_, clip): &(usize, Clip)| clip.treatment != Treatment::Void;
        let (clients, clips): (Vec<usize>, Vec<Clip>) =
            clips.iter().copied().enumerate().filter(counts).unzip();
        let squares = Mutex::new(vec![0; clips.len()]);
        Self { grid, key, denominator, clients, clips, squares }
    }

    /// Who is read.
    pub fn clients(&self) -> &[usize] {
        &self.clients
    }

    /// What the release is at the coordinates of a tile: the noised mean delta.
    ///
    /// # Errors
    ///
    /// When an update cannot be read.
    pub(in crate::round) fn release<E: Element>(
        &self,
        isa: Isa,
        space: &mut Workspace,
        tile: &Tile,
        integers: &mut Vec<i64>,
        released: &mut [f64],
    ) -> Result<(), PassError> {
        let columns = tile.coordinates.len();
        integers.resize(columns, 0);
        noise(
            isa,
            self.stream(domain::COORDINATES),
            self.grid.level(),
            tile.coordinates.start as u64,
            integers,
        );
        let mut squares = vec![0u128; self.clips.len()];
        for ((client, clip), squares) in self.clients.iter().zip(&self.clips).zip(&mut squares) {
            space.read::<E>(tile, &[*client])?;
            *squares = each_block::<E>(isa, space, tile, (*client, *clip), |start, rounded| {
                add_integers(isa, rounded, &mut integers[start..start + rounded.len()]);
            });
        }
        let mut all = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().zip(squares).for_each(|(all, more)| *all = all.saturating_add(more));
        to_floats(isa, integers, self.grid.unit() / self.denominator as f64, released);
        Ok(())
    }

    /// Checks what was added up against the bound once more: files may have changed since it was verified.
    ///
    /// # Errors
    ///
    /// The first client whose integers were longer.
    pub fn verify(&self) -> Result<(), Longer> {
        let squares = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        let longer = self.clients.iter().zip(&*squares).find(|(_, squares)| !self.grid.admits(**squares));
        longer.map_or(Ok(()), |(client, _)| Err(Longer { client: *client }))
    }

    fn stream(&self, domain: u32) -> Stream<'_> {
        Stream { key: self.key.bytes(), domain, segment: 0 }
    }

    /// Noise on a count, one integer of the same release.
    pub fn count_noise(&self, isa: Isa) -> i64 {
        let mut noised = [0];
        noise(isa, self.stream(domain::COUNT), self.grid.level(), 0, &mut noised);
        noised[0]
    }
}

/// Rounds the row of a client that was read, less the base where it holds weights, a block at a time; `take` gets where
/// each begins and its integers. Returns how their squares add up.
pub(in crate::round) fn each_block<E: Element>(
    isa: Isa,
    space: &Workspace,
    tile: &Tile,
    (client, clip): (usize, Clip),
    mut take: impl FnMut(usize, &[i64]),
) -> u128 {
    let mut rounded = [0; ROUNDED];
    let (rows, base) = (space.rows::<E>(tile, 1), space.base_of(client));
    let row = rows.row(0);
    let mut squares = 0u128;
    for start in (0..row.len()).step_by(ROUNDED) {
        let block = start..row.len().min(start + ROUNDED);
        let rounded = &mut rounded[..block.len()];
        let base = base.get(block.clone()).unwrap_or_default();
        squares = squares.saturating_add(quantize(isa, &row[block], base, clip.scale, rounded));
        take(start, rounded);
    }
    squares
}
