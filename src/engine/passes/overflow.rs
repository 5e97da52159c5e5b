//! Finds the updates whose values the server's step takes too far.
//!
//! The step is applied to each update alone, as if its delta were the merged one. A merged delta is no further out than
//! `stretch` times the largest delta, so if the run overflowed, one of them does here too. A step that is too large for
//! every client's value at a coordinate is the operator's, and so no client's fault.

use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reach::Reach;
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::survey::{Quantity, Survey, read_all};
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::server_step::{ServerStep, server_step};
use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Kind};
use crate::model::state::{StateTensor, stored_dtype};
use crate::updates::fault::{Holder, Overflow};
use crate::updates::set::UpdateSet;

/// A value of the model or the state that does not fit.
#[derive(Clone, Copy, Debug)]
struct Breach {
    coordinate: usize,
    value: f64,
    reached: f64,
    holder: Holder,
    dtype: Dtype,
}

/// The breaches of one update: their number, and the first.
#[derive(Clone, Default, Debug)]
struct Breaches {
    count: u64,
    first: Option<Breach>,
}

/// The overflow that each update alone causes, in one read; `None` for an update that causes none.
///
/// # Errors
///
/// When an update, the base or the state cannot be read.
pub fn overflows(
    machine: &Machine,
    set: &UpdateSet,
    reach: &Reach,
) -> Result<Vec<Option<Overflow>>, PassError> {
    let found = machine.run(&Survey::new(machine, set, StepAlone { reach }))?;
    let overflow = |of: Breaches| {
        let Breach { coordinate, value, reached, holder, dtype } = of.first?;
        let (tensor, index) = set.layout.locate(coordinate);
        let tensor = tensor.name.clone();
        Some(Overflow { tensor, index, value, reached, holder, dtype, count: of.count })
    };
    Ok(found.into_iter().map(overflow).collect())
}

/// Applies the server's step to each update alone.
struct StepAlone<'a> {
    reach: &'a Reach,
}

impl Quantity for StepAlone<'_> {
    type Value = Breaches;

    fn none(&self, clients: usize) -> Vec<Breaches> {
        vec![Breaches::default(); clients]
    }

    fn of_rows<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        clients: usize,
    ) -> Result<Vec<Breaches>, PassError> {
        if tile.dtype.kind() != Kind::Float || tile.class != TensorClass::Parameter {
            return Ok(self.none(clients));
        }
        read_all::<E>(reader, tile, clients)?;
        let moments = [StateTensor::Momentum, StateTensor::SecondMoment];
        let [m, v] = moments.map(|slot| self.read_moment(reader, tile, slot));
        let alone = Alone { isa, reach: self.reach, reader, tile, m: m?, v: v? };
        let mut counts = vec![0; tile.coordinates.len()];
        for row in 0..clients {
            alone.breaches::<E>(row, clients).iter().for_each(|breach| counts[alone.column(breach)] += 1);
        }
        let most = clients.saturating_sub(1);
        let blamed = |row: usize| {
            let mut own = alone.breaches::<E>(row, clients);
            own.retain(|breach| counts[alone.column(breach)] <= most || alone.has_no_square(breach));
            Breaches { count: own.len() as u64, first: own.first().copied() }
        };
        Ok((0..clients).map(blamed).collect())
    }

    fn add(&self, all: &mut [Breaches], tile: &[Breaches]) {
        for (all, tile) in all.iter_mut().zip(tile) {
            all.count += tile.count;
            all.first = all.first.or(tile.first);
        }
    }
}

impl StepAlone<'_> {
    /// The values of a moment before the step; empty if the step has none.
    fn read_moment(
        &self,
        reader: &mut TileReader,
        tile: &Tile,
        slot: StateTensor,
    ) -> Result<Vec<f64>, PassError> {
        let Some(kept) = self.reach.keeps.iter().find(|kept| kept.slot == slot) else {
            return Ok(Vec::new());
        };
        let mut values = vec![0.0; tile.coordinates.len()];
        reader.read_kept(tile, kept, &mut values)?;
        Ok(values)
    }
}

/// One tile, whose rows take the step alone.
struct Alone<'t, 'a> {
    isa: Isa,
    reach: &'t Reach,
    reader: &'t TileReader<'a>,
    tile: &'t Tile,
    /// The moments before the step.
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Alone<'_, '_> {
    fn column(&self, breach: &Breach) -> usize {
        breach.coordinate - self.tile.coordinates.start
    }

    /// The breaches of a row, in order.
    fn breaches<E: Element>(&self, row: usize, rows: usize) -> Vec<Breach> {
        let values = self.reader.rows::<E>(self.tile, rows);
        let (values, less) = (values.row(row), self.reader.base_of(row));
        let base = |column: usize| self.reader.base().get(column).copied().unwrap_or(0.0);
        let delta = |(column, x): (usize, &E)| {
            self.reach.stretch * (x.widen() - less.get(column).copied().unwrap_or(0.0))
        };
        let mut delta: Vec<f64> = values.iter().enumerate().map(delta).collect();
        let (mut m, mut v) = (self.m.clone(), self.v.clone());
        server_step(self.isa, &self.reach.step, &mut delta, &mut m, &mut v);
        let kept = stored_dtype(self.tile.dtype);
        let of_state = [(StateTensor::Momentum, &m), (StateTensor::SecondMoment, &v)];
        let reached = |column: usize| {
            let of_state = of_state
                .iter()
                .filter_map(move |(slot, values)| Some((Holder::State(*slot), *values.get(column)?, kept)));
            of_state.chain([(Holder::Model, base(column) + delta[column], self.tile.dtype)])
        };
        let breach = |column: usize| {
            let fits = |(_, value, dtype): &(Holder, f64, Dtype)| dtype.limits().contains(value);
            let (holder, reached, dtype) = reached(column).find(|found| !fits(found))?;
            let coordinate = self.tile.coordinates.start + column;
            Some(Breach { coordinate, value: values[column].widen(), reached, holder, dtype })
        };
        (0..values.len()).filter_map(breach).collect()
    }

    /// Whether the square of a value does not fit the state: then it is at fault whatever others send.
    fn has_no_square(&self, breach: &Breach) -> bool {
        let square = breach.value * breach.value;
        matches!(self.reach.step, ServerStep::Adaptive { .. })
            && !stored_dtype(self.tile.dtype).limits().contains(&square)
    }
}
