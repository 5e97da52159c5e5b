//! A session: the request of one run, its opened updates, and the bytes and times so far.

use crate::engine::aggregate::culprits::{Faulty, Search};
use crate::engine::aggregate::error::{Error, Stopped};
use crate::engine::aggregate::geometry::{FileGeometry, Spent, subject_of};
use crate::engine::aggregate::mode::Mode;
use crate::engine::aggregate::outputs::{check_collisions, check_targets};
use crate::engine::aggregate::request::{Inputs, Request};
use crate::engine::aggregate::state::{StateSpec, check_digest};
use crate::engine::aggregate::trusted::check_trusted;
use crate::engine::aggregate::work::choice;
use crate::engine::aggregate::{kinds, notices, report};
use crate::engine::backend::calibration::Host;
use crate::engine::backend::choose::Choice;
use crate::engine::backend::forecast::Reduced;
use crate::engine::decide::judge::{Judgement, judge};
use crate::engine::intake::admit;
use crate::engine::intake::bases;
use crate::engine::intake::cohort::cohort;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::lora;
use crate::engine::intake::opaque;
use crate::engine::intake::opening;
use crate::engine::intake::policy::{OnBadUpdate, TensorPolicy};
use crate::engine::intake::sparse::Comparer;
use crate::engine::intake::taken::Taken;
use crate::engine::intake::update::{self, Update};
use crate::engine::passes::combine::CombinePass;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::drive::Clock;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::machine::Machine;
use crate::io::discover;
use crate::io::model_file::TablePool;
use crate::io::source::OpenFiles;
use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::rules::Statistics;
use crate::strategies::{Cohort, StrategyError};
use crate::telemetry::report::{Bytes, Report, Timings};
use crate::updates::set::{Base, UpdateSet};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// A run whose updates are open.
pub struct Session<'m> {
    /// The request.
    pub request: Request,
    /// The machine that the run computes on.
    pub machine: Machine<'m>,
    /// The base; `None` without `--base`.
    pub base: Option<Arc<Base>>,
    /// Opened updates that no attempt has taken, in order of path.
    pub updates: Vec<Update>,
    /// Seconds of each step.
    pub timings: Timings,
    /// Bytes read and written.
    pub bytes: Bytes,
    /// The reason for the backend; `None` before the choice.
    pub backend_why: Option<String>,
    pub(super) started: Instant,
    /// Rejected files for which the session printed a warning.
    warned: BTreeSet<PathBuf>,
    /// The report of the updates that the session took last; `None` before that, and without `--report`.
    so_far: Option<Box<Report>>,
}

impl<'m> Session<'m> {
    /// Opens the base and the updates.
    ///
    /// # Errors
    ///
    /// When there is no update, the base cannot be used, or an output cannot be written.
    pub fn open(request: Request, machine: Machine<'m>) -> Result<Self, Error> {
        let started = Instant::now();
        check_targets(&request.outputs)?;
        let Inputs { updates, partials, may_be_empty, .. } = &request.inputs;
        // A quorum refuses an empty inbox: that is no error.
        let may_be_empty = *may_be_empty || request.policy.min_clients.is_some();
        let paths = discover::updates(updates, may_be_empty || !partials.is_empty())?;
        let partials = discover::updates(partials, partials.is_empty())?;
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        let base = request.inputs.base.as_deref();
        let base = base.map(|path| update::open_base(path, &files, &tables)).transpose()?;
        if let Some(state) = &request.outputs.state {
            // All threads hash now. The state needs the digest of the base later.
            machine.pool.install(|| check_digest(state))?;
            base.as_ref().map(|base| machine.pool.install(|| digest_of(base))).transpose()?;
        }
        let policy = &request.policy;
        let mut updates =
            machine.pool.install(|| opening::open(&paths, &files, &tables, base.as_ref(), policy));
        updates.extend(machine.pool.install(|| opening::open_partials(&partials, &files, &tables)));
        let TensorPolicy { personal, classes, .. } = &request.policy.tensors;
        personal.check_round(base.as_ref(), &updates)?;
        classes.check_round(base.as_ref(), &updates)?;
        Ok(Self {
            request,
            machine,
            base: base.map(Arc::new),
            updates,
            timings: Timings { open_s: started.elapsed().as_secs_f64(), ..Timings::default() },
            bytes: Bytes::default(),
            backend_why: None,
            started,
            warned: BTreeSet::new(),
            so_far: None,
        })
    }

    /// Sorts updates into those that take part and those that do not.
    ///
    /// # Errors
    ///
    /// When the base cannot be read, or without one as many updates name one base as another.
    pub fn admit(&self, updates: Vec<Update>) -> Result<Taken, Error> {
        let base = self.base.clone();
        bases::check_tied(&updates, base.is_some(), &self.request.policy)?;
        let admitted = admit::admit(updates, base, &self.request.policy);
        let (set, rejected) = admitted.map_err(|why| self.unread_base(why))?;
        Ok(Taken::new(set, rejected))
    }

    /// The error that the base cannot be read.
    pub fn unread_base(&self, source: std::io::Error) -> Error {
        Error::Read { path: self.request.inputs.base.clone().unwrap_or_default(), source }
    }

    /// Stops at rejected updates, or skips them with a warning. Checks that no output is an input, and opens the state.
    ///
    /// # Errors
    ///
    /// When an update was rejected and may not be skipped, an output is an input, or the state cannot be used.
    pub fn settle(&mut self, taken: &mut Taken) -> Result<(), Error> {
        taken.rejected.sort_by(|a, b| a.path.cmp(&b.path));
        self.note(taken);
        self.prepare(taken)?;
        taken.set.base.iter().for_each(|base| notices::private_base(&base.model));
        if !taken.rejected.is_empty() && self.request.policy.on_bad_update == OnBadUpdate::Fail {
            let are_enough = taken.clients() >= self.request.least_clients();
            return Err(Error::bad_updates(&taken.rejected, if are_enough { taken.inputs() } else { 0 }));
        }
        for update in &taken.rejected {
            if self.warned.insert(update.path.clone()) {
                for fault in update.faults.lines() {
                    tracing::warn!(client = update.id, "skipped {}: {fault}", update.path.display());
                }
            }
        }
        Ok(())
    }

    /// Refuses updates that are factors of adapters, unless the operator allows them.
    fn check_factors(&self, taken: &Taken) -> Result<(), Error> {
        let allows = self.request.policy.tensors.allows_lora_factors;
        match lora::factors(&taken.set.layout).filter(|_| !allows) {
            Some((one, other)) => Err(Error::LoraFactors { one: one.to_owned(), other: other.to_owned() }),
            None => Ok(()),
        }
    }

    /// Checks the outputs and the kind of the tensors, and opens the state.
    ///
    /// # Errors
    ///
    /// When an output is an input, the updates are factors of adapters, the strategy needs a base, or the state is of
    /// another model.
    pub fn prepare(&self, taken: &mut Taken) -> Result<(), Error> {
        check_collisions(&self.request.outputs, &self.request.inputs, taken)?;
        self.check_factors(taken)?;
        self.open_state(taken)
    }

    /// Opens the state that an earlier run left for the base.
    fn open_state(&self, taken: &mut Taken) -> Result<(), Error> {
        let Request { outputs, inputs, method, .. } = &self.request;
        if taken.set.base.is_none() && !method.strategy.is_plain() {
            return Err(Error::NoBase { strategy: method.strategy.to_string() });
        }
        let spec = self.state_spec();
        if let (Some(base), None) = (&taken.set.base, &spec) {
            notices::state_left_behind(&base.model);
        }
        if let (Some(base), Some(spec), false) = (&taken.set.base, &spec, inputs.starts_state) {
            spec.check_kept(outputs.state.as_deref(), &base.model)?;
        }
        if let (Some(path), Some(spec)) = (&outputs.state, spec) {
            let carried = spec.open(path, &taken.set.layout, self.base_digest()?)?;
            if inputs.starts_state && carried.is_some() {
                notices::state_init_unused(path);
            }
            taken.set.carried = carried.unwrap_or_default();
        }
        Ok(())
    }

    /// Reads what each client reports, and its weight. Returns the faults of clients whose metadata lacks a field.
    ///
    /// # Errors
    ///
    /// When the weights cannot be used, or most updates look like deltas and do not say so.
    pub fn count(&self, taken: &mut Taken, comparer: &Comparer) -> Result<Vec<(usize, Fault)>, Error> {
        let mut faults = self.kind_faults(&taken.set)?;
        kinds::check_few(&faults, taken.set.clients.len() + taken.others.len())?;
        faults.extend(self.opaque_faults(&taken.set)?);
        if !faults.is_empty() {
            return Ok(faults);
        }
        let Request { policy, method, .. } = &self.request;
        match cohort(&taken.set, policy, method.strategy.as_ref(), comparer)? {
            Ok((cohort, source)) => (taken.cohort, taken.weights_source) = (cohort, source),
            Err(faults) => return Ok(faults),
        }
        let clients = taken.cohort.clients.len();
        taken.byzantine = method.byzantine.as_ref().map(|share| share.of(clients));
        Ok(Vec::new())
    }

    /// The faults of updates that do not state their kind and look like deltas of the base, by index in the set.
    ///
    /// # Errors
    ///
    /// When the base cannot be read.
    pub fn kind_faults(&self, set: &UpdateSet) -> Result<Vec<(usize, Fault)>, Error> {
        kinds::faults(&self.machine, set, &self.request.policy.claims)
    }

    /// The faults of updates whose opaque tensors differ from those of the others, by index in the set.
    ///
    /// # Errors
    ///
    /// When the base cannot be read, or the updates do not agree and there is no base.
    pub fn opaque_faults(&self, set: &UpdateSet) -> Result<Vec<(usize, Fault)>, Error> {
        let found = self.machine.pool.install(|| opaque::differing(set));
        Ok(found.map_err(|why| self.unread_base(why))??)
    }

    /// Refuses a run with too few clients of a weight above zero. Warns of weights and settings that may surprise the
    /// operator.
    ///
    /// # Errors
    ///
    /// When there are too few clients.
    pub fn check_quorum(&mut self, taken: &Taken) -> Result<(), Error> {
        self.note(taken);
        let Request { policy, method, .. } = &self.request;
        let least = self.request.least_clients();
        let clients = taken.cohort.clients.len();
        if clients < least {
            let rejected = taken.rejected.len();
            let why = format!("{clients} usable updates ({rejected} rejected), expected at least {least}");
            return Err(Error::Refused(why));
        }
        check_trusted(method.rule.as_ref(), taken)?;
        if method.rule.uses_weights() {
            let weights = &taken.cohort.weights;
            self.check_parts(weights.iter().filter(|weight| **weight > 0.0).count(), clients)?;
        }
        notices::of_clients(policy, method.rule.uses_weights(), taken);
        kinds::warn_of_weights(&self.machine, &taken.set)
    }

    /// Refuses a judged run in which too few clients have a part in the merged model.
    ///
    /// # Errors
    ///
    /// When `--min-clients` expects more.
    pub fn check_kept(&self, judgement: &Judgement) -> Result<(), Error> {
        let verdicts = &judgement.verdicts;
        self.check_parts(verdicts.iter().filter(|verdict| verdict.has_part()).count(), verdicts.len())
    }

    fn check_parts(&self, parts: usize, clients: usize) -> Result<(), Error> {
        self.request.policy.too_few(parts, clients).map_or(Ok(()), |why| Err(Error::Refused(why)))
    }

    /// Notes the updates that the run has taken, for the report of a run that fails.
    fn note(&mut self, taken: &Taken) {
        if self.request.outputs.report.is_some() {
            self.so_far = Some(Box::new(report::without_judgement(self, taken)));
        }
    }

    /// Adds the report so far to the error of a run.
    ///
    /// # Errors
    ///
    /// The error of the run.
    pub fn with_report<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        let so_far = &mut self.so_far;
        done.map_err(|why| match so_far.take() {
            Some(report) => Error::Reported { source: Box::new(why), report },
            None => why,
        })
    }

    /// The statistics of the clients that need no read of their values.
    ///
    /// # Errors
    ///
    /// When the strategy weighs clients and the rule takes no weights.
    pub fn statistics(&self, taken: &Taken) -> Result<Statistics, StrategyError> {
        let method = &self.request.method;
        let weights = match method.strategy.weigh(&taken.cohort)? {
            None => taken.cohort.weights.clone(),
            Some(_) if !method.rule.uses_weights() => {
                return Err(StrategyError::NoMeaning {
                    strategy: method.strategy.to_string(),
                    rule: method.rule.to_string(),
                    why: "the strategy weighs clients, and the rule takes no weights",
                });
            }
            Some(factors) => {
                taken.cohort.weights.iter().zip(factors).map(|(weight, factor)| weight * factor).collect()
            }
        };
        let ids = taken.cohort.clients.iter().map(|client| client.id.clone()).collect();
        Ok(Statistics { ids, weights, byzantine: taken.byzantine, seed: method.seed, geometry: None })
    }

    /// Chooses the backend, once. A later call forgets the tiles that an earlier set left on the GPU. A mode with another
    /// second pass than the rule's names its `reduction`.
    ///
    /// # Errors
    ///
    /// When the operator asks for a GPU that cannot be used.
    pub fn choose(&mut self, taken: &Taken, reduction: Option<Reduced>) -> Result<(), Error> {
        if self.backend_why.is_some() {
            self.machine.forget_tiles();
            return Ok(());
        }
        let host = Host::here(self.machine.isa, self.machine.threads());
        let choice = match taken.cpu_only {
            Some(why) => Choice::cpu(why),
            None => choice(taken, &self.request, &self.statistics(taken)?, &host, reduction)?,
        };
        self.use_backend(choice, taken.cpu_only.is_none())
    }

    fn use_backend(&mut self, choice: Choice, is_logged: bool) -> Result<(), Error> {
        let threads = self.machine.threads();
        let mut what = format!("cpu with {} on {threads} threads", self.machine.isa);
        if let Some(gpu) = choice.gpu {
            let adapter = gpu.adapter();
            what = format!("gpu, {} ({})", adapter.name, adapter.driver);
            self.machine.use_gpu(GpuRing::new(gpu, threads, choice.falls_back)?);
        }
        if is_logged {
            tracing::info!("backend: {what}, {}", choice.why);
        }
        self.backend_why = Some(choice.why);
        Ok(())
    }

    /// Judges the clients by passes over their files.
    ///
    /// # Errors
    ///
    /// When an update is bad or cannot be read, or the rule, a step or the strategy cannot be used.
    pub fn judge(&mut self, taken: &Taken) -> Result<Judgement, Stopped> {
        let statistics = self.statistics(taken)?;
        let Request { method, reporting, .. } = &self.request;
        let mut source = FileGeometry::new(&self.machine, &taken.set);
        let (cohort, subject) = (&taken.cohort, subject_of(&taken.set));
        let judged =
            self.machine.decide(|| judge(method, reporting, cohort, subject, statistics, &mut source))?;
        let spent = source.spent;
        self.add_spent(&spent);
        Ok(judged?)
    }

    /// Adds the bytes and times of geometry passes.
    pub fn add_spent(&mut self, spent: &Spent) {
        let threads = self.machine.threads() as f64;
        self.bytes.read += spent.bytes;
        self.timings.first_pass_s += spent.meter.elapsed.as_secs_f64();
        self.timings.first_read_s += spent.meter.clock.read.as_secs_f64() / threads;
        self.timings.first_compute_s += spent.meter.clock.compute.as_secs_f64() / threads;
    }

    /// Sets the times of the second pass.
    pub fn add_clock(&mut self, clock: Clock) {
        let threads = self.machine.threads() as f64;
        self.timings.read_s = clock.read.as_secs_f64() / threads;
        self.timings.compute_s = clock.compute.as_secs_f64() / threads;
        self.timings.write_s = clock.write.as_secs_f64() / threads;
    }

    /// The second pass over all coordinates.
    pub fn pass<'a>(
        &self,
        taken: &'a Taken,
        step: ServerStep,
        reducer: &'a dyn Reducer,
        keeps: &'a [KeptTensor],
        with_norms: bool,
    ) -> CombinePass<'a> {
        CombinePass {
            set: &taken.set,
            reducer,
            with_norms,
            step,
            keeps,
            coordinates: None,
            parameters_only: false,
        }
    }

    /// The state that the rule and the strategy keep between runs; `None` if they keep none.
    pub fn state_spec(&self) -> Option<StateSpec> {
        StateSpec::of(&self.request.method)
    }

    /// The state tensors that the run writes; empty without a state file.
    pub fn kept_tensors(&self) -> Vec<KeptTensor> {
        let spec = self.state_spec().filter(|_| self.request.outputs.state.is_some());
        spec.map_or_else(Vec::new, |spec| spec.kept)
    }

    /// The digest by which a state names the base; `None` without a base.
    ///
    /// # Errors
    ///
    /// When the base cannot be read.
    pub fn base_digest(&self) -> Result<Option<&str>, Error> {
        self.base.as_deref().map(digest_of).transpose()
    }

    /// Calls `attempt` on the updates that a mode takes, until it succeeds. If an attempt finds bad updates and the
    /// policy skips those, the next one starts again without them.
    ///
    /// # Errors
    ///
    /// The errors of the mode and of `attempt`.
    pub fn until_sound<M: Mode + ?Sized, T>(
        &mut self,
        mode: &mut M,
        mut attempt: impl FnMut(&mut Self, &mut M, &Taken) -> Result<T, Stopped>,
    ) -> Result<T, Error> {
        loop {
            let taken = mode.take(self)?;
            let found = match attempt(self, mode, &taken) {
                Ok(done) => return Ok(done),
                Err(Stopped::BadUpdates(found)) => found,
                Err(Stopped::Error(why)) => match mode.culprits(self, &why, &taken)? {
                    of_mode if of_mode.is_empty() => self.culprits(why, &taken.set, &taken.cohort)?,
                    of_mode => of_mode,
                },
            };
            self.updates = taken.dissolve(found);
        }
    }

    /// The faults of the updates that stopped a pass, by index: the clients, then the other inputs.
    ///
    /// # Errors
    ///
    /// The error itself, if no update caused it.
    pub fn culprits(&mut self, why: Error, set: &UpdateSet, cohort: &Cohort) -> Result<Faulty, Error> {
        let strategy = self.request.method.strategy.as_ref();
        let mut search = Search { machine: &self.machine, strategy, bytes_read: &mut self.bytes.read };
        search.culprits(why, set, cohort)
    }

    /// Checks that no input changed while the run read it: the merged model would mix two versions. A change is a fault
    /// of the update.
    ///
    /// # Errors
    ///
    /// The updates that changed; or the error of the first other file that did.
    pub fn check_unchanged(&self, taken: &Taken) -> Result<(), Stopped> {
        let found = taken.changed();
        if !found.is_empty() {
            return Err(Stopped::BadUpdates(found));
        }
        self.end_if_changed(taken)?;
        Ok(())
    }

    /// As [`check_unchanged`](Self::check_unchanged), for a run that cannot leave out updates any more.
    ///
    /// # Errors
    ///
    /// The first file that changed.
    pub fn end_if_changed(&self, taken: &Taken) -> Result<(), Error> {
        let others = taken.others.iter().filter_map(|other| other.model.as_ref());
        for file in taken.set.models().chain(others).flat_map(|model| &model.files) {
            file.check_unchanged().map_err(|source| Error::Read { path: file.path().to_owned(), source })?;
        }
        Ok(())
    }
}

fn digest_of(base: &Base) -> Result<&str, Error> {
    base.blake3().map_err(|source| Error::Read { path: base.model.path.clone(), source })
}
