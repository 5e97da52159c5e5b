//! The clipped clients of a run: which clients count, with which clip, and the edges' sums.

use crate::budget::books::{Books, NoiseTerms};
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::session::Session;
use crate::engine::backend::forecast::Reduced;
use crate::engine::intake::admit;
use crate::engine::intake::cohort::reported;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::error::PassError;
use crate::model::class::TensorClass;
use crate::model::layout::TensorSpec;
use crate::modes::dp::clips::{ClientClip, ValuesDigest, clips};
use crate::modes::dp::error::DpError;
use crate::modes::dp::noised_sum::ClippedSum;
use crate::modes::dp::release::{Options, check};
use crate::modes::dp::statistics::DpStatistics;
use crate::modes::dp::sum_file::{SumFile, SumFileError, SumTerms};
use crate::modes::dp::sum_pass::{self, Digests, WriteIntegers};
use crate::privacy::clipping::{Clip, Grid, Treatment};
use crate::strategies::Cohort;
use crate::updates::set::{Client, UpdateSet, ValueKind};
use std::collections::HashMap;
use std::path::Path;

/// The clipped clients of a run.
pub struct Clipped {
    /// The clients. Their values are merged as deltas.
    pub taken: Taken,
    /// The number of coordinates of the clipped vector.
    pub dimension: u64,
    /// The terms of the noise.
    pub terms: NoiseTerms,
    /// The terms that two sums must share to be added.
    pub sum_terms: SumTerms,
    /// The grid to which values are rounded.
    pub grid: Grid,
    /// The clip of each client.
    pub clips: ClientClips,
    /// The sum files of edges.
    pub edges: Vec<SumFile>,
}

impl Clipped {
    /// Takes the clients of a session, measures their clips, and opens the sum files of edges.
    ///
    /// # Errors
    ///
    /// When an option has no meaning under a budget, the base or a sum cannot be used, or there are too many clients.
    pub fn of(session: &mut Session, options: &Options, books: &Books) -> Result<Self, Error> {
        check(&session.request)?;
        let taken = take(session)?;
        session.choose(&taken, Some(Reduced::NoisedSum))?;
        let set = &taken.set;
        let statistics = options.statistics;
        let dimension = statistics.dimension(set);
        let terms = books.terms(dimension).map_err(DpError::of)?;
        books.check_tensors(&statistics.names(set)).map_err(DpError::of)?;
        let grid = Grid::at(terms.level, terms.clip, terms.value_multiplier).map_err(DpError::of)?;
        let sum_terms = SumTerms {
            plan_sha256: books.state.init.plan_sha256,
            base: session.base_digest()?.unwrap_or_default().to_owned(),
            round: session.request.policy.round,
            clip: terms.clip,
            bound: grid.bound(),
            level: grid.level(),
            statistics,
        };
        let open = || SumFile::open_all(&options.sums, &set.layout, &sum_terms);
        let edges = session.machine.pool.install(open).map_err(DpError::of)?;
        check_apart(set, &edges)?;
        let elsewhere: usize = edges.iter().map(|edge| edge.clients().len()).sum();
        let (found, most) = ((set.clients.len() + elsewhere) as u64, grid.most_clients());
        if found > most {
            return Err(DpError::of(DpError::TooMany { found, most }));
        }
        let clips = ClientClips(clips(&session.machine, set, &statistics.clipped(set), &grid)?);
        session.machine.take_meter();
        clips.warn(set);
        warn_of_tensors(set, statistics);
        Ok(Self { taken, dimension, terms, sum_terms, grid, clips, edges })
    }
}

impl Clipped {
    /// Makes clients count as zero that take part more often or sooner than the plan allows.
    ///
    /// # Errors
    ///
    /// When the number of the round is missing, or the lists of earlier rounds cannot be read.
    pub fn leave_out(&mut self, books: &Books, round: Option<u64>) -> Result<(), Error> {
        let ids = self.taken.set.clients.iter().map(|client| &client.id);
        let counted = books.counted(round, ids).map_err(DpError::of)?;
        self.clips.leave_out(&self.taken.set, &counted);
        Ok(())
    }

    /// The number of clients that count, here and in the sums of edges.
    pub fn counting(&self) -> u64 {
        let here = self.clips.counting(&self.taken.set).count();
        (here + self.edges.iter().map(|edge| edge.clients().len()).sum::<usize>()) as u64
    }

    /// Adds up the clients that count and the sums of edges, and verifies every norm. A client whose values changed
    /// since they were measured counts as zero, and the pass is made again. `write` gets every tile in each pass.
    ///
    /// # Errors
    ///
    /// When the base or a sum cannot be read or changed, the integers cannot be written, the GPU fails, or a signal asked
    /// to stop.
    pub fn add_up(&mut self, session: &Session, write: &WriteIntegers) -> Result<(), Error> {
        let set = &self.taken.set;
        loop {
            let sum = self.clips.sum(self.grid, &self.edges);
            let coordinates = self.sum_terms.statistics.clipped(set);
            let digests = match sum_pass::run(&session.machine, set, &coordinates, &sum, write) {
                Err(PassError::Gpu(why)) if session.machine.gpu().is_some_and(|ring| ring.falls_back) => {
                    session.machine.give_up_gpu(why);
                    continue;
                }
                digests => digests?,
            };
            let changed = self.clips.changed(sum.clients(), &digests);
            if changed.is_empty() {
                let paths: Vec<&Path> =
                    self.clips.counting(set).map(|client| client.model.path.as_path()).collect();
                return sum.verify(&paths).map_err(DpError::of);
            }
            for client in changed {
                self.clips.leave_out_changed(set, client);
            }
        }
    }

    /// Checks that the files of the operator did not change since they were opened: the base, the state, and the sums.
    ///
    /// # Errors
    ///
    /// The first file that changed.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        check_operators_files(&self.taken.set, &self.edges)
    }
}

/// Checks that the base, the state and the sums of edges did not change since they were opened.
pub(super) fn check_operators_files(set: &UpdateSet, edges: &[SumFile]) -> Result<(), Error> {
    let carried = set.carried.sources.values().map(|source| &*source.model);
    let models = set.base.iter().map(|base| &*base.model).chain(carried);
    let models = models.chain(edges.iter().map(|edge| &edge.model));
    for file in models.flat_map(|model| &model.files) {
        file.check_unchanged().map_err(|source| Error::Read { path: file.path().to_owned(), source })?;
    }
    Ok(())
}

/// Takes every client. Bad updates count as zero.
fn take(session: &mut Session) -> Result<Taken, Error> {
    let mut updates = std::mem::take(&mut session.updates);
    let mut claims: HashMap<String, usize> = HashMap::new();
    for update in &updates {
        *claims.entry(update.id.clone()).or_default() += 1;
    }
    for update in updates.iter_mut().filter(|update| claims[&update.id] > 1) {
        update.faults.push(Fault::ClaimedTwice { id: update.id.clone() });
    }
    // What one client states must not decide whether another counts.
    let mut policy = session.request.policy.clone();
    policy.claims.judges_alone = true;
    let admit = |updates| {
        let admitted = admit::admit(updates, session.base.clone(), &policy);
        admitted.map_err(|why| session.unread_base(why))
    };
    let (mut set, mut rejected) = admit(updates)?;
    // A client that cannot be read is found alone, so the others are looked at once more.
    loop {
        let mut faults = session.kind_faults(&set)?;
        faults.extend(session.opaque_faults(&set)?);
        if faults.is_empty() {
            break;
        }
        (set, rejected) = admit(Taken::new(set, rejected).dissolve(faults))?;
    }
    for update in &rejected {
        let more = match update.faults.len() {
            0 | 1 => String::new(),
            faults => format!(" (and {} more faults)", faults - 1),
        };
        if let Some(fault) = update.faults.first() {
            tracing::warn!(
                client = update.id,
                "{}: {fault}{more}: the client counts as zero",
                update.path.display()
            );
        }
    }
    // The run merges deltas, whether clients sent weights or deltas.
    set.value_kind = ValueKind::Deltas;
    let mut taken = Taken::new(set, rejected);
    session.prepare(&mut taken)?;
    let clients = taken.set.clients.iter().map(reported).collect();
    let weights = vec![1.0; taken.set.clients.len()];
    let round = session.request.policy.round;
    taken.cohort = Cohort { clients, weights, round, population: None };
    Ok(taken)
}

/// Refuses a client that is in a sum file too.
fn check_apart(set: &UpdateSet, edges: &[SumFile]) -> Result<(), Error> {
    for client in &set.clients {
        if let Some(edge) = edges.iter().find(|edge| edge.clients().contains(&client.id)) {
            let (path, id) = (edge.model.path.clone(), client.id.clone());
            return Err(DpError::of(SumFileError::Twice { path, id }));
        }
    }
    Ok(())
}

/// Warns of statistics: the noised sum leaves them out, or noise may move them out of their range.
fn warn_of_tensors(set: &UpdateSet, statistics: DpStatistics) {
    let specs = set.layout.tensors().iter().zip(set.layout.classes());
    let all = specs.filter(|(_, class)| **class == TensorClass::Statistic).map(|(spec, _)| spec);
    let (released, kept): (Vec<_>, Vec<_>) =
        all.partition(|spec| statistics.clips(TensorClass::Statistic, spec.dtype));
    let named = |specs: &[&TensorSpec]| match specs {
        [only] => format!("`{}`", only.name),
        [first, rest @ ..] => format!("`{}` and {} more", first.name, rest.len()),
        [] => String::new(),
    };
    if !kept.is_empty() {
        tracing::warn!("statistics stay as in the base: {}", named(&kept));
    }
    if !released.is_empty() {
        tracing::warn!(
            hint = "leave out --dp-statistics release, and the base's stay",
            "noise may move statistics out of their range, such as a variance below zero: {}",
            named(&released)
        );
    }
}

/// The clip of each client of a set.
pub struct ClientClips(pub Vec<ClientClip>);

impl ClientClips {
    /// Warns of clients that count as zero, and lists the clipped ones.
    fn warn(&self, set: &UpdateSet) {
        for (client, ClientClip { clip, norm, .. }) in set.clients.iter().zip(&self.0) {
            match clip.treatment {
                Treatment::Void => tracing::warn!(
                    client = client.id,
                    "{}: holds values that are not finite, or cannot be read: the client counts as zero",
                    client.model.path.display()
                ),
                Treatment::Clipped => tracing::info!("{}: clipped from norm {norm}", client.id),
                Treatment::Whole => {}
            }
        }
    }

    /// Makes clients count as zero that take part more often or sooner than the plan allows.
    fn leave_out(&mut self, set: &UpdateSet, counted: &[bool]) {
        for ((client, found), counts) in set.clients.iter().zip(&mut self.0).zip(counted) {
            if !counts {
                tracing::warn!(
                    client = client.id,
                    "{}: takes part more often or sooner than the plan allows: the client counts as zero",
                    client.id
                );
                found.clip = Clip::VOID;
            }
        }
    }

    /// The clients that do not count as zero.
    pub fn counting<'s>(&'s self, set: &'s UpdateSet) -> impl Iterator<Item = &'s Client> {
        self.of_counting(set).map(|(client, _)| client)
    }

    /// The clients that do not count as zero, with their clips.
    pub fn of_counting<'s>(
        &'s self,
        set: &'s UpdateSet,
    ) -> impl Iterator<Item = (&'s Client, &'s ClientClip)> {
        let all = set.clients.iter().zip(&self.0);
        all.filter(|(_, found)| found.clip.treatment != Treatment::Void)
    }

    /// The number of clients within the clip bound, minus the number above it.
    pub fn below(&self, bound: f64, edges: &[SumFile]) -> i64 {
        let counted = self.0.iter().filter(|found| found.clip.treatment != Treatment::Void);
        let here: i64 = counted.map(|found| if found.norm <= bound { 1 } else { -1 }).sum();
        here + edges.iter().map(|edge| edge.description.below).sum::<i64>()
    }

    /// The counting clients, by index in the set, whose values no longer have the digest of the first pass.
    fn changed(&self, counting: &[usize], digests: &Digests) -> Vec<usize> {
        let is_same = |client: usize, found: &Option<ValuesDigest>| {
            found.as_ref().is_some_and(|found| found.hex() == self.0[client].digest)
        };
        let clients = counting.iter().zip(digests).filter(|(client, found)| !is_same(**client, found));
        clients.map(|(client, _)| *client).collect()
    }

    /// Makes a client count as zero whose values changed during the run. Its digest is that of a client that cannot be
    /// read.
    fn leave_out_changed(&mut self, set: &UpdateSet, client: usize) {
        let Client { id, model, .. } = &set.clients[client];
        let path = model.path.display();
        tracing::warn!(client = id, "{path}: changed while the run read it: the client counts as zero");
        self.0[client] = ClientClip { clip: Clip::VOID, norm: 0.0, digest: String::new() };
    }

    /// The sum of the clipped clients and of earlier sums.
    fn sum<'e>(&self, grid: Grid, edges: &'e [SumFile]) -> ClippedSum<'e> {
        let clips: Vec<Clip> = self.0.iter().map(|found| found.clip).collect();
        ClippedSum::new(grid, &clips, edges)
    }
}
