//! What is added up in a node of a tree, tile by tile: its clients' updates, and the partials below.

use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::blocks::blocks;
use crate::engine::passes::combine::{CombineError, SUMMED_ROWS};
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::Workspace;
use crate::kernels::convert::all_within;
use crate::kernels::element::Element;
use crate::kernels::exact_sum::add_sums;
use crate::kernels::finite::non_finite;
use crate::kernels::lanes::Isa;
use crate::kernels::trimmed_mean::trimmed_sum;
use crate::kernels::weighted_sum::add_weighted_exactly;
use crate::model::dtype::Dtype;
use crate::rules::{OrderStatistic, Recipe, Reduction};

/// What a node adds up.
#[derive(Clone, Debug)]
pub(crate) struct Addends {
    /// Every update's place in the set.
    pub(crate) clients: Vec<usize>,
    /// The weight of each update.
    weights: Vec<f64>,
    /// How many of the smallest and largest values do not join the sum; none for a weighted sum.
    apart: Option<(usize, usize)>,
    /// What the sum is divided by at the root.
    pub(crate) divisor: f64,
}

impl Addends {
    /// What a weighted mean adds up. `weights` are those of the set's updates, and of its partials' clients behind them.
    pub(crate) fn weighted(set: &UpdateSet, weights: &[f64]) -> Self {
        let ids = set.clients.iter().map(|client| client.id.as_str());
        let members = set.partials.iter().flat_map(|partial| &partial.description.clients);
        let mut all: Vec<(&str, f64)> =
            ids.chain(members.map(|member| member.id.as_str())).zip(weights.iter().copied()).collect();
        // In order of id, as all weights are added where there is no tree.
        all.sort_by_key(|(id, _)| *id);
        Self {
            clients: (0..set.clients.len()).collect(),
            weights: weights[..set.clients.len()].to_vec(),
            apart: None,
            divisor: all.iter().map(|(_, weight)| weight).sum(),
        }
    }

    /// What a trimmed mean adds up that leaves so many values out on each side.
    pub(crate) fn trimmed(set: &UpdateSet, low: usize, high: usize) -> Self {
        let members = set.partials.iter().map(|partial| partial.description.clients.len());
        let all = set.clients.len() + members.sum::<usize>();
        Self {
            clients: (0..set.clients.len()).collect(),
            weights: Vec::new(),
            apart: Some((low, high)),
            divisor: (all - low - high) as f64,
        }
    }

    /// What a recipe adds up at the root of a tree; none if it does something else.
    pub(crate) fn of(recipe: &Recipe, set: &UpdateSet) -> Option<Self> {
        match &recipe.reduction {
            Reduction::WeightedMean { weights } => Some(Self::weighted(set, weights)),
            Reduction::Select(OrderStatistic::TrimmedMean { cut }) => Some(Self::trimmed(set, *cut, *cut)),
            _ => None,
        }
    }

    /// Rows that a worker holds at once.
    pub(crate) fn rows_at_once(&self, set: &UpdateSet) -> usize {
        let edges: usize = set.partials.iter().map(|partial| partial.edges.len()).sum();
        match self.apart {
            None => SUMMED_ROWS.min(self.clients.len()).max(1),
            Some(_) => self.clients.len() + edges,
        }
    }

    /// Adds up one tile, to sums and what rounding took from them; and writes the values that stand apart to `edges`,
    /// if there are any to write to.
    pub(crate) fn add_tile<E: Element>(
        &self,
        (isa, set): (Isa, &UpdateSet),
        space: &mut Workspace,
        tile: &Tile,
        (sums, errors): (&mut Vec<f64>, &mut Vec<f64>),
        edges: &mut [Vec<f64>],
    ) -> Result<(), CombineError> {
        for values in [&mut *sums, &mut *errors] {
            values.clear();
            values.resize(tile.coordinates.len(), 0.0);
        }
        match self.apart {
            None => self.add_updates::<E>(isa, space, tile, (sums, errors))?,
            Some(apart) => self.add_middle::<E>((isa, set), apart, space, tile, (sums, errors), edges)?,
        }
        self.add_partials((isa, set), space, tile, (sums, errors))?;
        let total = |column: usize| sums[column] + errors[column];
        match (0..sums.len()).find(|column| !total(*column).is_finite()) {
            None => Ok(()),
            // Only f64 values add up to more than f64 holds.
            Some(column) if E::DTYPE == Dtype::F64 => {
                let (tensor, index) = set.layout.locate(tile.coordinates.start + column);
                Err(CombineError::SumTooLarge { tensor: tensor.name.clone(), index })
            }
            Some(_) => Err(CombineError::NonFinite),
        }
    }

    fn add_updates<E: Element>(
        &self,
        isa: Isa,
        space: &mut Workspace,
        tile: &Tile,
        (sums, errors): (&mut [f64], &mut [f64]),
    ) -> Result<(), CombineError> {
        for (clients, weights) in self.clients.chunks(SUMMED_ROWS).zip(self.weights.chunks(SUMMED_ROWS)) {
            space.read::<E>(tile, clients)?;
            space.subtract_base::<E>(tile, clients);
            let rows = space.rows::<E>(tile, clients.len());
            for block in blocks::<E>(clients.len(), sums.len()) {
                let (sums, errors) = (&mut sums[block.clone()], &mut errors[block.clone()]);
                add_weighted_exactly(isa, &rows.at(block), weights, sums, errors);
            }
        }
        Ok(())
    }

    /// Adds what is between the edges of all updates' values and all partials' edges.
    fn add_middle<E: Element>(
        &self,
        (isa, set): (Isa, &UpdateSet),
        (low, high): (usize, usize),
        space: &mut Workspace,
        tile: &Tile,
        (sums, errors): (&mut [f64], &mut [f64]),
        edges: &mut [Vec<f64>],
    ) -> Result<(), CombineError> {
        space.read::<E>(tile, &self.clients)?;
        space.subtract_base::<E>(tile, &self.clients);
        let mut row = self.clients.len();
        for i in 0..set.partials.len() {
            for edge in 0..set.partials[i].edges.len() {
                space.read_edge::<E>(tile, row, i, edge)?;
                row += 1;
                let rows = space.rows::<E>(tile, row);
                if let Some(column) = non_finite(rows.row(row - 1)).next() {
                    let value = rows.row(row - 1)[column].widen();
                    return Err(bad_partial(set, tile, i, column, value));
                }
            }
        }
        let rows = space.rows::<E>(tile, row);
        for block in blocks::<E>(row, sums.len()) {
            let (sums, errors) = (&mut sums[block.clone()], &mut errors[block.clone()]);
            let mut edges: Vec<&mut [E]> = edges
                .iter_mut()
                .map(|edge| &mut bytemuck::cast_slice_mut::<f64, E>(edge)[block.clone()])
                .collect();
            if !trimmed_sum(isa, &rows.at(block.clone()), low..row - high, &mut edges, sums, errors) {
                return Err(CombineError::NonFinite);
            }
        }
        Ok(())
    }

    fn add_partials(
        &self,
        (isa, set): (Isa, &UpdateSet),
        space: &mut Workspace,
        tile: &Tile,
        (sums, errors): (&mut [f64], &mut [f64]),
    ) -> Result<(), CombineError> {
        let (mut more, mut more_errors) = (vec![0.0; sums.len()], vec![0.0; sums.len()]);
        for (i, partial) in set.partials.iter().enumerate() {
            for (values, placement) in [(&mut more, &partial.sums), (&mut more_errors, &partial.errors)] {
                space.read_partial(tile, i, placement, values)?;
                if !all_within(isa, values, &Dtype::F64.limits()) {
                    let column = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
                    return Err(bad_partial(set, tile, i, column, values[column]));
                }
            }
            add_sums(&more, &more_errors, sums, errors);
        }
        Ok(())
    }
}

fn bad_partial(set: &UpdateSet, tile: &Tile, partial: usize, column: usize, value: f64) -> CombineError {
    let (tensor, index) = set.layout.locate(tile.coordinates.start + column);
    CombineError::BadPartial { partial, tensor: tensor.name.clone(), index, value }
}
