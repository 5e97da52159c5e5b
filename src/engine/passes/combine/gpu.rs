//! The second pass on the GPU: tiles go through the slots of its ring, and the CPU encodes them.

use crate::engine::passes::blocks::{add_rows, add_times};
use crate::engine::passes::combine::reducer::GpuReduction;
use crate::engine::passes::combine::spot_check::SpotCheck;
use crate::engine::passes::combine::weighted_sum::WeightedSum;
use crate::engine::passes::combine::{CombinePass, CombineWorker, TileWork, Write};
use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::{self, GpuRing, GpuShare, ReferenceRow};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::TilePass;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::gpu::job::{CombineJob, GpuError, LEAST_MAGNITUDE, MOST_MAGNITUDE, Reduction, TileShape};
use crate::gpu::step::StepJob;
use crate::gpu::{CombineProgram, RingSlot};
use crate::kernels::element::Element;
use crate::kernels::server_step::ServerStep;
use crate::model::dtype::Working;
use crate::model::state::StateTensor;
use crate::rules::OrderStatistic;
use crate::updates::set::ValueKind;
use half::{bf16, f16};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What the GPU merged: the squared norms of deltas, their rounding, and the merged ranges.
type DoneOnGpu = ([Vec<f64>; 2], Vec<Range<usize>>);

impl CombinePass<'_> {
    /// Merges the coordinates that the GPU takes. Returns the squared norms of their deltas, their rounding, and the
    /// merged ranges. If the GPU fails and the CPU may take over, the run stops using the GPU.
    pub(super) fn run_on_gpu(&self, machine: &Machine, write: &Write) -> Result<DoneOnGpu, PassError> {
        let clients = self.set.clients.len();
        let (Some(ring), Ok(reduction)) = (machine.gpu(), self.reducer.on_gpu()) else {
            return Ok(([Vec::new(), Vec::new()], Vec::new()));
        };
        let (mut sums, mut all) = (zero_sums(clients), Vec::new());
        for mut share in gpu_ring::shares(self.set) {
            share.ranges = share.ranges.into_iter().map(|range| self.within(range)).collect();
            let done = Mutex::new(Vec::new());
            let found = self.run_share(machine, &ring, &share, reduction, write, &done);
            all.append(&mut done.into_inner().unwrap_or_else(PoisonError::into_inner));
            match found {
                Ok(of_share) => add_sums(&mut sums, &of_share),
                Err(PassError::Gpu(why)) if ring.falls_back => {
                    // A GPU that computes one value wrong may compute all wrong, and sums are of whole shares.
                    let has_step = self.step != ServerStep::PLAIN;
                    let has_sums = self.with_norms || self.set.rounds_narrow() || has_step;
                    if matches!(why, GpuError::Wrong { .. }) || has_sums {
                        (sums, all) = (zero_sums(clients), Vec::new());
                    }
                    machine.give_up_gpu(why);
                    break;
                }
                Err(why) => return Err(why),
            }
        }
        Ok((sums, all))
    }

    fn run_share(
        &self,
        machine: &Machine,
        ring: &GpuRing,
        share: &GpuShare,
        reduction: GpuReduction,
        write: &Write,
        done: &Mutex<Vec<Range<usize>>>,
    ) -> Result<[Vec<f64>; 2], PassError> {
        let kept = ring.kept_shape(share.stored);
        // Tiles that stayed since the first pass have no rows for the state of the step.
        let step = if kept.is_none() { self.step_job(reduction) } else { None };
        let readers = reduction.clients();
        let (clients, chosen, references): (Vec<usize>, Vec<usize>, _) = match kept {
            Some(_) => {
                ((0..self.set.clients.len()).collect(), readers.to_vec(), gpu_ring::references(self.set))
            }
            None => {
                (readers.to_vec(), (0..readers.len()).collect(), self.references(reduction, step.as_ref()))
            }
        };
        let scratch = reduction.mixtures() + step.map_or(0, |step| 1 + step.moments());
        let (stored, rows) = (share.stored, clients.len());
        let shape = match kept {
            Some(shape) => shape,
            None => TileShape {
                rows,
                stored,
                references: references.len(),
                columns: ring.columns(rows, stored, references.len(), scratch)?,
            },
        };
        let less_base = |client: &usize| gpu_ring::is_less_base(self.set, *client);
        let job = CombineJob {
            chosen: chosen.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)).collect(),
            norms: self.with_norms.then(|| readers.iter().map(less_base).collect()),
            step,
            ..self.job(reduction, shape)
        };
        let on_gpu = CombineOnGpu {
            pass: self,
            machine,
            ring,
            plan: gpu_ring::plan(self.set, share, shape.columns),
            program: CombineProgram::new(ring.gpu(), &job)?,
            reduction,
            rows: SlotRows { clients, references },
            stored,
            has_kept_tiles: kept.is_some(),
            step,
            write,
            done,
        };
        machine.run_on(ring.lanes(), &on_gpu)
    }

    /// The reference rows that the GPU needs beside the clients' rows.
    fn references(&self, reduction: GpuReduction, step: Option<&StepJob>) -> Vec<ReferenceRow> {
        if step.is_some() {
            return self.step_references();
        }
        let is_needed = self.with_norms || reduction.mixtures() > 0;
        let references = gpu_ring::references(self.set).into_iter();
        references.filter(|row| is_needed && *row == ReferenceRow::Base).collect()
    }

    /// The server's step, if the GPU can apply it: without a centre in the sum or in the state.
    fn step_job(&self, reduction: GpuReduction) -> Option<StepJob> {
        let has_moments_alone = self.keeps.iter().all(|kept| kept.slot.is_moment());
        if self.step == ServerStep::PLAIN || !has_moments_alone || self.set.base.is_none() {
            return None;
        }
        let (scale, of_base) = match reduction {
            GpuReduction::Sum(sum) if sum.centre != 0.0 => return None,
            GpuReduction::Sum(sum) => (sum.divisor.recip(), sum.base / sum.divisor),
            GpuReduction::Select(_) => (1.0, 0.0),
        };
        let brings_base = if self.set.value_kind == ValueKind::AsSent { 1.0 } else { 0.0 };
        Some(StepJob { step: self.step, scale, less_base: brings_base - of_base })
    }

    /// The reference rows of the step: the base, then its state tensors, in the order of the shader.
    fn step_references(&self) -> Vec<ReferenceRow> {
        let place = |slot: &StateTensor| self.keeps.iter().position(|kept| kept.slot == *slot);
        let moments = [StateTensor::Momentum, StateTensor::SecondMoment];
        let kept = moments.iter().filter_map(place).map(ReferenceRow::Kept);
        [ReferenceRow::Base].into_iter().chain(kept).collect()
    }

    /// The reduction of rows. The caller fills in which rows it reads.
    fn job(&self, reduction: GpuReduction, shape: TileShape) -> CombineJob {
        let none = CombineJob {
            shape,
            chosen: Vec::new(),
            weights: Vec::new(),
            mixing: None,
            reduction: Reduction::WeightedSum,
            norms: None,
            step: None,
        };
        match reduction {
            GpuReduction::Sum(sum) => CombineJob { weights: sum.weights.clone(), ..none },
            GpuReduction::Select(select) => CombineJob {
                reduction: match select.statistic {
                    OrderStatistic::Median => Reduction::Median,
                    OrderStatistic::TrimmedMean { cut } => Reduction::TrimmedMean { cut },
                    OrderStatistic::MeanNearMedian { kept } => Reduction::MeanNearMedian { kept },
                },
                mixing: select.mixing.map(|mixing| gpu_ring::mixtures(self.set, mixing, &select.clients)),
                ..none
            },
        }
    }
}

/// A slot of the ring, and the buffers of its thread.
struct CombineLane<'a> {
    slot: RingSlot<'a>,
    host: CombineWorker<'a>,
    check: SpotCheck<'a>,
    merged: Vec<f64>,
}

/// The rows of a slot, in order: of clients, then references.
struct SlotRows {
    clients: Vec<usize>,
    references: Vec<ReferenceRow>,
}

/// The tiles of one share of the coordinates, and the compiled program.
struct CombineOnGpu<'a> {
    pass: &'a CombinePass<'a>,
    machine: &'a Machine<'a>,
    ring: &'a GpuRing,
    plan: TilePlan,
    program: CombineProgram,
    reduction: GpuReduction<'a>,
    rows: SlotRows,
    stored: Working,
    /// Whether tiles stayed on the GPU since the first pass.
    has_kept_tiles: bool,
    /// The server's step; `None` if the CPU applies it.
    step: Option<StepJob>,
    write: &'a Write<'a>,
    /// The ranges that the GPU merges and the run writes.
    done: &'a Mutex<Vec<Range<usize>>>,
}

impl TilePass for CombineOnGpu<'_> {
    type Worker<'p>
        = Result<CombineLane<'p>, GpuError>
    where
        Self: 'p;
    /// Squared norms of the clients' deltas, and the rounding.
    type Part = [Vec<f64>; 2];
    type Sum = [Vec<f64>; 2];

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> Result<CombineLane<'_>, GpuError> {
        let isa = self.machine.isa;
        Ok(CombineLane {
            slot: RingSlot::for_combine(self.ring.gpu(), &self.program)?,
            host: self.pass.new_worker(isa, &self.plan),
            check: SpotCheck::new(isa, self.pass.set, self.reduction, &self.plan),
            merged: Vec::new(),
        })
    }

    fn tile(
        &self,
        lane: &mut Result<CombineLane, GpuError>,
        tile: &Tile,
    ) -> Result<[Vec<f64>; 2], PassError> {
        let lane = lane.as_mut().map_err(|why| why.clone())?;
        let sums = match self.stored {
            Working::BF16 => self.merge::<bf16>(lane, tile)?,
            Working::F16 => self.merge::<f16>(lane, tile)?,
            _ => self.merge::<f32>(lane, tile)?,
        };
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(tile.coordinates.clone());
        Ok(sums)
    }

    fn start(&self) -> [Vec<f64>; 2] {
        zero_sums(self.pass.set.clients.len())
    }

    fn add(&self, sum: &mut [Vec<f64>; 2], _: &Tile, part: [Vec<f64>; 2]) {
        add_sums(sum, &part);
    }

    fn clock(&self, lane: &Result<CombineLane, GpuError>) -> Clock {
        lane.as_ref().map_or_else(|_| Clock::default(), |lane| lane.host.reader.clock)
    }
}

impl CombineOnGpu<'_> {
    /// Merges one tile and hands it to the writer. Returns the squared norms of its deltas, and its rounding.
    fn merge<E: Element>(&self, lane: &mut CombineLane, tile: &Tile) -> Result<[Vec<f64>; 2], PassError> {
        let kept = self.ring.kept_tile(self.stored, tile.number).filter(|_| self.has_kept_tiles);
        if kept.is_none() {
            if self.step.is_some() {
                self.work(lane, tile).read_kept()?;
            }
            let (slot, CombineWorker { reader, kept, .. }) = (&mut lane.slot, &mut lane.host);
            gpu_ring::fill::<E>(slot, reader, tile, &self.rows.clients, &self.rows.references, kept)?;
        }
        let started = Instant::now();
        let found = lane.slot.combine(&self.program, kept.as_deref(), &mut lane.merged)?;
        lane.host.reader.clock.compute += started.elapsed();
        if found.largest.is_infinite() {
            return Err(PassError::NonFinite);
        }
        let is_exact = matches!(self.reduction, GpuReduction::Select(select) if select.is_exact());
        let largest = f64::from(found.largest) * self.pass.reducer.stretch().max(1.0);
        let is_large = largest > MOST_MAGNITUDE.into();
        let is_small = found.largest > 0.0 && found.largest < LEAST_MAGNITUDE;
        let lacks_norms = found.squared_norms.iter().any(|norm| !norm.is_finite());
        if lacks_norms || ((is_large || is_small) && (!is_exact || self.step.is_some())) {
            return self.merge_on_cpu(tile);
        }
        lane.check.compare::<E>(tile, self.reduction, &lane.merged, self.ring.gpu())?;
        match &self.step {
            Some(step) => self.finish_stepped(lane, tile, step, &found.stepped)?,
            None => self.finish_tile(lane, tile)?,
        }
        self.pass.hand_on(self.machine, &mut lane.host, tile, self.write)?;
        Ok([found.squared_norms, std::mem::take(&mut lane.host.rounding)])
    }

    fn work<'w, 'l>(&'w self, lane: &'w mut CombineLane<'l>, tile: &'w Tile) -> TileWork<'w, 'l> {
        TileWork { isa: self.machine.isa, tile, pass: self.pass, worker: &mut lane.host }
    }

    /// Checks a sample of the values after the server's step, and encodes all of them.
    fn finish_stepped(
        &self,
        lane: &mut CombineLane,
        tile: &Tile,
        step: &StepJob,
        stepped: &[Vec<f32>],
    ) -> Result<(), PassError> {
        let kept = self.rows.references.iter().filter_map(|reference| match reference {
            ReferenceRow::Kept(place) => Some(*place),
            ReferenceRow::Base | ReferenceRow::Centre => None,
        });
        let kept: Vec<usize> = kept.collect();
        let CombineLane { host, check, merged, .. } = &mut *lane;
        let before: Vec<&[f32]> =
            kept.iter().map(|place| bytemuck::cast_slice(host.kept[*place].row(0))).collect();
        let gpu = self.ring.gpu();
        check.compare_step(tile, step, (merged, host.reader.base(), &before), stepped, gpu)?;
        let started = Instant::now();
        let mut work = self.work(lane, tile);
        let all = 0..work.columns();
        for (place, values) in kept.iter().zip(&stepped[1..]) {
            work.keep(self.pass.keeps[*place].slot, &all, values)?;
        }
        work.encode(all, &stepped[0])?;
        lane.host.reader.clock.compute += started.elapsed();
        Ok(())
    }

    /// Adds the terms that the GPU leaves out, and encodes the values.
    fn finish_tile(&self, lane: &mut CombineLane, tile: &Tile) -> Result<(), PassError> {
        let mut merged = std::mem::take(&mut lane.merged);
        let mut work = self.work(lane, tile);
        work.read_kept()?;
        if self.pass.uses_base() || self.pass.measures_rounding(tile.dtype) {
            work.reader().read_finite_base(tile)?;
        }
        let started = Instant::now();
        if let GpuReduction::Sum(sum) = self.reduction {
            finish_sum(&mut work, sum, &mut merged)?;
        }
        work.finish(&mut merged)?;
        lane.host.reader.clock.compute += started.elapsed();
        lane.merged = merged;
        Ok(())
    }

    /// Merges a tile on the CPU, if its values are too large or too small for sums in f32.
    fn merge_on_cpu(&self, tile: &Tile) -> Result<[Vec<f64>; 2], PassError> {
        let (isa, set, pass) = (self.machine.isa, self.pass.set, self.pass);
        let rows = pass.reducer.rows_at_once();
        let plan = TilePlan::of_ranges(set, rows, std::slice::from_ref(&tile.coordinates));
        let mut worker = pass.new_worker(isa, &plan);
        let mut sums = zero_sums(set.clients.len());
        for number in 0..plan.tiles() {
            let tile = plan.tile(number);
            pass.merge(isa, &mut worker, &tile)?;
            let [norms, rounding, _] = worker.take_sums();
            add_sums(&mut sums, &[norms, rounding]);
            pass.hand_on(self.machine, &mut worker, &tile, self.write)?;
        }
        Ok(sums)
    }
}

/// The sums before the first tile: squared norms of clients, and the rounding.
fn zero_sums(clients: usize) -> [Vec<f64>; 2] {
    [vec![0.0; clients], vec![0.0; 2]]
}

fn add_sums(sums: &mut [Vec<f64>; 2], parts: &[Vec<f64>; 2]) {
    sums.iter_mut().zip(parts).for_each(|(sum, part)| add_rows(sum, part));
}

fn finish_sum(work: &mut TileWork, sum: &WeightedSum, merged: &mut [f64]) -> Result<(), PassError> {
    let tile = work.tile;
    if sum.base != 0.0 {
        add_times(work.reader().base(), sum.base, merged);
    }
    if sum.centre != 0.0 {
        work.reader().read_centre(tile)?;
        add_times(work.reader().centre(), sum.centre, merged);
    }
    for x in merged {
        *x /= sum.divisor;
    }
    Ok(())
}
