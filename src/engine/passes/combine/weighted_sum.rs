//! The weighted sum of rows.

use crate::engine::passes::blocks::{add_times, blocks};
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::reducer::{CpuOnly, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::engine::passes::pass::for_element;
use crate::kernels::element::Element;
use crate::kernels::weighted_sum::add_weighted_exactly;
use crate::model::dtype::Working;

/// The number of rows that a sum holds at once. More rows would make columns shorter and reads slower.
pub const SUMMED_ROWS: usize = 4;

/// A weighted sum: `(sum_i weights[i] * row_i + base * base's row + centre * earlier centre's row) / divisor`.
#[derive(Clone, Debug)]
pub struct WeightedSum {
    /// The clients, by index in the set.
    pub clients: Vec<usize>,
    /// One weight for each client.
    pub weights: Vec<f64>,
    /// The base's coefficient.
    pub base: f64,
    /// The coefficient of the centre that an earlier run left.
    pub centre: f64,
    /// The divisor of the sum.
    pub divisor: f64,
}

impl WeightedSum {
    /// The sum of some clients' rows. `weights` has one weight per client of the set. With `skips`, rows of weight 0
    /// are not read.
    pub(super) fn of(weights: &[f64], members: &[usize], skips: bool) -> Self {
        let used = |client: &usize| !skips || weights[*client] != 0.0;
        let clients: Vec<usize> = members.iter().copied().filter(used).collect();
        let weights = clients.iter().map(|client| weights[*client]).collect();
        Self { clients, weights, base: 0.0, centre: 0.0, divisor: 1.0 }
    }

    /// The weights divided by a power of two that brings their sum below one. Exact, except for weights near zero.
    fn scaled_down(&self) -> Self {
        let scale = self.divisor.log2().floor().exp2() * 2.0;
        Self {
            clients: self.clients.clone(),
            weights: self.weights.iter().map(|weight| weight / scale).collect(),
            base: self.base / scale,
            centre: self.centre / scale,
            divisor: self.divisor / scale,
        }
    }

    /// Sums a few rows at a time. A non-finite value makes the merged value non-finite.
    fn sum<E: Element>(&self, work: &mut TileWork) -> Result<(), PassError> {
        let (columns, tile) = (work.columns(), work.tile);
        let (mut sums, mut errors) = work.zeroed_sums();
        if self.base != 0.0 {
            add_times(work.reader().base(), self.base, &mut sums);
        }
        if self.centre != 0.0 {
            work.reader().read_centre(tile)?;
            add_times(work.reader().centre(), self.centre, &mut sums);
        }
        for (clients, weights) in self.clients.chunks(SUMMED_ROWS).zip(self.weights.chunks(SUMMED_ROWS)) {
            work.read::<E>(clients)?;
            let isa = work.isa;
            let rows = work.reader().rows::<E>(tile, weights.len());
            for block in blocks::<E>(weights.len(), columns) {
                let (sums, errors) = (&mut sums[block.clone()], &mut errors[block.clone()]);
                add_weighted_exactly(isa, &rows.at(block), weights, sums, errors);
            }
            work.measure_norms::<E>(clients);
        }
        work.finish_sums((sums, errors), self.divisor)
    }
}

impl Reducer for WeightedSum {
    fn clients(&self) -> &[usize] {
        &self.clients
    }

    fn rows_at_once(&self) -> usize {
        SUMMED_ROWS.min(self.clients.len().max(1))
    }

    fn uses_base(&self) -> bool {
        self.base != 0.0
    }

    fn stretch(&self) -> f64 {
        self.weights.iter().map(|weight| (weight / self.divisor).abs()).sum()
    }

    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        match for_element!(work.tile.working, E => self.sum::<E>(work)) {
            // The sum of values near the end of f64's range may overflow, although their mean does not.
            Err(PassError::DoesNotFit { value, .. })
                if work.tile.working == Working::F64 && !value.is_finite() =>
            {
                work.forget_norms();
                work.read_kept()?;
                self.scaled_down().sum::<f64>(work)
            }
            done => done,
        }
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Ok(GpuReduction::Sum(self))
    }
}
