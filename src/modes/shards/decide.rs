//! The decision on a sharded run: one judgement by all shard files, which all shards follow.
//!
//! A decision is JSON, schema `fedmill.decision/1`. It holds the identity of the run, the recipe, the server's step,
//! and the report of the judgement. Floats are written with all digits.

use crate::engine::aggregate::error::{Error, Stopped};
use crate::engine::aggregate::geometry::{GeometryError, subject_of};
use crate::engine::aggregate::report;
use crate::engine::aggregate::request::Request;
use crate::engine::decide::judge::{Judgement, judge};
use crate::engine::decide::source::{GeometrySource, JudgeError};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::sections::sections_of;
use crate::io::digest::seal;
use crate::io::model_writer::WriteError;
use crate::io::publish;
use crate::io::text;
use crate::kernels::server_step::ServerStep;
use crate::modes::shards::file::{ShardError, ShardFile, ShardKind, open_all};
use crate::modes::shards::gram::{geometry_identity, read_all, requests};
use crate::modes::shards::identity::{Difference, RunIdentity};
use crate::modes::shards::{ShardedRun, stopped};
use crate::rules::{GeometryRequest, GeometryResult, Recipe, Reduction};
use crate::telemetry::warnings;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The schema of decisions.
pub const SCHEMA: &str = "fedmill.decision/1";

/// The content of a decision file.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct DecisionFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// The digest of the file, with zeros in place of its digits; `None` in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The identity of the run, as in the metadata of its shard files.
    pub run: BTreeMap<String, String>,
    /// The recipe that combines updates.
    pub recipe: Recipe,
    /// The server's step.
    pub server_step: ServerStep,
    /// The report of the judgement.
    pub report: Value,
}

/// An opened decision, and its digest.
#[derive(Debug)]
pub struct Decision {
    /// Its content.
    pub file: DecisionFile,
    /// BLAKE3 digest of the file, in hexadecimal.
    pub digest: String,
}

/// Judges a run by the shard files of all shards, and writes the decision to the request's output. Returns the path.
///
/// # Errors
///
/// When a file is of another run or missing, or the rule or the strategy cannot be used.
pub fn decide(request: Request, shards: &[PathBuf], machine: Machine) -> Result<PathBuf, Error> {
    let run = ShardedRun::open(request, machine)?;
    let identity = run.session.machine.pool.install(|| geometry_identity(&run))?;
    let sections = sections_of(run.taken.set.layout.parameters());
    let open = || open_all(shards, ShardKind::Gram, &identity, sections);
    let shards = run.session.machine.pool.install(open)?;
    let rule = run.session.request.method.rule.to_string();
    let mut source = ShardGeometry { rule, shards, held: requests(&run) };
    let identity = RunIdentity::of(&run)?;
    let judgement = judge_by(&run, &mut source)?;
    let mut report = report::of(&run.session, &run.taken, &judgement, None);
    report.warnings = warnings::with_printed(report.warnings, true);
    let Some(recipe) = judgement.recipe else { unreachable!("a rule decides a recipe") };
    let file = DecisionFile {
        schema: SCHEMA.to_owned(),
        digest: Some(seal::placeholder()),
        run: identity.0,
        recipe,
        server_step: judgement.server_step,
        report: judgement_of(serde_json::to_value(&report).map_err(Error::Report)?),
    };
    let path = &run.session.request.outputs.model;
    let json = serde_json::to_string_pretty(&file).map_err(Error::Report)?;
    let json = seal::fill_text(format!("{json}\n"));
    let staged = publish::stage(path, json.as_bytes()).map_err(WriteError::at(path))?;
    staged.publish(path).map_err(WriteError::at(path))?;
    publish::settle_directory_of(path);
    Ok(run.session.request.outputs.model)
}

/// The fields of a report about merging. A decision leaves them out, so that a repeated `decide` gives the same bytes.
pub(super) const MERGING_FIELDS: [&str; 6] =
    ["published", "backend", "output", "bytes", "timings", "peak_resident_bytes"];

/// The settings of merging in a report.
pub(super) const MERGING_SETTINGS: [&str; 2] = ["max_shard_size", "threads"];

/// The norms of the server's step in a report, which merging measures.
pub(super) const STEP_NORMS: [&str; 2] = ["delta_norm", "step_norm"];

/// A report without the fields of merging.
fn judgement_of(mut report: Value) -> Value {
    if let Some(parts) = report.as_object_mut() {
        parts.retain(|part, _| !MERGING_FIELDS.contains(&part.as_str()));
    }
    if let Some(settings) = report["settings"].as_object_mut() {
        settings.retain(|setting, _| !MERGING_SETTINGS.contains(&setting.as_str()));
    }
    report
}

/// Judges a run by the geometry of a source.
pub(super) fn judge_by<S: GeometrySource<Error = ShardError> + Send>(
    run: &ShardedRun,
    source: &mut S,
) -> Result<Judgement, Error> {
    let Request { method, reporting, .. } = &run.session.request;
    let (taken, statistics) = (&run.taken, run.statistics.clone());
    let subject = subject_of(&taken.set);
    let machine = &run.session.machine;
    let judged = machine.decide(|| judge(method, reporting, &taken.cohort, subject, statistics, source))?;
    let judgement = judged.map_err(|why| {
        let why: JudgeError<GeometryError> = match why {
            JudgeError::Source(why) => return why.into(),
            JudgeError::Rule(why) => JudgeError::Rule(why),
            JudgeError::Strategy(why) => JudgeError::Strategy(why),
            JudgeError::TooLarge(clients) => JudgeError::TooLarge(clients),
        };
        stopped(&taken.set, Stopped::from(why))
    })?;
    run.session.check_kept(&judgement)?;
    Ok(judgement)
}

/// The geometry from the shard files of all shards.
struct ShardGeometry {
    rule: String,
    shards: Vec<ShardFile>,
    /// The measurements in the files.
    held: Vec<GeometryRequest<'static>>,
}

impl GeometrySource for ShardGeometry {
    type Error = ShardError;

    fn measure(&mut self, request: &GeometryRequest) -> Result<GeometryResult, ShardError> {
        if request.mixing.is_some() {
            return Err(ShardError::SecondLook { rule: self.rule.clone() });
        }
        assert!(
            self.held.contains(request),
            "shard files hold every measurement of a judgement: {request:?}"
        );
        Ok(read_all(&self.shards, request)?.conclude(request).0)
    }

    fn leave_gpu(&mut self) -> bool {
        false
    }
}

/// The most bytes of a decision: a mixing matrix of 10,000 clients has 100 million numbers.
const MOST_BYTES: u64 = 4 << 30;

impl Decision {
    /// Reads a decision of a run.
    ///
    /// # Errors
    ///
    /// When the file is not a decision, or the decision of another run.
    pub fn read(path: &Path, key: &RunIdentity, clients: usize) -> Result<Self, ShardError> {
        let bad = |why: String| ShardError::NotADecision { path: path.to_owned(), why };
        let json = text::read_large(path, MOST_BYTES).map_err(|why| bad(format!("cannot be read: {why}")))?;
        let file: DecisionFile = serde_json::from_str(&json).map_err(|why| bad(why.to_string()))?;
        match &file.digest {
            Some(stated) => seal::check_text(&json, stated)
                .map_err(|why| ShardError::Damaged { path: path.to_owned(), what: why.to_string() })?,
            None => seal::warn_of_unsealed(&[path]),
        }
        if file.schema != SCHEMA {
            return Err(bad(format!("schema is `{}`, expected `{SCHEMA}`", file.schema)));
        }
        if let Some(Difference { what, found, expected }) = RunIdentity(file.run.clone()).difference(key) {
            return Err(ShardError::Stranger { path: path.to_owned(), what, found, expected });
        }
        if !is_for(&file.recipe, clients) {
            return Err(bad(format!("its recipe is not for {clients} clients")));
        }
        if !file.report["settings"].is_object() {
            return Err(bad("its report has no settings".to_owned()));
        }
        Ok(Self { digest: blake3::hash(json.as_bytes()).to_hex().to_string(), file })
    }
}

fn is_for(recipe: &Recipe, clients: usize) -> bool {
    let rows = match &recipe.reduction {
        Reduction::WeightedMean { weights } => weights.len(),
        Reduction::WeightedSum { coefficients, .. } => coefficients.len(),
        Reduction::Select(_) => clients,
    };
    rows == clients
        && recipe.mixing.as_ref().is_none_or(|mixing| mixing.inputs() == clients)
        && recipe.statistics.as_ref().is_none_or(|own| is_for(own, clients))
}
