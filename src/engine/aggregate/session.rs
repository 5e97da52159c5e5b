//! The whole job of merging a round: open, check, decide, combine, publish.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::geometry::{Passes, Spent};
use crate::engine::aggregate::report::output;
use crate::engine::aggregate::request::Job;
use crate::engine::backend::calibration::Host;
use crate::engine::backend::choose::Chosen;
use crate::engine::decide::judge::{Judge, Judgement, Outcome, Subject, Unjudged};
use crate::engine::intake::admit::{self, Base, Update, UpdateSet};
use crate::engine::intake::fault::Fault;
use crate::engine::intake::personal::keep_personal;
use crate::engine::passes::combine::{CombineError, Combined, Pass};
use crate::engine::passes::drive::PassError;
use crate::engine::passes::gpu_ring::Device;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::survey::{Survey, non_finite_faults};
use crate::gpu::job::GpuError;
use crate::io::discover;
use crate::io::model_file::TablePool;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::source::OpenFiles;
use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::model::state::StateTensor;
use crate::modes::dp::release::{Private, Release};
use crate::modes::tree::purpose::Purpose;
use crate::rules::{Recipe, Statistics};
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{Bytes, Report, Timings};
use rayon::ThreadPool;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

impl Job {
    /// Writes the sum of clipped updates, without noise: it is not private. Returns where it is.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn gather(
        self,
        how: &Private,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<PathBuf, MergeError> {
        Run::open(self, pool)?.gather(how, pool, progress)
    }

    /// Merges the updates, and publishes the model and the report. Returns the report.
    ///
    /// # Errors
    ///
    /// When the input is bad, policy refuses, or the disk does; no model is published then.
    pub fn run(self, pool: &ThreadPool, progress: &Progress) -> Result<Report, MergeError> {
        let private = self.private.clone();
        let run = Run::open(self, pool)?;
        let report = match private {
            Some(how) => run.release(&how, pool, progress),
            None => run.merge(pool, progress),
        };
        progress.finish();
        report
    }
}

/// A job whose updates are open.
pub(crate) struct Run {
    pub(crate) job: Job,
    pub(crate) base: Option<Arc<Base>>,
    pub(crate) updates: Vec<Update>,
    /// Files of rejected updates that the user was told about.
    pub(crate) told: BTreeSet<PathBuf>,
    pub(crate) started: Instant,
    pub(crate) timings: Timings,
    pub(crate) bytes: Bytes,
    pub(crate) threads: usize,
    /// Where it computes; chosen when it is known what is to be done.
    pub(crate) chosen: Option<Chosen>,
    /// What it releases under a budget, once that is paid for.
    pub(crate) release: Option<Release>,
}

/// Why a round did not end in a report.
pub(crate) enum Stopped {
    /// Updates are bad, by their place in the set.
    BadUpdates(Vec<(usize, Fault)>),
    Error(MergeError),
}

impl From<Unjudged> for Stopped {
    fn from(why: Unjudged) -> Self {
        match why {
            Unjudged::BadUpdates(found) => Self::BadUpdates(found),
            Unjudged::Rule(why) => Self::Error(why.into()),
            Unjudged::Strategy(why) => Self::Error(why.into()),
            Unjudged::Shard(why) => Self::Error(why.into()),
            Unjudged::Pass(why) => Self::Error(CombineError::from(why).into()),
        }
    }
}

impl From<MergeError> for Stopped {
    fn from(why: MergeError) -> Self {
        Self::Error(why)
    }
}

impl Run {
    pub(crate) fn open(job: Job, pool: &ThreadPool) -> Result<Self, MergeError> {
        let started = Instant::now();
        job.check_targets()?;
        // That nobody came must not show where single clients must not.
        let paths = discover::updates(&job.updates, job.private.is_some())?;
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        let base = job.base.as_deref().map(|path| admit::open_base(path, &files, &tables)).transpose()?;
        if let (Some(base), Some(_)) = (&base, &job.state) {
            // Hashed now, by all threads; whoever wants the digest finds it.
            pool.install(|| digest_of(base))?;
        }
        let updates = pool.install(|| admit::open(&paths, &files, &tables, base.as_ref()));
        job.expected.personal.check_round(base.as_ref(), &updates)?;
        Ok(Self {
            job,
            base: base.map(Arc::new),
            updates,
            told: BTreeSet::new(),
            started,
            timings: Timings { open_s: started.elapsed().as_secs_f64(), ..Timings::default() },
            bytes: Bytes::default(),
            threads: pool.current_num_threads(),
            chosen: None,
            release: None,
        })
    }

    /// Merges, and as long as that finds something wrong with an update that may be skipped, merges again without it:
    /// every round starts from all updates, as if the bad ones had never been there.
    fn merge(mut self, pool: &ThreadPool, progress: &Progress) -> Result<Report, MergeError> {
        loop {
            let (round, statistics) = self.assemble()?;
            let merged = if self.job.partial {
                self.publish_partial(&round, Purpose::of(&self.job)?, pool, progress).map_err(Stopped::from)
            } else {
                self.judge_and_publish(&round, statistics, pool, progress)
            };
            let found = match merged {
                Ok(report) => return Ok(report),
                Err(Stopped::BadUpdates(found)) => found,
                Err(Stopped::Error(why)) => self.culprits(why, &round.set, pool, progress)?,
            };
            self.updates = round.set.dissolve(round.rejected, found);
        }
    }

    fn judge_and_publish(
        &mut self,
        round: &Round,
        statistics: Statistics,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Report, Stopped> {
        self.choose_backend(round, &statistics)?;
        let judgement = self.judge(round, statistics, pool, progress)?;
        self.combine_and_publish(round, &judgement, pool, progress)
    }

    /// Chooses where to compute, once; what an earlier set left on the device is of no more use.
    pub(crate) fn choose_backend(
        &mut self,
        round: &Round,
        statistics: &Statistics,
    ) -> Result<(), MergeError> {
        match &self.chosen {
            Some(chosen) => chosen.device.iter().for_each(Device::forget),
            None if self.job.tiers.is_some() => self.chosen = Some(Self::backend_of_tiers()),
            None if !round.set.partials.is_empty() => {
                self.chosen = Some(Chosen::cpu("sums that do not depend on their grouping need f64"));
            }
            None => {
                let host = Host::here(self.job.isa, self.threads);
                let (job, set) = (&self.job, &round.set);
                let chosen = job.backend.choose(set, &job.aggregation, statistics, &host)?;
                tracing::info!("backend: {}, {}", chosen.description(self.job.isa, self.threads), chosen.why);
                self.chosen = Some(chosen);
            }
        }
        Ok(())
    }

    /// The device is no more to be relied on.
    fn give_up_device(&mut self, why: Option<GpuError>) {
        if let (Some(why), Some(chosen)) = (why, &mut self.chosen) {
            chosen.give_up(&why);
        }
    }

    fn judge(
        &mut self,
        round: &Round,
        statistics: Statistics,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Judgement, Stopped> {
        if !round.tiers.is_empty() {
            return self.judge_tiers(round, &statistics, pool, progress);
        }
        let (set, isa, aggregation) = (&round.set, self.job.isa, &self.job.aggregation);
        let device = self.chosen.as_ref().and_then(|chosen| chosen.device.as_ref());
        let (subject, cohort) = (Subject::of(set), &round.cohort);
        let mut looks = Passes::over(set, isa, pool, device, progress);
        let mut judge = Judge { aggregation, cohort, subject, looks: &mut looks };
        let judgement = judge.judge(statistics);
        let (spent, failure) = (looks.spent, looks.device_failure.take());
        self.give_up_device(failure);
        self.add_spent(&spent, set.data_bytes());
        Ok(judgement?)
    }

    /// Adds what looking took, of so many bytes a pass.
    pub(crate) fn add_spent(&mut self, spent: &Spent, bytes: u64) {
        self.bytes.read += spent.passes * bytes;
        self.timings.first_pass_s += spent.elapsed.as_secs_f64();
        self.timings.first_read_s += spent.clock.read.as_secs_f64() / self.threads as f64;
        self.timings.first_compute_s += spent.clock.compute.as_secs_f64() / self.threads as f64;
    }

    /// The digest that a state names the base by.
    pub(crate) fn base_digest(&self) -> Result<Option<&str>, MergeError> {
        self.base.as_deref().map(digest_of).transpose()
    }

    /// What is wrong with the updates that a pass failed on, by their place in the set.
    pub(crate) fn culprits(
        &mut self,
        why: MergeError,
        set: &UpdateSet,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Vec<(usize, Fault)>, MergeError> {
        match why {
            MergeError::Combine(CombineError::BadPartial { partial, tensor, index, value }) => {
                let fault = Fault::NonFinite { tensor, index, value, count: 1 };
                Ok(vec![(set.clients.len() + partial, fault)])
            }
            MergeError::Combine(why) if why.may_be_non_finite() && !set.clients.is_empty() => {
                progress.start("looking for non-finite values", set.data_bytes());
                self.bytes.read += set.data_bytes();
                let measured = Survey { isa: self.job.isa, set, pool, progress }.measure();
                let found = non_finite_faults(set, &measured.map_err(CombineError::from)?);
                if found.is_empty() { Err(why.into()) } else { Ok(found) }
            }
            MergeError::Combine(CombineError::Pass(PassError::Read {
                client: Some(row), source, ..
            })) => Ok(vec![(row, Fault::Read(source))]),
            other => Err(other),
        }
    }

    pub(crate) fn combine_and_publish(
        &mut self,
        round: &Round,
        judgement: &Judgement,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Report, Stopped> {
        let (job, set) = (&self.job, &round.set);
        let metadata = self.output_metadata(round);
        let writer = ModelWriter::create(&job.output, &set.merged.layout, &metadata, job.max_shard_bytes);
        let writer = writer.map_err(MergeError::from)?;
        let started = Instant::now();
        let with_norms = job.report.is_some() && judgement.norms.is_none() && set.partials.is_empty();
        let pass = self.pass(round, &judgement.outcome(), with_norms, progress);
        let (bytes, read) = pass.bytes();
        progress.start("merging", bytes);
        let mut state = self.state_writer(round)?;
        let combined = pass.run(pool, |tile, values| {
            let pieces = || set.layout.pieces(tile.coordinates.clone());
            if let Some(state) = &state {
                for (slot, bytes) in values.kept.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
                    state.write(slot, pieces(), bytes)?;
                }
            }
            writer.write(set.merged.pieces(pieces()), values.model)
        });
        let combined = combined.map_err(MergeError::from)?;
        if let Some(release) = &self.release {
            release.sum.sum().verify(set).map_err(MergeError::from)?;
        }
        self.bytes.read += read;
        if let Some(state) = &state {
            let recipe = &judgement.decision.recipe;
            self.combine_controls(round, recipe, None, pool, progress, |slot, tile, bytes| {
                state.write(slot, set.layout.pieces(tile.coordinates.clone()), bytes)
            })?;
        }
        self.bytes.read += keep_personal(set, &writer).map_err(MergeError::from)?;
        check_unchanged(set)?;
        if let Some(why) = &combined.device_failure {
            tracing::warn!("{why}; the CPU took over");
        }
        self.give_up_device(combined.device_failure.clone());
        self.timings.pass_s += started.elapsed().as_secs_f64();
        self.add_clock(&combined);
        self.finish_writing(&writer, &mut state, pool)?;
        let mut report = self.report(round, judgement, combined.norms.as_deref());
        report.published = true;
        report.output = Some(output(round, &writer, metadata));
        self.publish(writer, state, &report)?;
        let (merged, rejected) = (round.cohort.clients.len(), round.rejected.len());
        tracing::info!("merged {merged} updates by {} ({rejected} rejected)", self.job.aggregation.rule);
        Ok(report)
    }

    /// Merges the changes of the clients' control variates by the same recipe, and adds them to the server's. `write`
    /// takes the encoded values of a tile, and their slot's place among those kept.
    pub(crate) fn combine_controls(
        &mut self,
        round: &Round,
        recipe: &Recipe,
        coordinates: Option<Range<usize>>,
        pool: &ThreadPool,
        progress: &Progress,
        write: impl Fn(usize, &Tile, &[u8]) -> Result<(), WriteError> + Sync,
    ) -> Result<(), Stopped> {
        let factor = self.job.aggregation.strategy.control(&round.cohort).map_err(MergeError::from)?;
        let slot = round.keeping.as_ref().and_then(|keeping| keeping.place(StateTensor::Control));
        let (Some(factor), Some(slot)) = (factor, slot) else { return Ok(()) };
        let set = round.set.controls();
        let device = self.chosen.as_ref().and_then(|chosen| chosen.device.as_ref());
        // What stayed on the device are the updates themselves.
        device.iter().for_each(|device| device.forget());
        let pass = Pass {
            isa: self.job.isa,
            set: &set,
            recipe,
            with_norms: false,
            screened: false,
            step: ServerStep::Average { lr: factor },
            keeps: &[],
            coordinates,
            floats_only: true,
            noised: None,
            device,
            progress,
        };
        progress.start("merging control variates", set.data_bytes());
        let combined = pass.run(pool, |tile, values| write(slot, tile, values.model));
        self.bytes.read += set.data_bytes();
        match combined.map_err(MergeError::from) {
            Ok(combined) => {
                self.give_up_device(combined.device_failure);
                Ok(())
            }
            Err(why) => Err(Stopped::BadUpdates(self.culprits(why, &set, pool, progress)?)),
        }
    }

    /// The second pass over all coordinates.
    pub(crate) fn pass<'a>(
        &'a self,
        round: &'a Round,
        outcome: &Outcome<'a>,
        with_norms: bool,
        progress: &'a Progress,
    ) -> Pass<'a> {
        Pass {
            isa: self.job.isa,
            set: &round.set,
            recipe: outcome.recipe,
            with_norms,
            screened: outcome.screened,
            step: outcome.server_step,
            keeps: self.kept(round),
            coordinates: None,
            floats_only: false,
            noised: self.release.as_ref().map(|release| &release.sum),
            device: self.chosen.as_ref().and_then(|chosen| chosen.device.as_ref()),
            progress,
        }
    }

    /// What is kept between rounds, if it is.
    pub(crate) fn kept<'a>(&self, round: &'a Round) -> &'a [KeptTensor] {
        let keeping = round.keeping.as_ref().filter(|_| self.job.state.is_some());
        keeping.map_or(&[], |keeping| &keeping.kept)
    }

    fn add_clock(&mut self, combined: &Combined) {
        let threads = self.threads as f64;
        self.timings.read_s = combined.clock.read.as_secs_f64() / threads;
        self.timings.compute_s = combined.clock.compute.as_secs_f64() / threads;
        self.timings.write_s = combined.clock.write.as_secs_f64() / threads;
    }
}

fn digest_of(base: &Base) -> Result<&str, MergeError> {
    base.blake3().map_err(|source| MergeError::Read { path: base.model.path.clone(), source })
}

/// Nobody may have rewritten a file while its tiles were read: the merged model would be of two rounds.
pub(crate) fn check_unchanged(set: &UpdateSet) -> Result<(), MergeError> {
    let models = set.clients.iter().map(|client| &client.model);
    let models = models.chain(set.partials.iter().map(|partial| &partial.model));
    let models = models.chain(set.base.iter().map(|base| &base.model));
    let models = models.chain(set.state.iter().map(|state| &state.model));
    for file in models.flat_map(|model| &model.files) {
        file.check_unchanged().map_err(|source| MergeError::Read { path: file.path().to_owned(), source })?;
    }
    Ok(())
}
