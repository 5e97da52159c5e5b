//! Turns merged values into the model's values: the server's step, the state, the stored dtype.

use crate::engine::passes::combine::{CombinePass, TileWork};
use crate::engine::passes::error::PassError;
use crate::engine::passes::reach::Reach;
use crate::kernels::convert::{all_within, encode};
use crate::kernels::element::Merged;
use crate::kernels::server_step::{ServerStep, server_step};
use crate::model::class::TensorClass;
use crate::model::dtype::Dtype;
use crate::model::state::{StateTensor, is_kept, stored_dtype};
use crate::updates::set::ValueKind;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The number of coordinates of one part of the server's step.
const STEPPED: usize = 2048;

impl TileWork<'_, '_> {
    /// Turns a block of merged values into the model's values, and encodes them.
    pub fn finish_block<F: Merged>(
        &mut self,
        block: Range<usize>,
        merged: &mut [F],
    ) -> Result<(), PassError> {
        if let Some(captured) = &mut self.worker.captured {
            captured[block.clone()].iter_mut().zip(&*merged).for_each(|(x, merged)| *x = merged.widen());
            return self.check_fits(merged, block.start, Dtype::F64);
        }
        if self.pass.steps(self.tile.class) {
            return self.finish_stepped_block(block, merged);
        }
        if !self.pass.keeps.is_empty() {
            let delta = self.delta(&block, merged);
            self.keep(StateTensor::Centre, &block, &delta)?;
        }
        if self.pass.set.value_kind != ValueKind::AsSent {
            for (merged, base) in merged.iter_mut().zip(&self.worker.reader.base()[block.clone()]) {
                *merged = F::rounded(merged.widen() + base);
            }
        }
        self.encode(block, merged)
    }

    /// Applies the server's step to a block of merged values, in parts that stay in the first-level cache.
    fn finish_stepped_block<F: Merged>(
        &mut self,
        block: Range<usize>,
        merged: &[F],
    ) -> Result<(), PassError> {
        for start in block.clone().step_by(STEPPED) {
            let part = start..(start + STEPPED).min(block.end);
            let merged = &merged[part.start - block.start..part.end - block.start];
            let mut delta = self.delta(&part, merged);
            self.keep(StateTensor::Centre, &part, &delta)?;
            let before = squared(&delta);
            match stored_dtype(self.tile.dtype) {
                Dtype::F64 => self.step::<f64, F>(&part, &mut delta, merged)?,
                _ => self.step::<f32, F>(&part, &mut delta, merged)?,
            }
            let sums = &mut self.worker.stepped;
            sums.resize(2, 0.0);
            (sums[0], sums[1]) = (sums[0] + before, sums[1] + squared(&delta));
            let base = self.worker.reader.base().get(part.clone()).unwrap_or_default();
            for (x, base) in delta.iter_mut().zip(base) {
                *x += base;
            }
            self.encode(part, &delta)?;
        }
        Ok(())
    }

    /// Encodes a block of the model's values. Returns an error for a value that does not fit.
    pub(super) fn encode<F: Merged>(&mut self, block: Range<usize>, values: &[F]) -> Result<(), PassError> {
        let dtype = self.tile.dtype;
        let cut = self.cut(values, dtype);
        let values = cut.as_deref().unwrap_or(values);
        self.check_fits(values, block.start, dtype)?;
        let bytes = block.start * dtype.bytes()..block.end * dtype.bytes();
        encode(self.isa, dtype, values, &mut self.worker.encoded.row_mut(0)[bytes]);
        self.measure_rounding(&block, values);
        Ok(())
    }

    /// Reads the state tensors that the step uses.
    pub(super) fn read_kept(&mut self) -> Result<(), PassError> {
        let (tile, worker) = (self.tile, &mut *self.worker);
        let reader = &mut worker.reader;
        for (row, of) in worker.kept.iter_mut().zip(self.pass.keeps) {
            if !of.slot.is_moment() || !is_kept(of.slot, tile.class) {
                continue;
            }
            let (row, columns) = (row.row_mut(0), tile.coordinates.len());
            match stored_dtype(tile.dtype) {
                Dtype::F64 => {
                    reader.read_kept::<f64>(tile, of, &mut bytemuck::cast_slice_mut(row)[..columns])?
                }
                _ => reader.read_kept::<f32>(tile, of, &mut bytemuck::cast_slice_mut(row)[..columns])?,
            }
        }
        Ok(())
    }

    /// Subtracts the base from merged values that are not deltas.
    fn delta<F: Merged>(&self, block: &Range<usize>, merged: &[F]) -> Vec<f64> {
        let mut delta: Vec<f64> = merged.iter().map(|x| x.widen()).collect();
        if self.pass.set.value_kind == ValueKind::AsSent {
            let base = self.worker.reader.base().get(block.clone()).unwrap_or_default();
            for (x, base) in delta.iter_mut().zip(base) {
                *x -= base;
            }
        }
        delta
    }

    /// Applies the server's step to merged deltas, with the state in floats of this type. The new state must be finite.
    fn step<K: Merged, F: Merged>(
        &mut self,
        part: &Range<usize>,
        delta: &mut [f64],
        merged: &[F],
    ) -> Result<(), PassError> {
        let (mut m, mut v): (&mut [K], &mut [K]) = (&mut [], &mut []);
        for (row, kept) in self.worker.kept.iter_mut().zip(self.pass.keeps) {
            let values = &mut bytemuck::cast_slice_mut::<u8, K>(row.row_mut(0))[part.clone()];
            match kept.slot {
                StateTensor::Momentum => m = values,
                StateTensor::SecondMoment => v = values,
                StateTensor::Centre | StateTensor::Control => {}
            }
        }
        server_step(self.isa, &self.pass.step, delta, m, v);
        let limits = stored_dtype(self.tile.dtype).limits();
        if all_within(self.isa, m, &limits) && all_within(self.isa, v, &limits) {
            return Ok(());
        }
        // A merged value that is not finite comes first: the sum may have overflowed, and not its mean.
        self.check_fits(merged, part.start, Dtype::F64)?;
        let moments = [StateTensor::Momentum, StateTensor::SecondMoment];
        moments.iter().try_for_each(|slot| self.check_kept::<K>(*slot, part))
    }

    /// Checks the new values of a moment.
    fn check_kept<K: Merged>(&self, slot: StateTensor, part: &Range<usize>) -> Result<(), PassError> {
        let Some(place) = self.pass.keeps.iter().position(|kept| kept.slot == slot) else { return Ok(()) };
        let row = bytemuck::cast_slice::<u8, K>(self.worker.kept[place].row(0));
        self.check_state(slot, part.start, &row[part.clone()])
    }

    fn check_state<F: Merged>(&self, slot: StateTensor, first: usize, values: &[F]) -> Result<(), PassError> {
        let dtype = stored_dtype(self.tile.dtype);
        let named = |tensor: &str| (format!("{}{tensor}", slot.prefix()), "the state's new value");
        self.check(values, first, dtype, named)
    }

    /// Encodes a block of a state tensor, if the run keeps it.
    pub(super) fn keep<F: Merged>(
        &mut self,
        slot: StateTensor,
        block: &Range<usize>,
        values: &[F],
    ) -> Result<(), PassError> {
        let Some(place) = self.pass.keeps.iter().position(|kept| kept.slot == slot) else { return Ok(()) };
        self.check_state(slot, block.start, values)?;
        let dtype = stored_dtype(self.tile.dtype);
        let bytes = block.start * dtype.bytes()..block.end * dtype.bytes();
        encode(self.isa, dtype, values, &mut self.worker.kept[place].row_mut(0)[bytes]);
        Ok(())
    }

    /// The values cut to the range of a dtype; `None` if all fit, or the reducer does not cut.
    fn cut<F: Merged>(&self, values: &[F], dtype: Dtype) -> Option<Vec<F>> {
        let (count, limits) = (self.pass.reducer.cuts()?, dtype.limits());
        if all_within(self.isa, values, &limits) {
            return None;
        }
        let outside = values.iter().filter(|value| !limits.contains(&value.widen())).count();
        count.fetch_add(outside as u64, Ordering::Relaxed);
        let within = |value: &F| F::rounded(value.widen().clamp(*limits.start(), *limits.end()));
        Some(values.iter().map(within).collect())
    }

    fn check_fits<F: Merged>(&self, merged: &[F], first: usize, dtype: Dtype) -> Result<(), PassError> {
        self.check(merged, first, dtype, |tensor| (tensor.to_owned(), "the merged value"))
    }

    /// Refuses values that a dtype cannot hold. `named` has the name of the tensor, and what such a value is.
    fn check<F: Merged>(
        &self,
        values: &[F],
        first: usize,
        dtype: Dtype,
        named: impl Fn(&str) -> (String, &'static str),
    ) -> Result<(), PassError> {
        let limits = dtype.limits();
        if all_within(self.isa, values, &limits) {
            return Ok(());
        }
        let fits = |value: &F| limits.contains(&value.widen());
        let column = values.iter().position(|value| !fits(value)).unwrap_or(0);
        let (tensor, index) = self.pass.set.layout.locate(self.tile.coordinates.start + first + column);
        let (tensor, holder) = named(&tensor.name);
        let (value, reach) = (values[column].widen(), Box::new(self.pass.reach()));
        Err(PassError::DoesNotFit { tensor, index, value, dtype, holder, reach })
    }
}

impl CombinePass<'_> {
    /// How far the pass may take a merged delta.
    fn reach(&self) -> Reach {
        Reach { step: self.step, keeps: self.keeps.to_vec(), stretch: self.reducer.stretch() }
    }

    /// Whether the server's step applies to tensors of a class: statistics take the merged value.
    pub(super) fn steps(&self, class: TensorClass) -> bool {
        self.step != ServerStep::PLAIN && class == TensorClass::Parameter
    }
}

/// The squared L2 norm of values.
fn squared(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum()
}
