//! The sum of a release: clipped values, rounded to integers of one grid, plus noise.
//!
//! Integers add up exactly. So threads, tiles and the order of clients change no bit, and sums of sums are exact too.
//! The release is `unit * (sum + noise) / denominator`: a function of the noised sum and of public numbers.

use crate::budget::error::BudgetError;
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::reducer::{CpuOnly, Cut, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::engine::passes::pass::for_element;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::TileReader;
use crate::kernels::clip_integers::add_quantized;
use crate::kernels::element::Element;
use crate::kernels::integer_sum::{add_integers, to_floats};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Kind;
use crate::model::layout::Layout;
use crate::modes::dp::COLUMNS;
use crate::modes::dp::error::DpError;
use crate::modes::dp::noise::Noise;
use crate::modes::dp::sum_file::SumFile;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::telemetry::explain::Explain;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The sum of clipped clients and of sum files.
#[derive(Debug)]
pub struct ClippedSum {
    grid: Grid,
    /// The clients that count, by index in the set. The others count as zero.
    clients: Vec<usize>,
    /// The clip of each.
    clips: Vec<Clip>,
    /// The sum files of edges.
    edges: Vec<SumFile>,
    /// The sum of squares of the integers of each client, then of each sum file.
    squares: Mutex<Vec<u128>>,
}

/// The clipped sum plus noise, which may be released.
#[derive(Debug)]
pub struct NoisedSum {
    sum: ClippedSum,
    noise: Noise,
    denominator: u64,
    layout: Layout,
    /// The files of the clients that count.
    paths: Vec<PathBuf>,
}

impl ClippedSum {
    /// The sum of clients with these clips, and of the sum files of edges.
    pub fn new(grid: Grid, clips: &[Clip], edges: Vec<SumFile>) -> Self {
        let counts = |(_, clip): &(usize, Clip)| clip.treatment != Treatment::Void;
        let (clients, clips): (Vec<usize>, Vec<Clip>) =
            clips.iter().copied().enumerate().filter(counts).unzip();
        let squares = Mutex::new(vec![0; clips.len() + edges.len()]);
        Self { grid, clients, clips, edges, squares }
    }

    /// Adds all clients and sum files to the integers of a tile.
    ///
    /// # Errors
    ///
    /// When an input cannot be read.
    pub fn add<E: Element>(
        &self,
        isa: Isa,
        layout: &Layout,
        reader: &mut TileReader,
        tile: &Tile,
        integers: &mut [i64],
    ) -> Result<(), PassError> {
        let mut squares = Vec::with_capacity(self.clips.len() + self.edges.len());
        for (client, clip) in self.clients.iter().zip(&self.clips) {
            reader.read::<E>(tile, &[*client])?;
            let (rows, base) = (reader.rows::<E>(tile, 1), reader.base_of(*client));
            squares.push(add_quantized(isa, rows.row(0), base, clip.scale, integers));
        }
        let mut row = vec![0; if self.edges.is_empty() { 0 } else { integers.len() }];
        for edge in &self.edges {
            let read = edge.read(layout, tile.coordinates.clone(), &mut row);
            let path = || edge.model.path.clone();
            read.map_err(|source| PassError::Read { path: path(), input: None, source })?;
            add_integers(isa, &row, integers);
            squares.push(row.iter().map(|x| u128::from(x.unsigned_abs()).pow(2)).sum());
        }
        let mut all = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().zip(squares).for_each(|(all, more)| *all = all.saturating_add(more));
        Ok(())
    }

    /// Verifies exactly the norm of the integers of each client and sum file, as they were added. Call it before the
    /// run publishes. The norms are within the bound unless a file changed after its measurement. `paths` are the files
    /// of the clients that count.
    ///
    /// # Errors
    ///
    /// The first client or sum file whose integers exceed the bound.
    pub fn verify(&self, paths: &[PathBuf]) -> Result<(), DpError> {
        let squares = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_clients, of_edges) = squares.split_at(self.clients.len());
        let longer = paths.iter().zip(of_clients).find(|(_, squares)| !self.grid.admits(**squares));
        if let Some((path, _)) = longer {
            return Err(DpError::Longer { path: path.clone() });
        }
        let checked = self.edges.iter().zip(of_edges).try_for_each(|(edge, squares)| edge.check(*squares));
        Ok(checked?)
    }
}

/// The error of the noise.
#[derive(thiserror::Error, Debug)]
#[error("the noise cannot be drawn: {0}")]
struct NoNoise(BudgetError);

impl Explain for NoNoise {}

impl NoisedSum {
    /// A sum, its noise, and the divisor. `paths` are the files of the clients that count.
    pub fn new(sum: ClippedSum, noise: Noise, denominator: u64, layout: Layout, paths: Vec<PathBuf>) -> Self {
        Self { sum, noise, denominator, layout, paths }
    }

    /// The noised mean delta at the coordinates of a tile.
    fn release<E: Element>(&self, work: &mut TileWork, released: &mut [f64]) -> Result<(), PassError> {
        let (isa, tile) = (work.isa, work.tile);
        let mut integers = work.zeroed_integers();
        self.sum.add::<E>(isa, &self.layout, work.reader(), tile, &mut integers)?;
        let noised = self.noise.add(isa, tile.coordinates.start as u64, &mut integers);
        noised.map_err(|why| PassError::Reducer(Box::new(NoNoise(why))))?;
        to_floats(isa, &integers, self.sum.grid.unit() / self.denominator as f64, released);
        work.put_back_integers(integers);
        Ok(())
    }
}

impl Reducer for &NoisedSum {
    fn clients(&self) -> &[usize] {
        &self.sum.clients
    }

    fn rows_at_once(&self) -> usize {
        1
    }

    fn uses_base(&self) -> bool {
        true
    }

    fn cut(&self) -> Cut {
        Cut::AtMultiples(COLUMNS)
    }

    /// Integer tensors are not part of the sum: they keep the base's values.
    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        let mut released = vec![0.0; work.columns()];
        if work.tile.dtype.kind() == Kind::Float {
            for_element!(work.tile.working, E => self.release::<E>(work, &mut released))?;
        }
        work.finish(&mut released)
    }

    fn finish(&self) -> Result<(), PassError> {
        self.sum.verify(&self.paths).map_err(|why| PassError::Reducer(Box::new(why)))
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Err(CpuOnly(crate::modes::dp::CPU_ONLY))
    }
}
