//! The whole job of merging a round: open, check, decide, combine, publish.

use crate::io::discover;
use crate::io::memory::peak_resident_bytes;
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::model_writer::{self, ModelWriter, WriteError};
use crate::io::publish::{self, Staged};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::lanes::Isa;
use crate::model::layout::TensorSpec;
use crate::round::combine::{CombineError, Combined, Pass};
use crate::round::fault::Fault;
use crate::round::metadata::{UPDATE_KEYS, UpdateKind};
use crate::round::passes::PassError;
use crate::round::refusal::MergeError;
use crate::round::roster::{self, Base, Client, Expectations, Update, UpdateSet};
use crate::round::survey::{Survey, non_finite_faults};
use crate::round::weights::Weighting;
use crate::rules::{self, Byzantine, Decision, Rule, Statistics};
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{
    BackendChoice, Bytes, ClientRow, Output, RejectedRow, Report, SCHEMA, Settings, Timings, Tool,
};
use rayon::ThreadPool;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to do about an update that cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBadUpdate {
    /// End the run with an error.
    Fail,
    /// Go on without it.
    Skip,
}

/// A merge to be done.
#[derive(Debug)]
pub struct Job {
    /// Update files and directories of them.
    pub updates: Vec<PathBuf>,
    /// The model the updates started from.
    pub base: Option<PathBuf>,
    /// How to combine them.
    pub rule: Arc<dyn Rule>,
    /// How many clients are assumed hostile.
    pub byzantine: Option<Byzantine>,
    /// How much each client counts.
    pub weighting: Weighting,
    /// The fewest clients that make a round.
    pub min_clients: usize,
    /// What to do about bad updates.
    pub on_bad_update: OnBadUpdate,
    /// What an update must say to take part.
    pub expected: Expectations,
    /// Where the merged model goes.
    pub output: PathBuf,
    /// The most bytes of data in one file of it.
    pub max_shard_bytes: Option<u64>,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// Other files that are read, which no output may replace.
    pub other_inputs: Vec<PathBuf>,
    /// Instruction set to run on.
    pub isa: Isa,
}

impl Job {
    /// Merges the updates, and publishes the model and the report. Returns the report.
    ///
    /// # Errors
    ///
    /// When the input is bad, policy refuses, or the disk does; no model is published then.
    pub fn run(self, pool: &ThreadPool, progress: &Progress) -> Result<Report, MergeError> {
        let report = Run::open(self, pool)?.merge(pool, progress);
        progress.finish();
        report
    }

    fn check_targets(&self) -> Result<(), WriteError> {
        model_writer::check_target(&self.output)?;
        self.report.as_deref().map_or(Ok(()), model_writer::check_file_target)
    }

    fn check_outputs(&self, set: &UpdateSet, rejected: &[Update]) -> Result<(), MergeError> {
        let clients = set.clients.iter().map(|client| &client.model);
        let models = clients.chain(rejected.iter().filter_map(|update| update.model.as_ref()));
        let models: Vec<&ModelFile> = models.chain(set.base.iter().map(|base| &base.model)).collect();
        let files = models.iter().flat_map(|model| &model.files).map(SourceFile::identity);
        let named = models.iter().map(|model| &model.path).chain(&self.other_inputs);
        let named = named.chain(rejected.iter().map(|update| &update.path));
        let inputs: Vec<(u64, u64)> = files.chain(named.filter_map(|path| identity_of(path))).collect();

        let family = model_writer::family(&self.output).map_err(WriteError::at(&self.output))?;
        if let Some(report) = &self.report
            && family.iter().any(|path| publish::resolved(path) == publish::resolved(report))
        {
            return Err(MergeError::ReportIsOutput { path: report.clone() });
        }
        let is_input = |path: &PathBuf| identity_of(path).is_some_and(|id| inputs.contains(&id));
        match family.into_iter().chain(self.report.clone()).find(is_input) {
            Some(path) => Err(MergeError::OutputIsInput { path }),
            None => Ok(()),
        }
    }
}

/// A job whose updates are open.
struct Run {
    job: Job,
    base: Option<Arc<Base>>,
    updates: Vec<Update>,
    /// Files of rejected updates that the user was told about.
    told: BTreeSet<PathBuf>,
    started: Instant,
    timings: Timings,
    bytes: Bytes,
    threads: usize,
}

/// A set of clients, what they weigh, and who is not among them.
struct Round {
    set: UpdateSet,
    rejected: Vec<Update>,
    weights_source: &'static str,
    byzantine: Option<usize>,
}

impl Run {
    fn open(job: Job, pool: &ThreadPool) -> Result<Self, MergeError> {
        let started = Instant::now();
        job.check_targets()?;
        let paths = discover::updates(&job.updates)?;
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        let base = job.base.as_deref().map(|path| roster::open_base(path, &files, &tables)).transpose()?;
        let updates = pool.install(|| roster::open(&paths, &files, &tables));
        Ok(Self {
            job,
            base: base.map(Arc::new),
            updates,
            told: BTreeSet::new(),
            started,
            timings: Timings { open_s: started.elapsed().as_secs_f64(), ..Timings::default() },
            bytes: Bytes::default(),
            threads: pool.current_num_threads(),
        })
    }

    /// Merges, and as long as that finds something wrong with an update that may be skipped, merges again without it:
    /// every round starts from all updates, as if the bad ones had never been there.
    fn merge(mut self, pool: &ThreadPool, progress: &Progress) -> Result<Report, MergeError> {
        loop {
            let (set, rejected) = self.admit()?;
            self.tell_rejected(&rejected)?;
            let weights = match self.job.weighting.weigh(&set.clients)? {
                Ok(weights) => weights,
                Err(faults) => {
                    self.updates = set.dissolve(rejected, faults);
                    continue;
                }
            };
            let byzantine = self.job.byzantine.as_ref().map(|share| share.of(weights.values.len()));
            let round = Round { set, rejected, weights_source: weights.source, byzantine };
            self.check_quorum(&round)?;
            if weights.source == "uniform" && self.job.weighting == Weighting::Default {
                tracing::warn!("no update states `num_examples`: every client weighs the same");
            }
            let statistics = Statistics { weights: weights.values, byzantine };
            let decision = rules::decide(self.job.rule.as_ref(), &statistics)?;
            match self.combine_and_publish(&round, &decision, pool, progress) {
                Ok(report) => return Ok(report),
                Err(why) => {
                    let found = self.culprits(why, &round.set, pool, progress)?;
                    self.updates = round.set.dissolve(round.rejected, found);
                }
            }
        }
    }

    fn admit(&mut self) -> Result<(UpdateSet, Vec<Update>), MergeError> {
        let updates = std::mem::take(&mut self.updates);
        let admitted = roster::admit(updates, self.base.clone(), &self.job.expected);
        let (set, mut rejected) = admitted
            .map_err(|source| MergeError::Read { path: self.job.base.clone().unwrap_or_default(), source })?;
        rejected.sort_by(|a, b| a.path.cmp(&b.path));
        self.job.check_outputs(&set, &rejected)?;
        Ok((set, rejected))
    }

    /// What is wrong with the updates that a pass failed on, by their place in the set.
    fn culprits(
        &mut self,
        why: MergeError,
        set: &UpdateSet,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Vec<(usize, Fault)>, MergeError> {
        match why {
            MergeError::Combine(why) if why.may_be_non_finite() => {
                progress.start("looking for non-finite values", data_bytes(set));
                self.bytes.read += data_bytes(set);
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

    /// Bad updates end the run, or are told about, once, and left out.
    fn tell_rejected(&mut self, rejected: &[Update]) -> Result<(), MergeError> {
        if !rejected.is_empty() && self.job.on_bad_update == OnBadUpdate::Fail {
            return Err(MergeError::bad_updates(rejected));
        }
        for update in rejected {
            if self.told.insert(update.path.clone()) {
                for fault in &update.faults {
                    tracing::warn!(client = update.id, "skipped {}: {fault}", update.path.display());
                }
            }
        }
        Ok(())
    }

    fn check_quorum(&mut self, round: &Round) -> Result<(), MergeError> {
        let (clients, least) = (round.set.clients.len(), self.job.min_clients.max(1));
        if clients >= least {
            return Ok(());
        }
        let rejected = round.rejected.len();
        let why = format!("{clients} usable updates ({rejected} rejected), expected at least {least}");
        let mut report = self.report_rows(round);
        report.refused = Some(why);
        if let Some((path, staged)) = self.stage_report(&report)? {
            publish_report(&path, staged)?;
        }
        Err(MergeError::Refused(Box::new(report)))
    }

    fn combine_and_publish(
        &mut self,
        round: &Round,
        decision: &Decision,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<Report, MergeError> {
        let (job, set) = (&self.job, &round.set);
        let metadata = self.output_metadata(round);
        let writer = ModelWriter::create(&job.output, &set.layout, &metadata, job.max_shard_bytes)?;
        progress.start("merging", data_bytes(set));
        let started = Instant::now();
        self.bytes.read += data_bytes(set);
        let with_norms = job.report.is_some();
        let pass = Pass { isa: job.isa, set, recipe: &decision.recipe, with_norms, progress };
        let combined =
            pass.run(pool, |tile, bytes| writer.write(set.layout.pieces(tile.coordinates.clone()), bytes))?;
        check_unchanged(set)?;
        self.timings.pass_s += started.elapsed().as_secs_f64();
        self.add_clock(&combined, writer.sync()?);
        self.bytes.written = writer.bytes();

        // The report is on disk before the model has its name: what can fail, fails before.
        let report = self.report(round, decision, &combined, &writer, metadata);
        let staged = self.stage_report(&report)?;
        writer.publish()?;
        if let Some((path, staged)) = staged {
            publish_report(&path, staged)?;
        }
        let (merged, rejected) = (set.clients.len(), round.rejected.len());
        tracing::info!("merged {merged} updates by {} ({rejected} rejected)", self.job.rule);
        Ok(report)
    }

    /// What the merged file says about itself: what the reference said, and how it was made. No times, no paths,
    /// no thread counts: the same round gives the same bytes.
    fn output_metadata(&self, round: &Round) -> BTreeMap<String, String> {
        let mut metadata = round.set.metadata.clone();
        metadata.retain(|key, _| !UPDATE_KEYS.contains(&key.as_str()) && !key.starts_with("fedmill"));
        metadata.insert("fedmill.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        metadata.insert("fedmill.rule".to_owned(), self.job.rule.to_string());
        metadata.insert("fedmill.clients".to_owned(), round.set.clients.len().to_string());
        if self.job.rule.uses_weights() {
            metadata.insert("fedmill.weights".to_owned(), round.weights_source.to_owned());
        }
        if round.set.merged_kind() == UpdateKind::Delta {
            metadata.insert("kind".to_owned(), UpdateKind::Delta.to_string());
        }
        metadata
    }

    fn add_clock(&mut self, combined: &Combined, sync: Duration) {
        let threads = self.threads as f64;
        self.timings.read_s = combined.clock.read.as_secs_f64() / threads;
        self.timings.compute_s = combined.clock.compute.as_secs_f64() / threads;
        self.timings.write_s = combined.clock.write.as_secs_f64() / threads;
        self.timings.sync_s = sync.as_secs_f64();
    }

    fn stage_report(&self, report: &Report) -> Result<Option<(PathBuf, Staged)>, MergeError> {
        let Some(path) = &self.job.report else { return Ok(None) };
        let json = format!("{}\n", serde_json::to_string_pretty(report).map_err(MergeError::Report)?);
        let staged = publish::stage(path, json.as_bytes()).map_err(WriteError::at(path))?;
        Ok(Some((path.clone(), staged)))
    }

    fn report(
        &self,
        round: &Round,
        decision: &Decision,
        combined: &Combined,
        writer: &ModelWriter,
        metadata: BTreeMap<String, String>,
    ) -> Report {
        for warning in &decision.warnings {
            tracing::warn!("{warning}");
        }
        let mut report = self.report_rows(round);
        for (i, (row, verdict)) in report.clients.iter_mut().zip(&decision.verdicts).enumerate() {
            row.weight = verdict.weight;
            row.score = verdict.score;
            row.kept = verdict.kept;
            row.reason.clone_from(&verdict.reason);
            row.norm = combined.norms.as_ref().map(|norms| norms[i]);
        }
        report.published = true;
        report.warnings.clone_from(&decision.warnings);
        report.output = Some(Output {
            path: writer.path().display().to_string(),
            files: writer.files().map(|path| path.display().to_string()).collect(),
            tensors: round.set.layout.tensors().len(),
            parameters: round.set.layout.parameters(),
            metadata,
        });
        report
    }

    /// The report as far as it is known without a decision.
    fn report_rows(&self, round: &Round) -> Report {
        let total_s = self.started.elapsed().as_secs_f64();
        Report {
            schema: SCHEMA,
            tool: Tool { name: "fedmill", version: env!("CARGO_PKG_VERSION") },
            published: false,
            refused: None,
            settings: self.settings(round),
            backend: BackendChoice {
                name: "cpu",
                instruction_set: self.job.isa.to_string(),
                why: "the CPU is the only backend of this version",
            },
            clients: round.set.clients.iter().map(client_row).collect(),
            rejected: round.rejected.iter().map(rejected_row).collect(),
            warnings: Vec::new(),
            output: None,
            bytes: self.bytes,
            timings: Timings { total_s, ..self.timings },
            peak_resident_bytes: peak_resident_bytes(),
        }
    }

    fn settings(&self, round: &Round) -> Settings {
        Settings {
            rule: self.job.rule.to_string(),
            byzantine: round.byzantine,
            weights: round.weights_source,
            base: self.job.base.as_ref().map(|path| path.display().to_string()),
            min_clients: self.job.min_clients,
            on_bad_update: match self.job.on_bad_update {
                OnBadUpdate::Fail => "fail",
                OnBadUpdate::Skip => "skip",
            },
            round: self.job.expected.round,
            max_shard_size: self.job.max_shard_bytes,
            threads: self.threads,
        }
    }
}

fn publish_report(path: &Path, staged: Staged) -> Result<(), WriteError> {
    staged.publish(path).map_err(WriteError::at(path))?;
    publish::sync_directory_of(path).map_err(WriteError::at(path))
}

/// Nobody may have rewritten a file while its tiles were read: the merged model would be of two rounds.
fn check_unchanged(set: &UpdateSet) -> Result<(), MergeError> {
    let models = set.clients.iter().map(|client| &client.model);
    let models = models.chain(set.base.iter().map(|base| &base.model));
    for file in models.flat_map(|model| &model.files) {
        file.check_unchanged().map_err(|source| MergeError::Read { path: file.path().to_owned(), source })?;
    }
    Ok(())
}

/// Bytes of values of all clients, in the layout's dtypes.
fn data_bytes(set: &UpdateSet) -> u64 {
    let model: usize = set.layout.tensors().iter().map(TensorSpec::bytes).sum();
    (model * set.clients.len()) as u64
}

fn client_row(client: &Client) -> ClientRow {
    ClientRow {
        id: client.id.clone(),
        file: client.model.path.display().to_string(),
        bytes: client.model.bytes(),
        examples: client.metadata.num_examples,
        weight: None,
        norm: None,
        score: None,
        kept: false,
        reason: "no model was published".to_owned(),
    }
}

fn rejected_row(update: &Update) -> RejectedRow {
    let errors: Vec<String> = update.faults.iter().map(Fault::to_string).collect();
    let error = errors.first().cloned().unwrap_or_default();
    RejectedRow { id: update.id.clone(), file: update.path.display().to_string(), error, errors }
}
