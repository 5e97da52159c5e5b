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
        let step = StepAt::read(isa, self.reach, reader, tile)?;
        let alone = Alone { step, reader, tile };
        let mut counts = vec![0; tile.coordinates.len()];
        for row in 0..clients {
            alone.breaches::<E>(row, clients).iter().for_each(|breach| counts[alone.column(breach)] += 1);
        }
        let most = clients.saturating_sub(1);
        let blamed = |row: usize| {
            let mut own = alone.breaches::<E>(row, clients);
            own.retain(|breach| {
                counts[alone.column(breach)] <= most || alone.step.has_no_square(breach.value)
            });
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

/// A merged value that does not fit: its column, where the step takes it, what holds it, and the dtype there.
pub struct Misfit {
    /// The column of the tile.
    pub column: usize,
    /// Where the step takes the merged value.
    pub reached: f64,
    /// What holds the result.
    pub holder: Holder,
    /// The dtype of the result.
    pub dtype: Dtype,
}

/// The server's step at one tile.
pub struct StepAt<'t> {
    isa: Isa,
    reach: &'t Reach,
    dtype: Dtype,
    /// The moments before the step.
    m: Vec<f64>,
    v: Vec<f64>,
}

impl<'t> StepAt<'t> {
    /// The step at a tile, with the moments of the state.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub fn read(isa: Isa, reach: &'t Reach, reader: &mut TileReader, tile: &Tile) -> Result<Self, PassError> {
        let mut moment = |slot: StateTensor| -> Result<Vec<f64>, PassError> {
            let Some(kept) = reach.keeps.iter().find(|kept| kept.slot == slot) else { return Ok(Vec::new()) };
            let mut values = vec![0.0; tile.coordinates.len()];
            reader.read_kept(tile, kept, &mut values)?;
            Ok(values)
        };
        let (m, v) = (moment(StateTensor::Momentum)?, moment(StateTensor::SecondMoment)?);
        Ok(Self { isa, reach, dtype: tile.dtype, m, v })
    }

    /// The values of merged deltas that do not fit after the step, in order of column.
    pub fn misfits(&self, mut delta: Vec<f64>, base: &[f64]) -> Vec<Misfit> {
        let (mut m, mut v) = (self.m.clone(), self.v.clone());
        delta.iter_mut().for_each(|x| *x *= self.reach.stretch);
        server_step(self.isa, &self.reach.step, &mut delta, &mut m, &mut v);
        let kept = stored_dtype(self.dtype);
        let of_state = [(StateTensor::Momentum, &m), (StateTensor::SecondMoment, &v)];
        let misfit = |column: usize| {
            let of_state = of_state
                .iter()
                .filter_map(|(slot, values)| Some((Holder::State(*slot), *values.get(column)?, kept)));
            let onto_base = delta[column] + base.get(column).copied().unwrap_or(0.0);
            let mut reached = of_state.chain([(Holder::Model, onto_base, self.dtype)]);
            let (holder, reached, dtype) =
                reached.find(|(_, value, dtype)| !dtype.limits().contains(value))?;
            Some(Misfit { column, reached, holder, dtype })
        };
        (0..delta.len()).filter_map(misfit).collect()
    }

    /// Whether the square of a value does not fit the state: then it is at fault whatever others send.
    pub fn has_no_square(&self, value: f64) -> bool {
        matches!(self.reach.step, ServerStep::Adaptive { .. })
            && !stored_dtype(self.dtype).limits().contains(&(value * value))
    }
}

/// One tile, whose rows take the step alone.
struct Alone<'t, 'a> {
    step: StepAt<'t>,
    reader: &'t TileReader<'a>,
    tile: &'t Tile,
}

impl Alone<'_, '_> {
    fn column(&self, breach: &Breach) -> usize {
        breach.coordinate - self.tile.coordinates.start
    }

    /// The breaches of a row, in order.
    fn breaches<E: Element>(&self, row: usize, rows: usize) -> Vec<Breach> {
        let values = self.reader.rows::<E>(self.tile, rows);
        let (values, less) = (values.row(row), self.reader.base_of(row));
        let delta = |(column, x): (usize, &E)| x.widen() - less.get(column).copied().unwrap_or(0.0);
        let delta = values.iter().enumerate().map(delta).collect();
        let breach = |Misfit { column, reached, holder, dtype }| {
            let coordinate = self.tile.coordinates.start + column;
            Breach { coordinate, value: values[column].widen(), reached, holder, dtype }
        };
        self.step.misfits(delta, self.reader.base()).into_iter().map(breach).collect()
    }
}
