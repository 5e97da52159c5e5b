//! From merged values to the model's: the server's step, what is kept for the next round, and the dtype they are
//! stored in.

use crate::engine::intake::admit::Frame;
use crate::engine::passes::combine::reducer::Method;
use crate::engine::passes::combine::{CombineError, Pass, Worker};
use crate::engine::passes::drive::PassError;
use crate::engine::passes::plan::Tile;
use crate::kernels::convert::{all_within, encode};
use crate::kernels::element::Merged;
use crate::kernels::server_step::{ServerStep, server_step};
use crate::model::dtype::{Dtype, Kind};
use crate::model::state::StateTensor;
use crate::model::state::is_kept;
use crate::model::state::stored_dtype;
use std::ops::Range;

/// Coordinates that the server steps at a time.
const STEPPED: usize = 2048;

impl Pass<'_> {
    /// Makes a block of merged values the model's, and encodes it.
    pub(crate) fn finish_block<F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        block: Range<usize>,
        merged: &mut [F],
    ) -> Result<(), CombineError> {
        if let Some(of_tier) = &mut worker.of_tier {
            of_tier[block.clone()].iter_mut().zip(&*merged).for_each(|(x, merged)| *x = merged.widen());
            return self.check_fits(merged, tile.coordinates.start + block.start, Dtype::F64);
        }
        if self.steps(tile.dtype) {
            return self.finish_stepped_block(worker, tile, block, merged);
        }
        if !self.keeps.is_empty() {
            let delta = self.delta(worker, &block, merged);
            self.keep(worker, tile, StateTensor::Centre, &block, &delta);
        }
        if self.set.frame != Frame::AsSent {
            for (merged, base) in merged.iter_mut().zip(&worker.space.base()[block.clone()]) {
                *merged = F::rounded(merged.widen() + base);
            }
        }
        self.encode(worker, tile, block, merged)
    }

    /// Takes the server's step on a block of merged values, a part at a time that stays in the first-level cache.
    fn finish_stepped_block<F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        block: Range<usize>,
        merged: &[F],
    ) -> Result<(), CombineError> {
        for start in block.clone().step_by(STEPPED) {
            let part = start..(start + STEPPED).min(block.end);
            let merged = &merged[part.start - block.start..part.end - block.start];
            let mut delta = self.delta(worker, &part, merged);
            self.keep(worker, tile, StateTensor::Centre, &part, &delta);
            match stored_dtype(tile.dtype) {
                Dtype::F64 => self.step::<f64>(worker, &part, &mut delta),
                _ => self.step::<f32>(worker, &part, &mut delta),
            }
            for (x, base) in delta.iter_mut().zip(worker.space.base().get(part.clone()).unwrap_or_default()) {
                *x += base;
            }
            self.encode(worker, tile, part, &delta)?;
        }
        Ok(())
    }

    /// Encodes a block of the model's values, if they fit.
    pub(crate) fn encode<F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        block: Range<usize>,
        values: &[F],
    ) -> Result<(), CombineError> {
        self.check_fits(values, tile.coordinates.start + block.start, tile.dtype)?;
        let bytes = block.start * tile.dtype.bytes()..block.end * tile.dtype.bytes();
        encode(self.isa, tile.dtype, values, &mut worker.encoded.row_mut(0)[bytes]);
        Ok(())
    }

    /// Whether the server takes a step of its own on tensors of a dtype: integers take what is merged.
    fn steps(&self, dtype: Dtype) -> bool {
        self.step != ServerStep::PLAIN && dtype.kind() == Kind::Float
    }

    /// Whether the base's values are needed to merge.
    pub(crate) fn uses_base(&self, method: &Method) -> bool {
        let is_plain = self.step == ServerStep::PLAIN && self.keeps.is_empty();
        !is_plain || self.set.frame != Frame::AsSent || method.uses_base()
    }

    /// Reads what is kept between rounds, as far as the step goes by it.
    pub(crate) fn read_kept(&self, worker: &mut Worker, tile: &Tile) -> Result<(), PassError> {
        let Worker { space, kept, .. } = worker;
        for (row, of) in kept.iter_mut().zip(self.keeps) {
            if !of.slot.is_moment() || !is_kept(of.slot, tile.dtype) {
                continue;
            }
            let (row, columns) = (row.row_mut(0), tile.coordinates.len());
            match stored_dtype(tile.dtype) {
                Dtype::F64 => {
                    space.read_kept::<f64>(tile, of, &mut bytemuck::cast_slice_mut(row)[..columns])?
                }
                _ => space.read_kept::<f32>(tile, of, &mut bytemuck::cast_slice_mut(row)[..columns])?,
            }
        }
        Ok(())
    }

    /// Merged values less the base, where they are not deltas.
    fn delta<F: Merged>(&self, worker: &Worker, block: &Range<usize>, merged: &[F]) -> Vec<f64> {
        let mut delta: Vec<f64> = merged.iter().map(|x| x.widen()).collect();
        if self.set.frame == Frame::AsSent {
            for (x, base) in delta.iter_mut().zip(worker.space.base().get(block.clone()).unwrap_or_default())
            {
                *x -= base;
            }
        }
        delta
    }

    /// Takes the server's step on merged deltas, with what is kept in floats of this type.
    fn step<K: Merged>(&self, worker: &mut Worker, part: &Range<usize>, delta: &mut [f64]) {
        let (mut m, mut v): (&mut [K], &mut [K]) = (&mut [], &mut []);
        for (row, kept) in worker.kept.iter_mut().zip(self.keeps) {
            let values = &mut bytemuck::cast_slice_mut::<u8, K>(row.row_mut(0))[part.clone()];
            match kept.slot {
                StateTensor::Momentum => m = values,
                StateTensor::SecondMoment => v = values,
                StateTensor::Centre | StateTensor::Control => {}
            }
        }
        server_step(self.isa, &self.step, delta, m, v);
    }

    /// Encodes a block of what a slot keeps, if it is kept.
    pub(crate) fn keep<F: Merged>(
        &self,
        worker: &mut Worker,
        tile: &Tile,
        slot: StateTensor,
        block: &Range<usize>,
        values: &[F],
    ) {
        let Some(place) = self.keeps.iter().position(|kept| kept.slot == slot) else { return };
        let dtype = stored_dtype(tile.dtype);
        let bytes = block.start * dtype.bytes()..block.end * dtype.bytes();
        encode(self.isa, dtype, values, &mut worker.kept[place].row_mut(0)[bytes]);
    }

    fn check_fits<F: Merged>(&self, merged: &[F], first: usize, dtype: Dtype) -> Result<(), CombineError> {
        let limits = dtype.limits();
        if all_within(self.isa, merged, &limits) {
            return Ok(());
        }
        let fits = |value: &F| limits.contains(&value.widen());
        let column = merged.iter().position(|value| !fits(value)).unwrap_or(0);
        let (tensor, index) = self.set.layout.locate(first + column);
        let value = merged[column].widen();
        Err(CombineError::DoesNotFit { tensor: tensor.name.clone(), index, value, dtype })
    }
}
