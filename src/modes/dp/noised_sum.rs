//! The sum that is released: every client clipped and rounded to integers of one grid, and noise on top.
//!
//! Integers add up exactly, so threads, tiles and the order of clients change nothing, and a sum of sums is the sum of
//! all. What leaves is `unit * (sum + noise) / denominator`, a function of the noised sum and of public numbers.

use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::combine::CombineError;
use crate::engine::passes::drive::PassError;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::Workspace;
use crate::kernels::clip_integers::add_quantized;
use crate::kernels::element::Element;
use crate::kernels::integer_sum::{add_integers, to_floats};
use crate::kernels::lanes::Isa;
use crate::model::layout::Layout;
use crate::modes::dp::noise::Noise;
use crate::modes::dp::release::PrivateError;
use crate::modes::dp::sum_file::SumFile;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use std::sync::{Mutex, PoisonError};

/// Columns of a tile: its sums, the base's values and a client's stay in the second-level cache together.
pub const COLUMNS: usize = 1 << 15;

/// Clipped clients, and sums of others, to be added up.
#[derive(Debug)]
pub struct ClippedSum {
    grid: Grid,
    /// Who counts; the others count as zero.
    clients: Vec<usize>,
    /// As what.
    clips: Vec<Clip>,
    /// Sums that were made elsewhere.
    edges: Vec<SumFile>,
    /// How the squares of each one's integers add up, edges behind clients.
    squares: Mutex<Vec<u128>>,
}

/// The same with noise: what may be released.
#[derive(Debug)]
pub struct NoisedSum {
    sum: ClippedSum,
    noise: Noise,
    denominator: u64,
}

impl ClippedSum {
    /// Of clients that were clipped so, and of edges.
    pub fn new(grid: Grid, clips: &[Clip], edges: Vec<SumFile>) -> Self {
        let counts = |(_, clip): &(usize, Clip)| clip.treatment != Treatment::Void;
        let (clients, clips): (Vec<usize>, Vec<Clip>) =
            clips.iter().copied().enumerate().filter(counts).unzip();
        let squares = Mutex::new(vec![0; clips.len() + edges.len()]);
        Self { grid, clients, clips, edges, squares }
    }

    /// Who is read.
    pub fn clients(&self) -> &[usize] {
        &self.clients
    }

    /// Adds all of them to the integers of a tile.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub(crate) fn add<E: Element>(
        &self,
        isa: Isa,
        layout: &Layout,
        space: &mut Workspace,
        tile: &Tile,
        integers: &mut [i64],
    ) -> Result<(), PassError> {
        let mut squares = Vec::with_capacity(self.clips.len() + self.edges.len());
        for (client, clip) in self.clients.iter().zip(&self.clips) {
            space.read::<E>(tile, &[*client])?;
            let (rows, base) = (space.rows::<E>(tile, 1), space.base_of(*client));
            squares.push(add_quantized(isa, rows.row(0), base, clip.scale, integers));
        }
        let mut row = vec![0; if self.edges.is_empty() { 0 } else { integers.len() }];
        for edge in &self.edges {
            let read = edge.read(layout, tile.coordinates.clone(), &mut row);
            let path = || edge.model.path.clone();
            read.map_err(|source| PassError::Read { path: path(), client: None, source })?;
            add_integers(isa, &row, integers);
            squares.push(row.iter().map(|x| u128::from(x.unsigned_abs()).pow(2)).sum());
        }
        let mut all = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().zip(squares).for_each(|(all, more)| *all = all.saturating_add(more));
        Ok(())
    }

    /// Verifies the norm of the integers of each client and edge, those that were added: exactly. Nothing may be published
    /// before. Clients' scales keep them within the bound unless files changed since they were measured.
    ///
    /// # Errors
    ///
    /// The first client or edge whose integers were longer.
    pub(crate) fn verify(&self, set: &UpdateSet) -> Result<(), PrivateError> {
        let squares = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_clients, of_edges) = squares.split_at(self.clients.len());
        let longer = self.clients.iter().zip(of_clients).find(|(_, squares)| !self.grid.admits(**squares));
        if let Some((client, _)) = longer {
            return Err(PrivateError::Longer { path: set.clients[*client].model.path.clone() });
        }
        let checked = self.edges.iter().zip(of_edges).try_for_each(|(edge, squares)| edge.check(*squares));
        Ok(checked?)
    }
}

impl NoisedSum {
    /// A sum, what is added to it, and what it is divided by.
    pub fn new(sum: ClippedSum, noise: Noise, denominator: u64) -> Self {
        Self { sum, noise, denominator }
    }

    /// The sum without noise.
    pub fn sum(&self) -> &ClippedSum {
        &self.sum
    }

    /// What the release is at the coordinates of a tile: the noised mean delta.
    ///
    /// # Errors
    ///
    /// When an update, or noise of earlier rounds, cannot be read.
    pub(crate) fn release<E: Element>(
        &self,
        isa: Isa,
        layout: &Layout,
        space: &mut Workspace,
        tile: &Tile,
        integers: &mut Vec<i64>,
        released: &mut [f64],
    ) -> Result<(), CombineError> {
        integers.clear();
        integers.resize(tile.coordinates.len(), 0);
        self.sum.add::<E>(isa, layout, space, tile, integers)?;
        let noised = self.noise.add(isa, tile.coordinates.start as u64, integers);
        noised.map_err(|why| CombineError::Noise(Box::new(why)))?;
        to_floats(isa, integers, self.sum.grid.unit() / self.denominator as f64, released);
        Ok(())
    }
}
