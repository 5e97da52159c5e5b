//! The whole job of merging a round: open, check, decide, combine, publish.

use crate::io::discover;
use crate::io::discover::DiscoverError;
use crate::io::interrupt::Interrupted;
use crate::io::memory::peak_resident_bytes;
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::model_writer::{self, ModelWriter, Published, WriteError};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::lanes::Isa;
use crate::model::layout::TensorSpec;
use crate::round::combine::{CombineError, Combined, Pass};
use crate::round::fault::Fault;
use crate::round::metadata::{UPDATE_KEYS, UpdateKind};
use crate::round::passes::{Clock, PassError};
use crate::round::roster::{self, BadBase, Expectations, Update, UpdateSet};
use crate::round::survey::{Survey, reject_non_finite};
use crate::round::weights::{Weighting, WeightsError};
use crate::rules::{self, Byzantine, Decision, Rule, RuleError, Statistics};
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{
    BackendChoice, Bytes, ClientRow, Output, RejectedRow, Report, SCHEMA, Settings, Timings, Tool,
};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::path::PathBuf;
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
    /// Where the report goes; the caller writes it.
    pub report: Option<PathBuf>,
    /// Other files that are read, which no output may replace.
    pub other_inputs: Vec<PathBuf>,
    /// Instruction set to run on.
    pub isa: Isa,
}

/// Why no model was published.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum MergeError {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Base(#[from] BadBase),
    #[error("{}", list(.0))]
    BadUpdates(Vec<Update>),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("{}: is an input too, expected another output path", .path.display())]
    OutputIsInput { path: PathBuf },
    #[error(transparent)]
    Combine(#[from] CombineError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Policy refused; not an error of the input.
    #[error("{}", .0.refused.as_deref().unwrap_or_default())]
    Refused(Box<Report>),
}

/// Bad updates that an error message lists before it only counts them.
const MOST_LISTED: usize = 20;

fn list(bad: &[Update]) -> String {
    let mut lines: Vec<String> = bad
        .iter()
        .flat_map(|update| update.faults.iter().map(move |fault| (&update.path, fault)))
        .map(|(path, fault)| format!("{}: {fault}", path.display()))
        .collect();
    if lines.len() > MOST_LISTED {
        let more = lines.len() - MOST_LISTED;
        lines.truncate(MOST_LISTED);
        lines.push(format!("and {more} more faults in {} updates", bad.len()));
    }
    lines.join("\n")
}

impl MergeError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadUpdates(bad) => {
                let specific = bad.iter().flat_map(|update| &update.faults).find_map(Fault::hint);
                Some(specific.unwrap_or("pass --on-bad-update skip to merge the others").to_owned())
            }
            Self::Write(WriteError::NoDirectory { path }) => Some(format!("mkdir -p {}", path.display())),
            Self::Combine(CombineError::DoesNotFit { .. }) => {
                Some("the deltas push the base past its dtype; merge onto a base of a wider one".to_owned())
            }
            _ => None,
        }
    }

    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Write(WriteError::Interrupted(Interrupted { signal }))
            | Self::Combine(
                CombineError::Write(WriteError::Interrupted(Interrupted { signal }))
                | CombineError::Pass(PassError::Interrupted(Interrupted { signal })),
            ) => Some(*signal),
            _ => None,
        }
    }
}

impl Job {
    /// Merges the updates and publishes the model. Returns the report, which the caller may write.
    ///
    /// # Errors
    ///
    /// When the input is bad, policy refuses, or the disk does; nothing is published then.
    pub fn run(self, pool: &ThreadPool, progress: &Progress) -> Result<Report, MergeError> {
        let started = Instant::now();
        let mut run = Run::open(self, pool)?;
        run.timings.open_s = started.elapsed().as_secs_f64();
        let merged = run.merge(pool, progress);
        progress.finish();
        let mut report = merged?;
        report.timings.total_s = started.elapsed().as_secs_f64();
        report.peak_resident_bytes = peak_resident_bytes();
        Ok(report)
    }

    fn check_outputs(&self, set: &UpdateSet, rejected: &[Update]) -> Result<(), MergeError> {
        let files =
            |model: &ModelFile| -> Vec<(u64, u64)> { model.files.iter().map(SourceFile::identity).collect() };
        let mut inputs: Vec<(u64, u64)> =
            set.clients.iter().flat_map(|client| files(&client.model)).collect();
        inputs.extend(set.base.iter().flat_map(|base| files(&base.model)));
        let named = self.other_inputs.iter().chain(&self.base);
        let named = named.chain(set.clients.iter().map(|client| &client.model.path));
        inputs.extend(named.chain(rejected.iter().map(|r| &r.path)).filter_map(|path| identity_of(path)));

        let mut outputs = model_writer::family(&self.output).map_err(WriteError::at(&self.output))?;
        if let Some(report) = &self.report {
            if outputs.contains(report) {
                return Err(MergeError::OutputIsInput { path: report.clone() });
            }
            outputs.push(report.clone());
        }
        match outputs.into_iter().find(|path| identity_of(path).is_some_and(|id| inputs.contains(&id))) {
            Some(path) => Err(MergeError::OutputIsInput { path }),
            None => Ok(()),
        }
    }
}

/// A job whose updates are open.
struct Run {
    job: Job,
    set: UpdateSet,
    rejected: Vec<Update>,
    /// How many of the rejected the user was told about.
    told: usize,
    weights_source: &'static str,
    byzantine: Option<usize>,
    timings: Timings,
    bytes: Bytes,
    threads: usize,
}

impl Run {
    fn open(job: Job, pool: &ThreadPool) -> Result<Self, MergeError> {
        model_writer::check_target(&job.output)?;
        let paths = discover::updates(&job.updates)?;
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        let base = job.base.as_deref().map(|path| roster::open_base(path, &files, &tables)).transpose()?;
        let opened = pool.install(|| roster::open(&paths, &files, &tables));
        let (set, rejected) = roster::admit(opened, base, &job.expected)
            .map_err(|source| MergeError::Read { path: job.base.clone().unwrap_or_default(), source })?;
        job.check_outputs(&set, &rejected)?;
        let threads = pool.current_num_threads();
        let (timings, bytes) = (Timings::default(), Bytes::default());
        let (told, weights_source, byzantine) = (0, "none", None);
        Ok(Self { job, set, rejected, told, weights_source, byzantine, timings, bytes, threads })
    }

    fn merge(mut self, pool: &ThreadPool, progress: &Progress) -> Result<Report, MergeError> {
        loop {
            let weights = self.job.weighting.apply(&mut self.set.clients, &mut self.rejected)?;
            self.weights_source = weights.source;
            self.tell_rejected()?;
            self.byzantine = self.job.byzantine.as_ref().map(|share| share.of(weights.values.len()));
            self.check_quorum()?;
            let statistics = Statistics { weights: weights.values, byzantine: self.byzantine };
            let decision = rules::decide(self.job.rule.as_ref(), &statistics)?;
            match self.combine_and_publish(&decision, pool, progress) {
                Ok((combined, published)) => return Ok(self.report(decision, combined, published)),
                Err(why) => self.reject_culprits(why, pool, progress)?,
            }
        }
    }

    /// Takes the updates that a pass failed on out of the set, for another try without them.
    fn reject_culprits(
        &mut self,
        why: MergeError,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<(), MergeError> {
        match why {
            MergeError::Combine(why) if why.may_be_non_finite() => {
                progress.start("looking for non-finite values", self.data_bytes());
                self.bytes.read += self.data_bytes();
                let survey = Survey { isa: self.job.isa, set: &self.set, pool, progress };
                let measured = survey.measure().map_err(CombineError::from)?;
                let culprits = reject_non_finite(&mut self.set, &measured);
                if culprits.is_empty() {
                    return Err(why.into());
                }
                self.rejected.extend(culprits);
                Ok(())
            }
            MergeError::Combine(CombineError::Pass(PassError::Read {
                client: Some(row), source, ..
            })) => {
                let client = self.set.clients.remove(row);
                self.rejected.push(client.reject(Fault::Read(source)));
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Bad updates end the run, or are told about, once, and left out.
    fn tell_rejected(&mut self) -> Result<(), MergeError> {
        if !self.rejected.is_empty() && self.job.on_bad_update == OnBadUpdate::Fail {
            self.rejected.sort_by(|a, b| a.path.cmp(&b.path));
            return Err(MergeError::BadUpdates(std::mem::take(&mut self.rejected)));
        }
        for update in &self.rejected[self.told..] {
            for fault in &update.faults {
                tracing::warn!(client = update.id, "skipped {}: {fault}", update.path.display());
            }
        }
        self.told = self.rejected.len();
        Ok(())
    }

    fn check_quorum(&self) -> Result<(), MergeError> {
        let (clients, least) = (self.set.clients.len(), self.job.min_clients.max(1));
        if clients >= least {
            return Ok(());
        }
        let rejected = self.rejected.len();
        let why = format!("{clients} usable updates ({rejected} rejected), expected at least {least}");
        let mut report = self.report_rows();
        report.refused = Some(why);
        Err(MergeError::Refused(Box::new(report)))
    }

    fn combine_and_publish(
        &mut self,
        decision: &Decision,
        pool: &ThreadPool,
        progress: &Progress,
    ) -> Result<(Combined, Published), MergeError> {
        let metadata = self.output_metadata();
        let writer =
            ModelWriter::create(&self.job.output, &self.set.layout, &metadata, self.job.max_shard_bytes)?;
        progress.start("merging", self.data_bytes());
        let started = Instant::now();
        self.bytes.read += self.data_bytes();
        let pass = Pass {
            isa: self.job.isa,
            set: &self.set,
            recipe: &decision.recipe,
            with_norms: self.job.report.is_some(),
            progress,
        };
        let combined = pass
            .run(pool, |tile, bytes| writer.write(self.set.layout.pieces(tile.coordinates.clone()), bytes))?;
        self.check_unchanged()?;
        self.timings.pass_s += started.elapsed().as_secs_f64();
        let published = writer.publish()?;
        self.bytes.written = published.bytes;
        Ok((combined, published))
    }

    /// Nobody may have rewritten a file while its tiles were read: the merged model would be of two rounds.
    fn check_unchanged(&self) -> Result<(), MergeError> {
        let models = self.set.clients.iter().map(|client| &client.model);
        let models = models.chain(self.set.base.iter().map(|base| &base.model));
        for file in models.flat_map(|model| &model.files) {
            file.check_unchanged()
                .map_err(|source| MergeError::Read { path: file.path().to_owned(), source })?;
        }
        Ok(())
    }

    fn data_bytes(&self) -> u64 {
        let model: usize = self.set.layout.tensors().iter().map(TensorSpec::bytes).sum();
        (model * self.set.clients.len()) as u64
    }

    /// What the merged file says about itself: what the reference said, and how it was made. No times, no paths,
    /// no thread counts: the same round gives the same bytes.
    fn output_metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.set.metadata.clone();
        metadata.retain(|key, _| !UPDATE_KEYS.contains(&key.as_str()) && !key.starts_with("fedmill"));
        metadata.insert("fedmill.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        metadata.insert("fedmill.rule".to_owned(), self.job.rule.to_string());
        metadata.insert("fedmill.clients".to_owned(), self.set.clients.len().to_string());
        if self.job.rule.uses_weights() {
            metadata.insert("fedmill.weights".to_owned(), self.weights_source.to_owned());
        }
        if self.set.merged_kind() == UpdateKind::Delta {
            metadata.insert("kind".to_owned(), UpdateKind::Delta.to_string());
        }
        metadata
    }

    fn report(mut self, decision: Decision, combined: Combined, published: Published) -> Report {
        self.add_clock(combined.clock, published.sync_time);
        for warning in &decision.warnings {
            tracing::warn!("{warning}");
        }
        let mut report = self.report_rows();
        for (i, (row, verdict)) in report.clients.iter_mut().zip(decision.verdicts).enumerate() {
            row.weight = verdict.weight;
            row.score = verdict.score;
            row.kept = verdict.kept;
            row.reason = verdict.reason;
            row.norm = combined.norms.as_ref().map(|norms| norms[i]);
        }
        let (merged, rejected) = (report.clients.len(), report.rejected.len());
        tracing::info!("merged {merged} updates by {} ({rejected} rejected)", self.job.rule);
        report.published = true;
        report.warnings = decision.warnings;
        report.output = Some(Output {
            path: published.path,
            files: published.files,
            tensors: self.set.layout.tensors().len(),
            parameters: self.set.layout.parameters(),
            metadata: self.output_metadata(),
        });
        report
    }

    fn add_clock(&mut self, clock: Clock, sync: Duration) {
        let threads = self.threads as f64;
        self.timings.read_s = clock.read.as_secs_f64() / threads;
        self.timings.compute_s = clock.compute.as_secs_f64() / threads;
        self.timings.write_s = clock.write.as_secs_f64() / threads;
        self.timings.sync_s = sync.as_secs_f64();
    }

    /// The report as far as it is known without a decision.
    fn report_rows(&self) -> Report {
        let client = |client: &roster::Client| ClientRow {
            id: client.id.clone(),
            file: client.model.path.clone(),
            bytes: client.model.bytes(),
            examples: client.metadata.num_examples,
            weight: None,
            norm: None,
            score: None,
            kept: false,
            reason: "no model was published".to_owned(),
        };
        let mut rejected: Vec<RejectedRow> = self.rejected.iter().map(rejected_row).collect();
        rejected.sort_by(|a, b| a.file.cmp(&b.file));
        Report {
            schema: SCHEMA,
            tool: Tool { name: "fedmill", version: env!("CARGO_PKG_VERSION") },
            published: false,
            refused: None,
            settings: self.settings(),
            backend: BackendChoice {
                name: "cpu",
                instruction_set: self.job.isa.to_string(),
                why: "the CPU is the only backend of this version",
            },
            clients: self.set.clients.iter().map(client).collect(),
            rejected,
            warnings: Vec::new(),
            output: None,
            bytes: self.bytes,
            timings: self.timings,
            peak_resident_bytes: peak_resident_bytes(),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            rule: self.job.rule.to_string(),
            byzantine: self.byzantine,
            weights: self.weights_source,
            base: self.job.base.clone(),
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

fn rejected_row(update: &Update) -> RejectedRow {
    let errors: Vec<String> = update.faults.iter().map(Fault::to_string).collect();
    let error = errors.first().cloned().unwrap_or_default();
    RejectedRow { id: update.id.clone(), file: update.path.clone(), error, errors }
}
