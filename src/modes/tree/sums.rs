//! The sum at a node of a tree, tile by tile: the clients' updates plus the partials below.

use crate::engine::passes::blocks::blocks;
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::reducer::{CpuOnly, GpuReduction, Reducer};
use crate::engine::passes::combine::weighted_sum::SUMMED_ROWS;
use crate::engine::passes::error::PassError;
use crate::engine::passes::pass::for_element;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::variances::variances_and_counters;
use crate::kernels::convert::all_within;
use crate::kernels::element::Element;
use crate::kernels::exact_sum::add_sums;
use crate::kernels::finite::non_finite;
use crate::kernels::lanes::Isa;
use crate::kernels::trimmed_mean::trimmed_sum;
use crate::kernels::weighted_sum::add_weighted_exactly;
use crate::model::dtype::Dtype;
use crate::modes::tree::Partial;
use crate::modes::tree::admission::PartialFault;
use crate::modes::tree::description::Description;
use crate::rules::{OrderStatistic, Recipe, Reduction};
use crate::updates::fault::NonFinite;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::UpdateSet;
use crate::updates::source::Placement;

/// Why sums of a tree run on the CPU.
pub(super) const CPU_ONLY: &str = "sums that do not depend on their grouping need f64";

/// The largest sum that one partial may hold, so that the sum over all partials fits f64.
const MOST_SUM: f64 = 1e302;

/// The sum at a node.
pub struct TreeSum<'a> {
    set: &'a UpdateSet,
    partials: &'a [Partial],
    clients: Vec<usize>,
    /// The weight of each update.
    weights: Vec<f64>,
    /// The number of smallest and of largest values outside the sum; `None` for a weighted sum.
    apart: Option<(usize, usize)>,
    /// The divisor of the sum at the root.
    divisor: f64,
}

/// Sums of a tile and their rounding errors: one value per column.
pub type Sums<'s> = (&'s mut [f64], &'s mut [f64]);

impl<'a> TreeSum<'a> {
    /// The sum for a weighted mean. `weights` are those of the updates, then those of the partials' clients.
    pub fn weighted(set: &'a UpdateSet, partials: &'a [Partial], weights: &[f64]) -> Self {
        let ids = set.clients.iter().map(|client| client.id.as_str());
        let members = partials.iter().flat_map(|partial| &partial.description.clients);
        let mut all: Vec<(&str, f64)> =
            ids.chain(members.map(|member| member.id.as_str())).zip(weights.iter().copied()).collect();
        // In order of client id, the order in which a run without a tree adds weights.
        all.sort_by_key(|(id, _)| *id);
        Self {
            set,
            partials,
            clients: (0..set.clients.len()).collect(),
            weights: weights[..set.clients.len()].to_vec(),
            apart: None,
            divisor: all.iter().map(|(_, weight)| weight).sum(),
        }
    }

    /// The sum for a trimmed mean that leaves out the `low` smallest and the `high` largest values.
    pub fn trimmed(set: &'a UpdateSet, partials: &'a [Partial], low: usize, high: usize) -> Self {
        let members = partials.iter().map(|partial| partial.description.clients.len());
        let all = set.clients.len() + members.sum::<usize>();
        Self {
            set,
            partials,
            clients: (0..set.clients.len()).collect(),
            weights: Vec::new(),
            apart: Some((low, high)),
            divisor: (all - low - high) as f64,
        }
    }

    /// The sum of a recipe at the root of a tree; `None` if the recipe is not a sum.
    pub fn of(recipe: &Recipe, set: &'a UpdateSet, partials: &'a [Partial]) -> Option<Self> {
        match &recipe.reduction {
            Reduction::WeightedMean { weights } => Some(Self::weighted(set, partials, weights)),
            Reduction::Select(OrderStatistic::TrimmedMean { cut }) => {
                Some(Self::trimmed(set, partials, *cut, *cut))
            }
            _ => None,
        }
    }

    /// Adds up one tile into `sums`, which must be zero. Writes the edges, the values outside the sum, to `edges` if it
    /// is not empty.
    pub(super) fn add_tile<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        (sums, errors): Sums,
        edges: &mut [Vec<f64>],
    ) -> Result<(), PassError> {
        let between = match self.apart {
            None => {
                self.add_updates::<E>(isa, reader, tile, (sums, errors))?;
                Vec::new()
            }
            Some(apart) => self.add_middle::<E>(isa, apart, reader, tile, (sums, errors), edges)?,
        };
        self.add_partials(isa, reader, tile, (sums, errors), &between)?;
        let total = |column: usize| sums[column] + errors[column];
        match (0..sums.len()).find(|column| !total(*column).is_finite()) {
            None => Ok(()),
            // Only values of f64 can overflow a sum in f64.
            Some(column) if E::DTYPE == Dtype::F64 => {
                let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
                Err(PassError::SumTooLarge { tensor: tensor.name.clone(), index })
            }
            Some(_) => Err(PassError::NonFinite),
        }
    }

    fn add_updates<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        (sums, errors): Sums,
    ) -> Result<(), PassError> {
        for (clients, weights) in self.clients.chunks(SUMMED_ROWS).zip(self.weights.chunks(SUMMED_ROWS)) {
            reader.read::<E>(tile, clients)?;
            reader.subtract_base::<E>(tile, clients);
            let rows = reader.rows::<E>(tile, clients.len());
            for block in blocks::<E>(clients.len(), sums.len()) {
                let (sums, errors) = (&mut sums[block.clone()], &mut errors[block.clone()]);
                add_weighted_exactly(isa, &rows.at(block), weights, sums, errors);
            }
        }
        Ok(())
    }

    /// Adds the values between the new edges, from all updates' values and all partials' edges. Returns the limits of
    /// the values that each partial sums.
    fn add_middle<E: Element>(
        &self,
        isa: Isa,
        (low, high): (usize, usize),
        reader: &mut TileReader,
        tile: &Tile,
        (sums, errors): Sums,
        edges: &mut [Vec<f64>],
    ) -> Result<Vec<Limits>, PassError> {
        reader.read::<E>(tile, &self.clients)?;
        reader.subtract_base::<E>(tile, &self.clients);
        let mut row = self.clients.len();
        let mut between = Vec::new();
        for (i, partial) in self.partials.iter().enumerate() {
            for edge in &partial.edges {
                reader.read_into_row::<E>(tile, row, edge, self.clients.len() + i)?;
                row += 1;
                let rows = reader.rows::<E>(tile, row);
                if let Some(column) = non_finite(rows.row(row - 1)).next() {
                    let value = rows.row(row - 1)[column].widen();
                    return Err(self.non_finite(tile, i, column, value));
                }
            }
            let rows = reader.rows::<E>(tile, row);
            let own: Vec<&[E]> = (row - partial.edges.len()..row).map(|edge| rows.row(edge)).collect();
            self.check_order(tile, i, &own)?;
            if let Some(lowest) = own.first() {
                self.check_not_negative(tile, i, |column| lowest[column].widen())?;
            }
            let Description { clients, low, .. } = &partial.description;
            between.push(Limits::between(&own, *low, clients.len() - own.len()));
        }
        let rows = reader.rows::<E>(tile, row);
        for block in blocks::<E>(row, sums.len()) {
            let (sums, errors) = (&mut sums[block.clone()], &mut errors[block.clone()]);
            let mut edges: Vec<&mut [E]> = edges
                .iter_mut()
                .map(|edge| &mut bytemuck::cast_slice_mut::<f64, E>(edge)[block.clone()])
                .collect();
            if !trimmed_sum(isa, &rows.at(block.clone()), low..row - high, &mut edges, sums, errors) {
                return Err(PassError::NonFinite);
            }
        }
        Ok(between)
    }

    fn add_partials(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        (sums, errors): Sums,
        between: &[Limits],
    ) -> Result<(), PassError> {
        let (mut more, mut more_errors) = (vec![0.0_f64; sums.len()], vec![0.0_f64; sums.len()]);
        for (i, partial) in self.partials.iter().enumerate() {
            for (values, source) in [(&mut more, &partial.sums), (&mut more_errors, &partial.errors)] {
                reader.read_source(tile, source, Some(self.clients.len() + i), values)?;
                if !all_within(isa, values, &Dtype::F64.limits()) {
                    let column = values.iter().position(|value: &f64| !value.is_finite()).unwrap_or(0);
                    return Err(self.non_finite(tile, i, column, values[column]));
                }
            }
            self.check_not_negative(tile, i, |column| more[column] + more_errors[column])?;
            let limits = between.get(i).cloned().unwrap_or_else(|| Limits::of_dtype(partial, tile.dtype));
            self.check_sums(tile, i, &limits, (&more, &more_errors))?;
            add_sums(&more, &more_errors, sums, errors);
        }
        Ok(())
    }

    /// Checks that the edges of a partial are in ascending order.
    fn check_order<E: Element>(&self, tile: &Tile, partial: usize, edges: &[&[E]]) -> Result<(), PassError> {
        for pair in edges.windows(2) {
            let unordered = |(low, high): (&E, &E)| low.widen() > high.widen();
            if let Some(column) = pair[0].iter().zip(pair[1]).position(unordered) {
                let (low, high) = (pair[0][column].widen(), pair[1][column].widen());
                return Err(self.at_fault(tile, partial, column, |tensor, index| PartialFault::Unordered {
                    tensor,
                    index,
                    low,
                    high,
                }));
            }
        }
        Ok(())
    }

    /// Checks that a partial of weights holds no variance or counter below zero.
    fn check_not_negative(
        &self,
        tile: &Tile,
        partial: usize,
        value: impl Fn(usize) -> f64,
    ) -> Result<(), PassError> {
        if self.partials[partial].description.kind == UpdateKind::Delta {
            return Ok(());
        }
        match variances_and_counters(self.set, tile).find(|column| value(*column) < 0.0) {
            None => Ok(()),
            Some(column) => {
                let found = value(column);
                Err(self.at_fault(tile, partial, column, |tensor, index| PartialFault::Negative {
                    tensor,
                    index,
                    found,
                }))
            }
        }
    }

    /// Checks that a partial's sums and rounding errors are possible for its clients.
    fn check_sums(
        &self,
        tile: &Tile,
        partial: usize,
        limits: &Limits,
        (sums, errors): (&[f64], &[f64]),
    ) -> Result<(), PassError> {
        // Each addition of a value, and of a partial below, rounds once; two more roundings are in the limits.
        let roundings = 4.0 * self.partials[partial].description.clients.len() as f64;
        for (column, (sum, error)) in sums.iter().zip(errors).enumerate() {
            let (least, most) = limits.of(column);
            let slack = roundings * (f64::EPSILON * least.abs().max(most.abs()) + f64::from_bits(1));
            let found = *sum + *error;
            // A leaf settles its sums, so their errors are below their last bit.
            let most_error = roundings * (f64::EPSILON * sum.abs() + f64::from_bits(1));
            if error.abs() > most_error {
                return Err(self.at_fault(tile, partial, column, |tensor, index| PartialFault::BadError {
                    tensor,
                    index,
                    found: *error,
                    most: most_error,
                }));
            }
            if !(least - slack..=most + slack).contains(&found) {
                return Err(self.at_fault(tile, partial, column, |tensor, index| PartialFault::BadSum {
                    tensor,
                    index,
                    found,
                    least,
                    most,
                }));
            }
        }
        Ok(())
    }

    fn non_finite(&self, tile: &Tile, partial: usize, column: usize, value: f64) -> PassError {
        let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
        let fault = NonFinite { tensor: tensor.name.clone(), index, value, count: 1 };
        PassError::BadInput { input: partial, fault: Box::new(fault) }
    }

    fn at_fault(
        &self,
        tile: &Tile,
        partial: usize,
        column: usize,
        fault: impl FnOnce(String, usize) -> PartialFault,
    ) -> PassError {
        let (tensor, index) = self.set.layout.locate(tile.coordinates.start + column);
        PassError::BadInput { input: partial, fault: Box::new(fault(tensor.name.clone(), index)) }
    }

    fn reduce_as<E: Element>(&self, work: &mut TileWork) -> Result<(), PassError> {
        let (isa, tile) = (work.isa, work.tile);
        let (mut sums, mut errors) = work.zeroed_sums();
        self.add_tile::<E>(isa, work.reader(), tile, (&mut sums, &mut errors), &mut [])?;
        work.finish_sums((sums, errors), self.divisor)
    }
}

/// The limits of a partial's sums.
#[derive(Clone)]
enum Limits {
    /// The same for all columns.
    Same(f64, f64),
    /// Those of each column.
    Each(Vec<f64>, Vec<f64>),
}

impl Limits {
    /// The limits of a sum of values between the edges, `low` of which are the smallest. Each column has them in order.
    fn between<E: Element>(edges: &[&[E]], low: usize, summed: usize) -> Self {
        let row = |edge: usize| edges[edge].iter().map(|x| summed as f64 * x.widen()).collect();
        match summed {
            0 => Self::Same(0.0, 0.0),
            _ => Self::Each(row(low - 1), row(low)),
        }
    }

    /// The limits of a weighted sum of values of a dtype, or of the differences of two such values.
    fn of_dtype(partial: &Partial, dtype: Dtype) -> Self {
        let Description { kind, .. } = &partial.description;
        let (weight, limits) = (partial.description.total_weight(), dtype.limits());
        let (least, most) = match kind {
            UpdateKind::Weights => (*limits.start(), *limits.end()),
            UpdateKind::Delta => (limits.start() - limits.end(), limits.end() - limits.start()),
        };
        Self::Same((weight * least).max(-MOST_SUM), (weight * most).min(MOST_SUM))
    }

    fn of(&self, column: usize) -> (f64, f64) {
        match self {
            Self::Same(least, most) => (*least, *most),
            Self::Each(least, most) => (least[column], most[column]),
        }
    }
}

impl Reducer for TreeSum<'_> {
    fn clients(&self) -> &[usize] {
        &self.clients
    }

    fn rows_at_once(&self) -> usize {
        let edges: usize = self.partials.iter().map(|partial| partial.edges.len()).sum();
        match self.apart {
            None => SUMMED_ROWS.min(self.clients.len()).max(1),
            Some(_) => self.clients.len() + edges,
        }
    }

    fn uses_base(&self) -> bool {
        false
    }

    fn other_rows(&self) -> Vec<&Placement> {
        self.partials.iter().flat_map(|partial| &partial.edges).map(|edge| &*edge.placement).collect()
    }

    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        for_element!(work.tile.working, E => self.reduce_as::<E>(work))
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Err(CpuOnly(CPU_ONLY))
    }
}
