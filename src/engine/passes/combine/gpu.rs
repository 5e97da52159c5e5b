//! The second pass on a device: tiles go through the slots of its ring, what comes back is finished as on the CPU.

use crate::engine::intake::admit::Frame;
use crate::engine::passes::blocks::{add_rows, add_times, blocks};
use crate::engine::passes::combine::reducer::{Method, Select, Sum};
use crate::engine::passes::combine::spot_check::SpotCheck;
use crate::engine::passes::combine::{CombineError, Pass, Worker};
use crate::engine::passes::drive::{Clock, InTileOrder, PassError, for_each_tile};
use crate::engine::passes::gpu_ring::{self, Device, Part, Reference};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::gpu::job::{CombineJob, GpuError, MOST_MAGNITUDE, Reduction, TileShape};
use crate::gpu::step::StepJob;
use crate::gpu::{CombineProgram, RingSlot};
use crate::kernels::element::Element;
use crate::kernels::server_step::ServerStep;
use crate::model::dtype::Working;
use crate::model::state::StateTensor;
use crate::rules::OrderStatistic;
use half::{bf16, f16};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What a device did of a pass.
pub(crate) struct OnDevice {
    /// Squared norms of the coordinates that it did.
    pub(crate) squared_norms: Vec<f64>,
    /// Where the time went.
    pub(crate) clock: Clock,
    /// The coordinates that it did and nobody has to do again.
    pub(crate) done: Vec<Range<usize>>,
    /// Why it stopped, if it did.
    pub(crate) failure: Option<GpuError>,
}

impl OnDevice {
    fn nothing(clients: usize) -> Self {
        Self { squared_norms: vec![0.0; clients], clock: Clock::default(), done: Vec::new(), failure: None }
    }
}

/// A slot and what its thread needs besides.
struct Lane<'a> {
    slot: RingSlot<'a>,
    host: Worker<'a>,
    check: SpotCheck<'a>,
    merged: Vec<f64>,
}

/// One part of the coordinates, compiled.
struct Compiled<'a> {
    device: &'a Device,
    program: CombineProgram,
    /// Whose rows are in a slot, in order.
    clients: Vec<usize>,
    references: Vec<Reference>,
    stored: Working,
    is_kept: bool,
    /// The server's step, if the device takes it.
    step: Option<StepJob>,
}

impl Pass<'_> {
    /// Runs what of the pass is for the device. A device that fails is no error where the CPU may take over.
    pub(crate) fn run_on_device(
        &self,
        device: &Device,
        method: &Method,
        write: &crate::engine::passes::combine::Write,
    ) -> Result<OnDevice, CombineError> {
        let mut all = OnDevice::nothing(self.set.clients.len());
        for mut part in gpu_ring::parts(self.set) {
            part.ranges = part.ranges.into_iter().map(|range| self.within(range)).collect();
            let done = Mutex::new(Vec::new());
            let found = self.run_part(device, &part, method, write, &done);
            all.done.append(&mut done.into_inner().unwrap_or_else(PoisonError::into_inner));
            match found {
                Ok((norms, clock)) => {
                    add_rows(&mut all.squared_norms, &norms);
                    all.clock = all.clock.and(clock);
                }
                Err(CombineError::Gpu(why) | CombineError::Pass(PassError::Gpu(why)))
                    if device.falls_back =>
                {
                    // What a device did that computes wrong cannot be trusted, and norms are of whole parts.
                    if matches!(why, GpuError::Wrong { .. }) || self.with_norms {
                        all = OnDevice::nothing(self.set.clients.len());
                    }
                    return Ok(OnDevice { failure: Some(why), ..all });
                }
                Err(why) => return Err(why),
            }
        }
        Ok(all)
    }

    fn run_part(
        &self,
        device: &Device,
        part: &Part,
        method: &Method,
        write: &crate::engine::passes::combine::Write,
        done: &Mutex<Vec<Range<usize>>>,
    ) -> Result<(Vec<f64>, Clock), CombineError> {
        let (compiled, columns) = self.compile(device, part, method)?;
        let plan = gpu_ring::plan(self.set, part, columns);
        let norms =
            InTileOrder::new(vec![0.0; self.set.clients.len()], |sums: &mut Vec<f64>, part: Vec<f64>| {
                add_rows(sums, &part);
            });
        let workers = for_each_tile(
            device.lanes(),
            &plan,
            || self.new_lane(&compiled, &plan, method),
            |lane: &mut Result<Lane, GpuError>, tile| {
                let lane = lane.as_mut().map_err(|why| why.clone())?;
                let squared_norms = match compiled.stored {
                    Working::BF16 => self.device_tile::<bf16>(lane, tile, method, &compiled, write)?,
                    Working::F16 => self.device_tile::<f16>(lane, tile, method, &compiled, write)?,
                    _ => self.device_tile::<f32>(lane, tile, method, &compiled, write)?,
                };
                norms.add(tile.number, squared_norms);
                done.lock().unwrap_or_else(PoisonError::into_inner).push(tile.coordinates.clone());
                Ok::<_, CombineError>(())
            },
        )?;
        let clock =
            workers.iter().flatten().map(|lane| lane.host.space.clock).fold(Clock::default(), Clock::and);
        Ok((norms.finish(), clock))
    }

    fn compile<'a>(
        &self,
        device: &'a Device,
        part: &Part,
        method: &Method,
    ) -> Result<(Compiled<'a>, usize), GpuError> {
        let readers = method.clients();
        let kept = device.kept_shape(part.stored);
        // Tiles that stayed since the first pass have no rows for what the step keeps.
        let step = if kept.is_none() { self.step_job(method) } else { None };
        let (clients, chosen, references): (Vec<usize>, Vec<usize>, _) = match kept {
            Some(_) => {
                ((0..self.set.clients.len()).collect(), readers.to_vec(), gpu_ring::references(self.set))
            }
            None => (readers.to_vec(), (0..readers.len()).collect(), self.references(method, step.as_ref())),
        };
        let shape = match kept {
            Some(shape) => shape,
            None => TileShape {
                rows: clients.len(),
                stored: part.stored,
                references: references.len(),
                columns: {
                    let scratch = method.mixtures() + step.map_or(0, |step| 1 + step.moments());
                    device.columns(clients.len(), part.stored, references.len(), scratch)?
                },
            },
        };
        let less_base = |client: &usize| gpu_ring::is_less_base(self.set, *client);
        let job = CombineJob {
            chosen: chosen.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)).collect(),
            norms: self.with_norms.then(|| readers.iter().map(less_base).collect()),
            step,
            ..self.job(method, shape)
        };
        let program = CombineProgram::new(device.gpu(), &job)?;
        let is_kept = kept.is_some();
        let compiled = Compiled { device, program, clients, references, stored: part.stored, is_kept, step };
        Ok((compiled, shape.columns))
    }

    /// What has to be on the device besides the rows that are read.
    fn references(&self, method: &Method, step: Option<&StepJob>) -> Vec<Reference> {
        if step.is_some() {
            return self.step_references();
        }
        let is_needed = self.with_norms || method.mixtures() > 0;
        gpu_ring::references(self.set).into_iter().filter(|of| is_needed && *of == Reference::Base).collect()
    }

    /// The server's step, where a device can take it: of a sum or an order statistic, and with no centre to keep.
    fn step_job(&self, method: &Method) -> Option<StepJob> {
        let has_moments_alone = self.keeps.iter().all(|kept| kept.slot.is_moment());
        if self.step == ServerStep::PLAIN || !has_moments_alone || self.set.base.is_none() {
            return None;
        }
        let (scale, of_base) = match method {
            Method::Sum(sum) if sum.centre != 0.0 => return None,
            Method::Sum(sum) => (sum.divisor.recip(), sum.base / sum.divisor),
            Method::Select(_) => (1.0, 0.0),
            Method::Tiers(_) | Method::Tree(_) | Method::Noised(_) => return None,
        };
        let brings_base = if self.set.frame == Frame::AsSent { 1.0 } else { 0.0 };
        Some(StepJob { step: self.step, scale, less_base: brings_base - of_base })
    }

    /// The base, then what the step keeps, in the order that it takes them.
    fn step_references(&self) -> Vec<Reference> {
        let place = |slot: &StateTensor| self.keeps.iter().position(|kept| kept.slot == *slot);
        let moments = [StateTensor::Momentum, StateTensor::SecondMoment];
        let kept = moments.iter().filter_map(place).map(Reference::Kept);
        [Reference::Base].into_iter().chain(kept).collect()
    }

    /// What the method means for rows; who is chosen is still to be filled in.
    fn job(&self, method: &Method, shape: TileShape) -> CombineJob {
        let none = CombineJob {
            shape,
            chosen: Vec::new(),
            weights: Vec::new(),
            mixing: None,
            reduction: Reduction::WeightedSum,
            norms: None,
            step: None,
        };
        match method {
            Method::Sum(sum) => CombineJob { weights: sum.weights.clone(), ..none },
            // Partials and releases are summed on the CPU.
            Method::Tree(_) | Method::Noised(_) => none,
            Method::Select(select) => CombineJob {
                reduction: match select.statistic {
                    OrderStatistic::Median => Reduction::Median,
                    OrderStatistic::TrimmedMean { cut } => Reduction::TrimmedMean { cut },
                    OrderStatistic::MeanNearMedian { kept } => Reduction::MeanNearMedian { kept },
                },
                mixing: select.mixing.map(|mixing| gpu_ring::mixtures(self.set, mixing, &select.clients)),
                ..none
            },
            Method::Tiers(_) => unreachable!("no device is chosen for tiers"),
        }
    }

    fn new_lane<'a>(
        &'a self,
        compiled: &Compiled<'a>,
        plan: &TilePlan,
        method: &Method,
    ) -> Result<Lane<'a>, GpuError> {
        Ok(Lane {
            slot: RingSlot::for_combine(compiled.device.gpu(), &compiled.program)?,
            host: self.new_worker(plan),
            check: SpotCheck::new(self.isa, self.set, method, plan),
            merged: Vec::new(),
        })
    }

    /// Merges one tile and hands it on. Returns the squared norms of its deltas.
    fn device_tile<E: Element>(
        &self,
        lane: &mut Lane,
        tile: &Tile,
        method: &Method,
        compiled: &Compiled,
        write: &crate::engine::passes::combine::Write,
    ) -> Result<Vec<f64>, CombineError> {
        let kept = compiled.device.kept_tile(compiled.stored, tile.number).filter(|_| compiled.is_kept);
        if kept.is_none() {
            if compiled.step.is_some() {
                self.read_kept(&mut lane.host, tile)?;
            }
            let (slot, Worker { space, kept, .. }) = (&mut lane.slot, &mut lane.host);
            gpu_ring::fill::<E>(slot, space, tile, &compiled.clients, &compiled.references, kept)?;
        }
        let started = Instant::now();
        let found = lane.slot.combine(&compiled.program, kept.as_deref(), &mut lane.merged)?;
        lane.host.space.clock.compute += started.elapsed();
        if found.largest.is_infinite() {
            return Err(CombineError::NonFinite);
        }
        let is_exact =
            matches!(method, Method::Select(Select { mixing: None, statistic: OrderStatistic::Median, .. }));
        if found.largest > MOST_MAGNITUDE && (!is_exact || compiled.step.is_some()) {
            return self.merge_elsewhere(tile, method, write);
        }
        lane.check.compare::<E>(tile, method, &lane.merged, compiled.device.gpu())?;
        match &compiled.step {
            Some(step) => self.finish_stepped(lane, tile, step, compiled, &found.stepped)?,
            None => self.finish_tile(lane, tile, method)?,
        }
        self.hand_on(&mut lane.host, tile, method.clients().len(), write)?;
        Ok(found.squared_norms)
    }

    /// Checks a sample of what the server's step left, and encodes it.
    fn finish_stepped(
        &self,
        lane: &mut Lane,
        tile: &Tile,
        step: &StepJob,
        compiled: &Compiled,
        stepped: &[Vec<f32>],
    ) -> Result<(), CombineError> {
        let Lane { host, check, merged, .. } = lane;
        let kept = compiled.references.iter().filter_map(|reference| match reference {
            Reference::Kept(place) => Some(*place),
            Reference::Base | Reference::Centre => None,
        });
        let kept: Vec<usize> = kept.collect();
        let before: Vec<&[f32]> =
            kept.iter().map(|place| bytemuck::cast_slice(host.kept[*place].row(0))).collect();
        let gpu = compiled.device.gpu();
        check.compare_step(tile, step, (merged, host.space.base(), &before), stepped, gpu)?;
        let started = Instant::now();
        let all = 0..tile.coordinates.len();
        for (place, values) in kept.iter().zip(&stepped[1..]) {
            self.keep(host, tile, self.keeps[*place].slot, &all, values);
        }
        self.encode(host, tile, all, &stepped[0])?;
        host.space.clock.compute += started.elapsed();
        Ok(())
    }

    /// Adds what is not the device's, and encodes.
    fn finish_tile(&self, lane: &mut Lane, tile: &Tile, method: &Method) -> Result<(), CombineError> {
        let (host, merged) = (&mut lane.host, &mut lane.merged);
        self.read_kept(host, tile)?;
        if self.uses_base(method) {
            host.space.read_finite_base(tile)?;
        }
        let started = Instant::now();
        if let Method::Sum(sum) = method {
            self.finish_sum(host, tile, sum, merged)?;
        }
        for block in blocks::<f64>(1, merged.len()) {
            self.finish_block(host, tile, block.clone(), &mut merged[block])?;
        }
        host.space.clock.compute += started.elapsed();
        Ok(())
    }

    fn finish_sum(
        &self,
        host: &mut Worker,
        tile: &Tile,
        sum: &Sum,
        merged: &mut [f64],
    ) -> Result<(), CombineError> {
        if sum.base != 0.0 {
            add_times(host.space.base(), sum.base, merged);
        }
        if sum.centre != 0.0 {
            host.space.read_centre(tile)?;
            add_times(host.space.centre(), sum.centre, merged);
        }
        for x in merged {
            *x /= sum.divisor;
        }
        Ok(())
    }

    /// Merges a tile on the CPU whose values are too large for sums in f32.
    fn merge_elsewhere(
        &self,
        tile: &Tile,
        method: &Method,
        write: &crate::engine::passes::combine::Write,
    ) -> Result<Vec<f64>, CombineError> {
        let plan =
            TilePlan::of_ranges(self.set, self.rows_at_once(method), std::slice::from_ref(&tile.coordinates));
        let mut worker = self.new_worker(&plan);
        let mut squared_norms = vec![0.0; self.set.clients.len()];
        for number in 0..plan.tiles() {
            let tile = plan.tile(number);
            self.merge_any(&mut worker, &tile, method)?;
            add_rows(&mut squared_norms, &std::mem::take(&mut worker.squared_norms));
            self.hand_on(&mut worker, &tile, method.clients().len(), write)?;
        }
        Ok(squared_norms)
    }
}
