//! Measures each update by itself: non-finite values, largest magnitude, norm; and its angle to the
//! coordinate median of all.

use crate::engine::intake::admit::UpdateSet;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::blocks::add_rows;
use crate::engine::passes::drive::{InTileOrder, PassError, for_each_tile};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::Workspace;
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::Element;
use crate::kernels::finite::{all_finite, non_finite};
use crate::kernels::lanes::Isa;
use crate::kernels::norms::{dot, largest_magnitude, squared_norm};
use crate::model::dtype::{Kind, Working};
use crate::model::tile::Rows;
use crate::telemetry::progress::Progress;
use half::{bf16, f16};
use rayon::ThreadPool;

/// What one update measures.
#[derive(Clone, Default, Debug)]
pub struct Measured {
    /// Values that are NaN or infinite.
    pub non_finite: u64,
    /// Coordinate and value of the first of them.
    pub first_non_finite: Option<(usize, f64)>,
    /// The largest magnitude among finite floats.
    pub max_abs: f64,
    /// Squared L2 norm of its delta (with a base), else of its values; floats only. NaN if some are not finite.
    pub squared_norm: f64,
}

/// A pass that measures.
pub struct Survey<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates.
    pub set: &'a UpdateSet,
    /// The threads to run on.
    pub pool: &'a ThreadPool,
    /// Told about every tile.
    pub progress: &'a Progress,
}

impl Survey<'_> {
    /// Measures every update, in one read.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub fn measure(&self) -> Result<Vec<Measured>, PassError> {
        let none = vec![Measured::default(); self.set.clients.len()];
        self.each_tile(
            none,
            |all, tile: Vec<Measured>| fold_measured(all, &tile),
            |space, tile| match tile.working {
                Working::BF16 => self.measure_rows::<bf16>(space, tile),
                Working::F16 => self.measure_rows::<f16>(space, tile),
                Working::F32 => self.measure_rows::<f32>(space, tile),
                Working::F64 => self.measure_rows::<f64>(space, tile),
            },
        )
    }

    /// The cosine of the angle between each delta and the coordinate median of all deltas, given
    /// their squared norms, in one read. Every update is finite. None where a vector is zero.
    ///
    /// # Errors
    ///
    /// When an update cannot be read.
    pub fn cosines_to_median(&self, squared_norms: &[f64]) -> Result<Vec<Option<f64>>, PassError> {
        let clients = self.set.clients.len();
        // The last sum is the median's own squared norm.
        let mut sums = self.each_tile(
            vec![0.0; clients + 1],
            |sums, parts: Vec<f64>| add_rows(sums, &parts),
            |space, tile| match tile.working {
                Working::BF16 => self.dots::<bf16>(space, tile),
                Working::F16 => self.dots::<f16>(space, tile),
                Working::F32 => self.dots::<f32>(space, tile),
                Working::F64 => self.dots::<f64>(space, tile),
            },
        )?;
        let median = sums.pop().unwrap_or(0.0);
        let cosine = |(dot, norm): (f64, &f64)| {
            let product = (norm * median).sqrt();
            (product > 0.0).then(|| (dot / product).clamp(-1.0, 1.0))
        };
        Ok(sums.into_iter().zip(squared_norms).map(cosine).collect())
    }

    fn each_tile<T: Send, S: Send>(
        &self,
        sum: S,
        fold: fn(&mut S, T),
        visit: impl Fn(&mut Workspace, &Tile) -> Result<T, PassError> + Sync,
    ) -> Result<S, PassError> {
        let plan = TilePlan::new(self.set, self.set.clients.len());
        let sum = InTileOrder::new(sum, fold);
        for_each_tile(
            self.pool,
            &plan,
            || Workspace::new(self.isa, self.set, &plan),
            |space, tile| {
                sum.add(tile.number, visit(space, tile)?);
                let bytes = self.set.clients.len() * tile.coordinates.len() * tile.dtype.bytes();
                self.progress.advance(bytes as u64);
                Ok::<_, PassError>(())
            },
        )?;
        Ok(sum.finish())
    }

    fn measure_rows<E: Element>(
        &self,
        space: &mut Workspace,
        tile: &Tile,
    ) -> Result<Vec<Measured>, PassError> {
        self.read::<E>(space, tile)?;
        let rows = space.rows::<E>(tile, self.set.clients.len());
        let measure = |row: usize| {
            let values = rows.row(row);
            let mut measured = Measured::default();
            if tile.dtype.kind() != Kind::Float {
                return measured;
            }
            if all_finite(self.isa, values) {
                measured.max_abs = largest_magnitude(self.isa, values);
                measured.squared_norm = squared_norm(self.isa, values, space.base_of(row));
            } else {
                measured = measure_non_finite(values, tile.coordinates.start);
            }
            measured
        };
        Ok((0..rows.len()).map(measure).collect())
    }

    fn dots<E: Element>(&self, space: &mut Workspace, tile: &Tile) -> Result<Vec<f64>, PassError> {
        if tile.dtype.kind() != Kind::Float {
            return Ok(Vec::new());
        }
        self.read::<E>(space, tile)?;
        space.subtract_base::<E>(tile, &self.everyone());
        let rows = space.rows::<E>(tile, self.set.clients.len());
        let median = self.median_delta(&rows, space.base_of(0));
        let row_dot = |row| dot(self.isa, rows.row(row), space.base_of(row), &median);
        let mut sums: Vec<f64> = (0..rows.len()).map(row_dot).collect();
        sums.push(squared_norm(self.isa, &median, &[]));
        Ok(sums)
    }

    fn everyone(&self) -> Vec<usize> {
        (0..self.set.clients.len()).collect()
    }

    /// Reads all rows of a tile, and the base's.
    fn read<E: Element>(&self, space: &mut Workspace, tile: &Tile) -> Result<(), PassError> {
        space.read_base(tile)?;
        space.read::<E>(tile, &self.everyone())
    }

    fn median_delta<E: Element>(&self, rows: &Rows<E>, base: &[f64]) -> Vec<f64> {
        let mut median = vec![0.0; rows.columns()];
        coordinate_median(self.isa, rows, &mut median);
        for (median, base) in median.iter_mut().zip(base) {
            *median -= base;
        }
        median
    }
}

/// What a row with values that are not finite measures; its first coordinate is `start`.
pub(crate) fn measure_non_finite<E: Element>(values: &[E], start: usize) -> Measured {
    let mut measured = Measured { squared_norm: f64::NAN, ..Measured::default() };
    for column in non_finite(values) {
        measured.non_finite += 1;
        measured.first_non_finite.get_or_insert((start + column, values[column].widen()));
    }
    let finite = values.iter().map(|x| x.widen().abs()).filter(|x| x.is_finite());
    measured.max_abs = finite.fold(0.0, f64::max);
    measured
}

/// Adds what a later tile measures.
pub(crate) fn fold_measured(all: &mut [Measured], tile: &[Measured]) {
    for (all, tile) in all.iter_mut().zip(tile) {
        all.add(tile);
    }
}

impl Measured {
    /// Adds what later coordinates measure.
    pub(crate) fn add(&mut self, later: &Self) {
        self.non_finite += later.non_finite;
        self.first_non_finite = self.first_non_finite.or(later.first_non_finite);
        self.max_abs = self.max_abs.max(later.max_abs);
        self.squared_norm += later.squared_norm;
    }

    /// The fault of an update with non-finite values.
    pub fn fault(&self, set: &UpdateSet) -> Option<Fault> {
        let (coordinate, value) = self.first_non_finite?;
        let (tensor, index) = set.layout.locate(coordinate);
        Some(Fault::NonFinite { tensor: tensor.name.clone(), index, value, count: self.non_finite })
    }
}

/// The faults of the clients with non-finite values, by their place in the set.
pub fn non_finite_faults(set: &UpdateSet, measured: &[Measured]) -> Vec<(usize, Fault)> {
    let fault = |(i, measured): (usize, &Measured)| Some((i, measured.fault(set)?));
    measured.iter().enumerate().filter_map(fault).collect()
}
