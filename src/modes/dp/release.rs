//! A round under a budget: clip, verify, charge, add up with noise, publish, record.
//!
//! ```text
//! updates --pass 1--> clips, digests --> charge, on disk --> key --pass 2--> noised mean, verified --> server step
//! ```
//!
//! Nothing that a client sends changes what becomes of another: a bad update counts as zero, and so do all that claim one
//! client between them, for who of them is right nobody can tell. The layout, the denominator and the number of coordinates
//! come from the base and the plan.

use crate::budget::account::Account;
use crate::budget::books::{Books, NoiseTerms};
use crate::budget::charge;
use crate::budget::error::BudgetError;
use crate::budget::request::{Answer, ExistingRelease, Grant, Request};
use crate::budget::stamp::Stamp;
use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::publish::publish_report;
use crate::engine::aggregate::request::Job;
use crate::engine::aggregate::session::{Run, Stopped};
use crate::engine::aggregate::state::StateSpec;
use crate::engine::backend::choose::{Asked, Chosen};
use crate::engine::decide::judge::{Judgement, MetricsWanted};
use crate::engine::intake::admit::{self, Frame, UpdateSet};
use crate::engine::intake::fault::Fault;
use crate::engine::passes::combine::CombineError;
use crate::io::digest::Blake3;
use crate::model::dtype::Kind;
use crate::modes::dp::adaptive_clip;
use crate::modes::dp::clips::{Clips, Found, floats};
use crate::modes::dp::noise;
use crate::modes::dp::noised_sum::{ClippedSum, NoisedSum};
use crate::modes::dp::sum_file::{self, SumFile, SumFileError};
use crate::privacy::clipping::{Clip, Grid, NoGrid, Treatment};
use crate::privacy::ledger::plan::ClipBound;
use crate::record::sha256::Sha256;
use crate::rules::{Decision, Recipe, Reduction, Verdict};
use crate::strategies::{Cohort, Decided};
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{Output, Report};
use rayon::ThreadPool;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// How a round is released under a budget.
#[derive(Clone, Debug)]
pub struct Private {
    /// The state directory.
    pub directory: PathBuf,
    /// Whether the key is kept until the output is published, so that a run that is cut off can be made again.
    pub resumable: bool,
    /// Makes the noise from this number, for tests: the output is NOT private.
    pub test_seed: Option<u64>,
    /// Sums of other clients' updates, made by edges that are trusted to have clipped them.
    pub sums: Vec<PathBuf>,
}

/// Why a round was not released.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PrivateError {
    #[error(transparent)]
    Account(#[from] BudgetError),
    #[error(transparent)]
    Grid(#[from] NoGrid),
    #[error(transparent)]
    Edge(#[from] SumFileError),
    #[error("{option} under --dp: {why}")]
    Combination { option: String, why: &'static str, hint: &'static str },
    #[error("{found} updates, expected at most {most}: more might not fit the sum")]
    TooMany { found: u64, most: u64 },
    #[error("{}: its integers are longer than its norm allows: it changed while it was read", .path.display())]
    Longer { path: PathBuf },
}

impl PrivateError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Account(why) => why.hint(),
            Self::Combination { hint, .. } => Some((*hint).to_owned()),
            Self::Longer { .. } => {
                Some("the round was charged; run it again with updates that nobody writes to".to_owned())
            }
            Self::Grid(_) | Self::Edge(_) | Self::TooMany { .. } => None,
        }
    }
}

/// Strategies whose step hangs on the merged delta and on what they keep alone.
const STEPS_AFTER_NOISE: [&str; 6] = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"];

/// A round whose clients are clipped.
pub(crate) struct Clipped {
    pub(crate) round: Round,
    pub(crate) dimension: u64,
    pub(crate) terms: NoiseTerms,
    /// What sums of it are made on.
    pub(crate) edge_terms: sum_file::Terms,
    pub(crate) grid: Grid,
    /// What was found of each client.
    pub(crate) clips: Vec<Found>,
    pub(crate) edges: Vec<SumFile>,
}

/// How many clients are within the clip bound, less how many are not.
pub(crate) fn below(terms: &NoiseTerms, clips: &[Found], edges: &[SumFile]) -> i64 {
    let counted = clips.iter().filter(|found| found.clip.treatment != Treatment::Void);
    let here: i64 = counted.map(|found| if found.norm <= terms.clip { 1 } else { -1 }).sum();
    here + edges.iter().map(|edge| edge.description.below).sum::<i64>()
}

/// How each client is clipped.
pub(crate) fn each(clips: &[Found]) -> Vec<Clip> {
    clips.iter().map(|found| found.clip).collect()
}

/// What the second pass of a release needs, once it is paid for.
#[derive(Debug)]
pub struct Release {
    /// The sum.
    pub sum: NoisedSum,
    /// What the output says of it.
    pub marks: Stamp,
}

impl Job {
    /// Refuses what has no meaning where single clients must not show.
    fn check_private(&self) -> Result<(), PrivateError> {
        let refuse = |option: String, why, hint| Err(PrivateError::Combination { option, why, hint });
        let aggregation = &self.aggregation;
        let rule = aggregation.rule.to_string();
        if rule != "mean" {
            let why = "which updates it keeps, or how it weighs them, hangs on other clients, so the sum changes by more \
                       than one client's bound when one comes or goes";
            return refuse(
                format!("--rule {rule}"),
                why,
                "use mean: every update is clipped before it is added",
            );
        }
        let mean_only = "use mean alone";
        if let Some(step) = aggregation.pre.first() {
            let why = "what it makes of one update hangs on the others";
            return refuse(format!("--pre {step}"), why, mean_only);
        }
        let asked = [MetricsWanted::Geometry, MetricsWanted::GeometryAndSigns];
        if !aggregation.shadow.is_empty() || asked.contains(&aggregation.metrics) {
            let why = "what it tells of single clients is released without noise";
            return refuse("--shadow-rules or --metrics".to_owned(), why, "leave it out");
        }
        if self.tiers.is_some() || self.partial {
            let option = if self.partial { "--partial" } else { "--tiers" };
            let hint = "`fedmill privacy clip` and `sum` make partial sums; the noise comes at the root";
            return refuse(option.to_owned(), "it is not part of the noised sum", hint);
        }
        let strategy = &aggregation.strategy;
        if !STEPS_AFTER_NOISE.contains(&strategy.name()) {
            let why = "it goes by what single clients report";
            let hint = "fedavg, fedprox, fedavgm, fedadam, fedyogi and fedadagrad step after the noise";
            return refuse(format!("--strategy {strategy}"), why, hint);
        }
        if self.min_clients > 1 {
            let why = "whether there is a model would tell how many came";
            return refuse(
                "--min-clients".to_owned(),
                why,
                "leave it out: a round without clients is noise alone",
            );
        }
        if self.backend.asked == Asked::Gpu {
            return refuse("--backend gpu".to_owned(), "sums are made on the CPU", "use auto or cpu");
        }
        Ok(())
    }
}

impl Run {
    /// Releases the round, if its budget holds it.
    pub(crate) fn release(
        mut self,
        how: &Private,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Report, MergeError> {
        let mut account = Account::open(&how.directory).map_err(PrivateError::from)?;
        self.check_base_marks(&account)?;
        let clipped = self.clip(how, account.books(), pool, progress)?;
        let request = Request {
            round: self.job.expected.round,
            dimension: clipped.dimension,
            clients: clipped.round.set.clients.iter().map(|client| client.id.clone()).collect(),
            summed: summed(&clipped.edges),
            inputs_sha256: pool.install(|| self.inputs(&clipped))?,
            output: self.job.output.clone(),
            resumable: how.resumable,
            test_seed: how.test_seed,
        };
        if how.test_seed.is_some() {
            tracing::warn!(
                "--test-seed: the noise comes from a number that somebody chose: the model is NOT private"
            );
        }
        let Clipped { round, terms, grid, mut clips, edges, .. } = clipped;
        let granted = match charge::charge(&mut account, &request).map_err(PrivateError::from)? {
            Answer::Granted(granted) => granted,
            Answer::Existing(standing) => return self.tell_standing(&round, &standing),
            Answer::Refused(verdict) => {
                let mut report = self.report_rows(&round);
                report.refused = Some(format!("over the privacy budget: {verdict}"));
                return Err(MergeError::Refused(Box::new(report)));
            }
            Answer::WrongRound(why) => {
                let mut report = self.report_rows(&round);
                report.refused = Some(why.to_string());
                return Err(MergeError::Refused(Box::new(report)));
            }
        };
        leave_out(&round.set, &mut clips, &granted.counted);
        let next_clip = self.next_clip(&account, &granted, &terms, (&clips, &edges));
        let coordinates = round.set.layout.parameters() as u64;
        let noise = noise::of_grant(&account, &granted, coordinates, self.job.isa, pool)
            .map_err(PrivateError::from)?;
        let sum = ClippedSum::new(grid, &each(&clips), edges);
        let sum = NoisedSum::new(sum, noise, terms.denominator);
        self.release = Some(Release { sum, marks: granted.stamp(next_clip) });
        self.chosen = Some(Chosen::cpu("sums that are released are of integers"));
        let judgement = self.judgement_of_mean(&round, &clips)?;
        let report =
            self.combine_and_publish(&round, &judgement, pool, progress).map_err(|why| match why {
                Stopped::Error(why) => why,
                Stopped::BadUpdates(found) => {
                    let client = found.first().map_or(0, |(client, _)| *client);
                    PrivateError::Longer { path: round.set.clients[client].model.path.clone() }.into()
                }
            })?;
        let output = report
            .output
            .as_ref()
            .map_or_else(|| self.job.output.clone(), |output| output.path.clone().into());
        charge::release(&mut account, granted, &output, next_clip).map_err(PrivateError::from)?;
        Ok(report)
    }

    /// Clips the round's clients, and opens the sums that go with them.
    pub(crate) fn clip(
        &mut self,
        how: &Private,
        books: &Books,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Clipped, MergeError> {
        self.job.check_private()?;
        let round = self.assemble_private()?;
        let set = &round.set;
        let dimension: u64 = floats(set).iter().map(|range| range.len() as u64).sum();
        let terms = books.terms(dimension).map_err(PrivateError::from)?;
        let grid = Grid::at(terms.level, terms.clip, terms.value_multiplier).map_err(PrivateError::from)?;
        let edge_terms = sum_file::Terms {
            plan_sha256: books.state.init.plan_sha256,
            base: self.base_digest()?.unwrap_or_default().to_owned(),
            round: self.job.expected.round,
            clip: terms.clip,
            bound: grid.bound(),
            level: grid.level(),
        };
        let edges = SumFile::open_all(&how.sums, &set.layout, &edge_terms).map_err(PrivateError::from)?;
        self.check_claims(set, &edges)?;
        let elsewhere: usize = edges.iter().map(|edge| edge.description.clients.len()).sum();
        let (found, most) = ((set.clients.len() + elsewhere) as u64, grid.most_clients());
        if found > most {
            return Err(PrivateError::TooMany { found, most }.into());
        }
        let clips = Clips { isa: self.job.isa, set, pool, progress };
        let clips = clips.find(&grid).map_err(CombineError::from)?;
        tell(set, &clips);
        warn_of_tensors(set);
        Ok(Clipped { round, dimension, terms, edge_terms, grid, clips, edges })
    }

    /// A client of an earlier sum must not come again.
    fn check_claims(&self, set: &UpdateSet, edges: &[SumFile]) -> Result<(), MergeError> {
        for client in &set.clients {
            if let Some(edge) = edges.iter().find(|edge| edge.description.clients.contains(&client.id)) {
                let (path, id) = (edge.model.path.clone(), client.id.clone());
                return Err(PrivateError::from(SumFileError::Twice { path, id }).into());
            }
        }
        Ok(())
    }

    /// A base that was released under a budget must be known to the ledger.
    fn check_base_marks(&self, account: &Account) -> Result<(), MergeError> {
        let Some(base) = &self.base else {
            let hint = "the model that updates started from tells their layout, which no client may choose";
            return Err(PrivateError::Combination {
                option: "no --base".to_owned(),
                why: "expected --base MODEL",
                hint,
            }
            .into());
        };
        let (path, metadata) = (&base.model.path, &base.model.metadata);
        let marks = Stamp::of(path, metadata).map_err(PrivateError::from)?;
        marks
            .map_or(Ok(()), |marks| account.check_base(path, &marks))
            .map_err(|why| PrivateError::from(why).into())
    }

    /// The clients that count, and those that count as zero.
    fn assemble_private(&mut self) -> Result<Round, MergeError> {
        let mut updates = std::mem::take(&mut self.updates);
        let mut claims: HashMap<String, usize> = HashMap::new();
        for update in &updates {
            *claims.entry(update.id.clone()).or_default() += 1;
        }
        for update in updates.iter_mut().filter(|update| claims[&update.id] > 1) {
            update.faults.push(Fault::ClaimedTwice { id: update.id.clone() });
        }
        let unread = |source| MergeError::Read { path: self.job.base.clone().unwrap_or_default(), source };
        let (mut set, rejected) =
            admit::admit(updates, self.base.clone(), &self.job.expected).map_err(unread)?;
        for update in &rejected {
            let more = match update.faults.len() {
                0 | 1 => String::new(),
                faults => format!(" (and {} more faults)", faults - 1),
            };
            if let Some(fault) = update.faults.first() {
                tracing::warn!("{}: {fault}{more}: the client counts as zero", update.path.display());
            }
        }
        // What is merged is each client's delta, whatever it sent.
        set.frame = Frame::Deltas;
        self.job.check_outputs(&set, &rejected)?;
        self.open_state(&mut set)?;
        let clients = set.clients.iter().map(admit::Client::reported).collect();
        let weights = vec![1.0; set.clients.len()];
        let cohort = Cohort { clients, weights, round: self.job.expected.round, population: None };
        let keeping = StateSpec::of(&self.job.aggregation);
        Ok(Round {
            set,
            rejected,
            weights_source: "uniform",
            byzantine: None,
            cohort,
            tiers: Vec::new(),
            keeping,
        })
    }

    /// The digest of all that the output depends on, but the key.
    fn inputs(&self, clipped: &Clipped) -> Result<Sha256, MergeError> {
        let set = &clipped.round.set;
        let mut all = String::new();
        let mut add = |text: &str| all.extend([&text.len().to_string(), ":", text]);
        add(env!("CARGO_PKG_VERSION"));
        add(&self.job.aggregation.strategy.to_string());
        add(self.base_digest()?.unwrap_or_default());
        let digest = |model: &crate::io::model_file::ModelFile| {
            let unread = |source| MergeError::Read { path: model.path.clone(), source };
            Blake3::of(&model.files).map_err(unread)
        };
        if let Some(state) = &set.state {
            add(&digest(&state.model)?);
        }
        for (client, found) in set.clients.iter().zip(&clipped.clips) {
            add(&client.id);
            add(&client.metadata.kind.to_string());
            add(&found.digest);
        }
        for edge in &clipped.edges {
            add(&digest(&edge.model)?);
        }
        Ok(Sha256::of(all))
    }

    /// Tells of a release that stands there already, in the report too: the run that made it may have been cut off before
    /// it had written that.
    fn tell_standing(&self, round: &Round, standing: &ExistingRelease) -> Result<Report, MergeError> {
        // As the user calls it.
        let path = self.job.output.with_file_name(standing.path.file_name().unwrap_or_default());
        tracing::warn!(
            "{} is the release {} of these updates already: nothing is spent",
            path.display(),
            standing.release_id
        );
        let layout = &round.set.merged.layout;
        let output = Output {
            path: path.display().to_string(),
            files: Vec::new(),
            tensors: layout.tensors().len(),
            parameters: layout.parameters(),
            metadata: BTreeMap::new(),
        };
        let report = Report { published: true, output: Some(output), ..self.report_rows(round) };
        if let Some((path, staged)) = self.stage_report(&report)? {
            publish_report(&path, staged).map_err(MergeError::from)?;
        }
        Ok(report)
    }

    /// The clip bound of the next round, if it follows the norms.
    fn next_clip(
        &self,
        account: &Account,
        granted: &Grant,
        terms: &NoiseTerms,
        (clips, edges): (&[Found], &[SumFile]),
    ) -> Option<f64> {
        let ClipBound::Adaptive(adaptive) = account.plan().clip else { return None };
        let noise = noise::of_count(self.job.isa, &granted.key, terms.level);
        let below = below(terms, clips, edges);
        Some(adaptive_clip::next_clip(&adaptive, (terms.clip, terms.denominator), terms.level, below, noise))
    }

    /// That every client counts alike, and how the server steps.
    fn judgement_of_mean(&self, round: &Round, clips: &[Found]) -> Result<Judgement, MergeError> {
        let clients = round.set.clients.len();
        let decided = Decided { steps: round.steps(), coefficients: None, geometry: None, rule: "mean" };
        let verdict = |found: &Found| {
            let reason = match found.clip.treatment {
                Treatment::Whole => "added to the noised sum",
                Treatment::Clipped => "clipped, and added to the noised sum",
                Treatment::Void => "counts as zero",
            };
            let kept = found.clip.treatment != Treatment::Void;
            Verdict { kept, weight: None, score: None, reason: reason.to_owned() }
        };
        Ok(Judgement {
            decision: Decision {
                recipe: Recipe {
                    mixing: None,
                    reduction: Reduction::WeightedMean { weights: vec![1.0; clients] },
                },
                verdicts: clips.iter().map(verdict).collect(),
                warnings: Vec::new(),
            },
            server_step: self.job.aggregation.strategy.step(&decided)?,
            steps: Vec::new(),
            shadows: Vec::new(),
            metrics: None,
            sign_agreement: None,
            norms: Some(clips.iter().map(|found| found.norm).collect()),
            distances: None,
            screened: true,
        })
    }
}

/// The clients of sums that were made elsewhere.
fn summed(edges: &[SumFile]) -> Vec<String> {
    edges.iter().flat_map(|edge| edge.description.clients.iter().cloned()).collect()
}

/// Lets clients that come too often or too soon count as zero.
pub(crate) fn leave_out(set: &UpdateSet, clips: &mut [Found], counted: &[bool]) {
    for ((client, found), counts) in set.clients.iter().zip(clips).zip(counted) {
        if !counts {
            tracing::warn!("{}: comes more often or sooner than the plan allows: counts as zero", client.id);
            found.clip = Clip::VOID;
        }
    }
}

/// Integers have no part in the noised sum, and noise on a variance may leave it below zero.
fn warn_of_tensors(set: &UpdateSet) {
    if let Some(spec) = set.layout.tensors().iter().find(|spec| spec.dtype.kind() != Kind::Float) {
        tracing::warn!("`{}` holds integers: such tensors stay the base's", spec.name);
    }
    if let Some(spec) = set.layout.tensors().iter().find(|spec| spec.name.ends_with("running_var")) {
        let name = &spec.name;
        tracing::warn!("noise on `{name}` may leave it below zero: --personal fedbn keeps the base's");
    }
}

/// Tells the operator, and nobody else, what became of the clients.
fn tell(set: &UpdateSet, clips: &[Found]) {
    for (client, Found { clip, norm, .. }) in set.clients.iter().zip(clips) {
        match clip.treatment {
            Treatment::Void => tracing::warn!(
                "{}: holds values that are not finite, or cannot be read: the client counts as zero",
                client.model.path.display()
            ),
            Treatment::Clipped => tracing::info!("{}: clipped from norm {norm}", client.id),
            Treatment::Whole => {}
        }
    }
}
