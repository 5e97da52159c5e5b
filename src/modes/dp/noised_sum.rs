//! The sum of a release: clipped values, rounded to integers of one grid, plus noise.
//!
//! The sum is complete, verified and on disk before the charge. After the charge, the run reads no file of a client.
//!
//! Integers add up exactly. So threads, tiles and the order of clients change no bit, and sums of sums are exact too.
//! The release is `unit * (sum + noise) / denominator`: a function of the noised sum and of public numbers.

use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::reducer::{CpuOnly, Cut, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::TileReader;
use crate::io::model_writer::WriteError;
use crate::io::publish::Staged;
use crate::kernels::clip_integers::add_quantized;
use crate::kernels::element::Element;
use crate::kernels::integer_sum::{add_integers, to_floats};
use crate::kernels::lanes::Isa;
use crate::model::layout::Layout;
use crate::modes::dp::COLUMNS;
use crate::modes::dp::clips::RowDigest;
use crate::modes::dp::error::DpError;
use crate::modes::dp::noise::Noise;
use crate::modes::dp::statistics::DpStatistics;
use crate::modes::dp::sum_file::SumFile;
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::telemetry::explain::Explain;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The sum of clipped clients and of sum files.
#[derive(Debug)]
pub struct ClippedSum<'e> {
    grid: Grid,
    /// The clients that count, by index in the set. The others count as zero.
    clients: Vec<usize>,
    /// The clip of each.
    clips: Vec<Clip>,
    /// The sum files of edges.
    edges: &'e [SumFile],
    /// The sum of squares of the integers of each client, then of each sum file.
    squares: Mutex<Vec<u128>>,
}

/// The integers of a clipped sum, in a file without a name. They are NOT private.
#[derive(Debug)]
pub struct SumOnDisk {
    file: Staged,
    path: PathBuf,
}

/// The clipped sum plus noise, which may be released.
#[derive(Debug)]
pub struct NoisedSum {
    sum: SumOnDisk,
    /// The noise to add; `None` if it is in the sum.
    noise: Option<Noise>,
    /// The value of the integer 1 in the released mean.
    unit: f64,
    /// Number of values that were cut to the range of the base's dtype.
    cut: AtomicU64,
    /// What the release does with statistics.
    statistics: DpStatistics,
}

impl SumOnDisk {
    /// Reserves the room for the integers of a model of `coordinates` coordinates, in a state directory. The file has
    /// no name, so that no crash leaves it behind.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or the disk has no room.
    pub fn create(directory: &Directory, coordinates: usize) -> Result<Self, BudgetError> {
        let path = directory.sum();
        let mut file = Staged::create_secret(&path, offset(coordinates)).map_err(BudgetError::at(&path))?;
        file.hide().map_err(BudgetError::at(&path))?;
        Ok(Self { file, path })
    }

    /// Writes the integers of a tile.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&self, tile: &Tile, integers: &[i64]) -> Result<(), PassError> {
        let written = self.file.write_at(bytemuck::cast_slice(integers), offset(tile.coordinates.start));
        Ok(written.map_err(WriteError::at(&self.path))?)
    }

    /// Reads the integers of a tile.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(super) fn read(&self, tile: &Tile, integers: &mut [i64]) -> Result<(), PassError> {
        let read = self.file.read_at(bytemuck::cast_slice_mut(integers), offset(tile.coordinates.start));
        Ok(read.map_err(WriteError::at(&self.path))?)
    }
}

/// The place of a coordinate in the file of a sum.
fn offset(coordinate: usize) -> u64 {
    (coordinate * size_of::<i64>()) as u64
}

impl<'e> ClippedSum<'e> {
    /// The sum of clients with these clips, and of the sum files of edges.
    pub fn new(grid: Grid, clips: &[Clip], edges: &'e [SumFile]) -> Self {
        let counts = |(_, clip): &(usize, Clip)| clip.treatment != Treatment::Void;
        let (clients, clips): (Vec<usize>, Vec<Clip>) =
            clips.iter().copied().enumerate().filter(counts).unzip();
        let squares = Mutex::new(vec![0; clips.len() + edges.len()]);
        Self { grid, clients, clips, edges, squares }
    }

    /// The clients that count, by index in the set.
    pub fn clients(&self) -> &[usize] {
        &self.clients
    }

    /// The clip of each client that counts.
    pub(super) fn clips(&self) -> &[Clip] {
        &self.clips
    }

    /// Adds all clients to the integers of a tile. Returns the digest of the row of each client that counts; `None` if
    /// the client cannot be read.
    ///
    /// # Errors
    ///
    /// When the base cannot be read.
    pub fn add<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        integers: &mut [i64],
    ) -> Result<Vec<Option<RowDigest>>, PassError> {
        let mut squares = Vec::with_capacity(self.clips.len());
        let mut digests = Vec::with_capacity(self.clips.len());
        for (client, clip) in self.clients.iter().zip(&self.clips) {
            match reader.read::<E>(tile, &[*client]) {
                Err(PassError::Read { .. }) => {
                    squares.push(0);
                    digests.push(None);
                    continue;
                }
                read => read?,
            }
            let (rows, base) = (reader.rows::<E>(tile, 1), reader.base_of(*client));
            squares.push(add_quantized(isa, rows.row(0), base, clip.scale, integers));
            digests.push(Some(RowDigest::of(rows.row(0))));
        }
        self.count(0, squares);
        Ok(digests)
    }

    /// Adds the sum files to the integers of a tile.
    ///
    /// # Errors
    ///
    /// When a sum file cannot be read.
    pub(super) fn add_edges(
        &self,
        isa: Isa,
        layout: &Layout,
        tile: &Tile,
        integers: &mut [i64],
    ) -> Result<(), PassError> {
        let mut row = vec![0; if self.edges.is_empty() { 0 } else { integers.len() }];
        let mut squares = Vec::with_capacity(self.edges.len());
        for edge in self.edges {
            let read = edge.read(layout, tile.coordinates.clone(), &mut row);
            let path = || edge.model.path.clone();
            read.map_err(|source| PassError::Read { path: path(), input: None, source })?;
            add_integers(isa, &row, integers);
            squares.push(row.iter().map(|x| u128::from(x.unsigned_abs()).pow(2)).sum());
        }
        self.count(self.clips.len(), squares);
        Ok(())
    }

    /// Adds the squares of a tile: of the clients from number `first` on, behind which the sum files stand.
    pub(super) fn count(&self, first: usize, squares: Vec<u128>) {
        let mut all = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        all[first..].iter_mut().zip(squares).for_each(|(all, more)| *all = all.saturating_add(more));
    }

    /// Verifies exactly the norm of the integers of each client and sum file, as they were added. Call it before the
    /// charge. `paths` are the files of the clients that count.
    ///
    /// # Errors
    ///
    /// The first client or sum file whose integers exceed the bound.
    pub fn verify(&self, paths: &[&Path]) -> Result<(), DpError> {
        let squares = self.squares.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_clients, of_edges) = squares.split_at(self.clients.len());
        let longer = paths.iter().zip(of_clients).find(|(_, squares)| !self.grid.admits(**squares));
        if let Some((path, _)) = longer {
            return Err(DpError::Longer { path: (*path).to_owned() });
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

/// Adds noise to the integers of a tile.
fn add_noise(noise: &Noise, isa: Isa, tile: &Tile, integers: &mut [i64]) -> Result<(), PassError> {
    let noised = noise.add(isa, tile.coordinates.start as u64, integers);
    noised.map_err(|why| PassError::Reducer(Box::new(NoNoise(why))))
}

impl NoisedSum {
    /// A sum on a grid, its noise unless the sum holds it, and the divisor.
    pub fn new(
        sum: SumOnDisk,
        noise: Option<Noise>,
        grid: &Grid,
        denominator: u64,
        statistics: DpStatistics,
    ) -> Self {
        Self { sum, noise, unit: grid.unit() / denominator as f64, cut: AtomicU64::new(0), statistics }
    }

    /// A warning of values that were cut to the range of the base's dtype, if there are any. Prints it.
    pub fn warning(&self) -> Option<String> {
        let cut = self.cut.load(Ordering::Relaxed);
        let warning = format!("{cut} values left the range of the base's dtype, and were cut to its end");
        (cut > 0).then(|| tracing::warn!("{warning}")).map(|()| warning)
    }

    /// The noised mean delta at the coordinates of a tile.
    fn release(&self, work: &mut TileWork, released: &mut [f64]) -> Result<(), PassError> {
        let (isa, tile) = (work.isa, work.tile);
        let mut integers = work.zeroed_integers();
        self.sum.read(tile, &mut integers)?;
        if let Some(noise) = &self.noise {
            add_noise(noise, isa, tile, &mut integers)?;
        }
        to_floats(isa, &integers, self.unit, released);
        work.put_back_integers(integers);
        Ok(())
    }
}

impl Reducer for &NoisedSum {
    fn clients(&self) -> &[usize] {
        &[]
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

    /// Tensors outside the clipped vector keep the base's values.
    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        let mut released = vec![0.0; work.columns()];
        if self.statistics.clips(work.tile.class, work.tile.dtype) {
            self.release(work, &mut released)?;
        }
        work.finish(&mut released)
    }

    /// The noised sum is released, whatever its values: to cut them is post-processing, and costs nothing.
    fn cuts(&self) -> Option<&AtomicU64> {
        Some(&self.cut)
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Err(CpuOnly("a release reads one sum"))
    }
}
