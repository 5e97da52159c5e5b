//! Takes each partial as if it were alone: its mean may look like a delta, or overflow the model.

use crate::engine::aggregate::culprits::Faulty;
use crate::engine::passes::error::PassError;
use crate::engine::passes::kind_sample::ranges;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::overflow::{Misfit, StepAt};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reach::Reach;
use crate::engine::passes::reader::TileReader;
use crate::kernels::server_step::ServerStep;
use crate::model::class::TensorClass;
use crate::model::layout::Layout;
use crate::model::state::StateTensor;
use crate::modes::tree::Partial;
use crate::modes::tree::admission::PartialFault;
use crate::updates::likely_kind::Distances;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::UpdateSet;
use crate::updates::source::Source;

/// The partials of a run, beside its updates.
pub struct EachPartial<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// The updates, the base and the layout.
    pub set: &'a UpdateSet,
    /// The partials.
    pub partials: &'a [Partial],
}

impl EachPartial<'_> {
    /// The partials of weights whose mean looks like a delta. None without a base.
    ///
    /// # Errors
    ///
    /// When a partial or the base cannot be read.
    pub fn likely_deltas(&self) -> Result<Faulty, PassError> {
        let is_weights = |i: &usize| self.partials[*i].description.kind == UpdateKind::Weights;
        let suspects: Vec<usize> = (0..self.partials.len()).filter(is_weights).collect();
        if self.set.base.is_none() || suspects.is_empty() {
            return Ok(Vec::new());
        }
        let plan = TilePlan::of_ranges(self.set, 1, &ranges(self.set.layout.parameters()));
        let mut reader = TileReader::new(self.machine.isa, self.set, &plan).without_screen();
        let mut distances = vec![Distances::default(); suspects.len()];
        let tiles = (0..plan.tiles()).map(|number| plan.tile(number));
        for tile in tiles.filter(|tile| tile.class == TensorClass::Parameter) {
            reader.read_base(&tile)?;
            for (sum, partial) in distances.iter_mut().zip(&suspects) {
                let mean = self.mean(&mut reader, &tile, *partial)?;
                sum.add(Distances::of(self.machine.isa, &mean, reader.base()));
            }
        }
        let likely =
            suspects.into_iter().zip(distances).filter(|(_, distances)| distances.is_mean_of_deltas());
        let updates = self.set.clients.len();
        Ok(likely.map(|(i, _)| (updates + i, PartialFault::LikelyDelta.into())).collect())
    }

    /// The partials whose mean the server's step takes too far at the coordinate where a pass stopped, unless it takes
    /// every input too far there.
    ///
    /// # Errors
    ///
    /// When an input, the base or the state cannot be read.
    pub fn overflowing(&self, stopped: &PassError) -> Result<Faulty, PassError> {
        let PassError::DoesNotFit { tensor, index, reach, .. } = stopped else { return Ok(Vec::new()) };
        let Some(at) = coordinate(&self.set.layout, tensor, *index) else { return Ok(Vec::new()) };
        let value = at..at + 1;
        let plan = TilePlan::of_ranges(self.set, 1, std::slice::from_ref(&value));
        let tile = plan.tile(0);
        let mut reader = TileReader::new(self.machine.isa, self.set, &plan).without_screen();
        reader.read_base(&tile)?;
        let plain = Reach { step: ServerStep::PLAIN, keeps: Vec::new(), stretch: 1.0 };
        let reach = if tile.class == TensorClass::Parameter { reach } else { &plain };
        let step = StepAt::read(self.machine.isa, reach, &mut reader, &tile)?;
        let base = reader.base().to_vec();
        let misfit = |values: &[f64], kind: UpdateKind| {
            let less = match kind {
                UpdateKind::Weights => base.first().copied().unwrap_or(0.0),
                UpdateKind::Delta => 0.0,
            };
            step.misfits(values.iter().map(|x| x - less).collect(), &base).into_iter().next()
        };
        let mut all_misfit = true;
        for (client, of) in self.set.clients.iter().enumerate() {
            let mut value = [0.0];
            reader.read_row(&tile, client, &mut value)?;
            all_misfit &= misfit(&value, of.metadata.kind).is_some();
        }
        let mut found = Vec::new();
        for (i, partial) in self.partials.iter().enumerate() {
            let mean = self.mean(&mut reader, &tile, i)?;
            match misfit(&mean, partial.description.kind) {
                Some(misfit) => found.push((i, mean[0], misfit)),
                None => all_misfit = false,
            }
        }
        let is_operators = all_misfit && reach.step != ServerStep::PLAIN;
        let blamed = found.into_iter().filter(|(_, mean, _)| !is_operators || step.has_no_square(*mean));
        let fault = |(i, mean, misfit): (usize, f64, Misfit)| {
            let Misfit { reached, holder, dtype, .. } = misfit;
            let (tensor, index) = self.set.layout.locate(at);
            let tensor = tensor.name.clone();
            let fault = PartialFault::Overflow { tensor, index, mean, reached, holder, dtype };
            (self.set.clients.len() + i, fault.into())
        };
        Ok(blamed.map(fault).collect())
    }

    /// The mean of the values that a partial sums; if it holds all values apart, the mean of those.
    fn mean(&self, reader: &mut TileReader, tile: &Tile, partial: usize) -> Result<Vec<f64>, PassError> {
        let Partial { description, sums, errors, edges, .. } = &self.partials[partial];
        let clients = description.clients.len();
        let (sources, divisor): (Vec<&Source>, f64) = match clients - edges.len() {
            _ if edges.is_empty() => (vec![sums, errors], description.total_weight()),
            0 => (edges.iter().collect(), clients as f64),
            summed => (vec![sums, errors], summed as f64),
        };
        let input = Some(self.set.clients.len() + partial);
        let (mut mean, mut values) = (vec![0.0; tile.coordinates.len()], vec![0.0; tile.coordinates.len()]);
        for source in sources {
            reader.read_source(tile, source, input, &mut values)?;
            mean.iter_mut().zip(&values).for_each(|(mean, value)| *mean += value);
        }
        mean.iter_mut().for_each(|mean| *mean /= divisor);
        Ok(mean)
    }
}

/// The coordinate of a value of the model or of a moment, by the name of its tensor.
fn coordinate(layout: &Layout, tensor: &str, index: usize) -> Option<usize> {
    let named = |name: &str| layout.tensors().iter().position(|spec| spec.name == name);
    let moments = [StateTensor::Momentum, StateTensor::SecondMoment];
    let of_state = || moments.iter().find_map(|slot| named(tensor.strip_prefix(slot.prefix())?));
    let found = named(tensor).or_else(of_state)?;
    Some(layout.coordinates(found).start + index)
}
