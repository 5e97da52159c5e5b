//! The decision on a round that is cut into shards: what its partials tell is judged once, for all shards to go by.
//!
//! A decision is JSON, schema `fedmill.decision/1`: the run it belongs to, how updates are combined and how the server
//! steps, and everything a report says of a judgement. Floats stand in it as exactly as they are.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::geometry::{Asked, Looks};
use crate::engine::aggregate::request::Job;
use crate::engine::aggregate::session::{Run, Stopped};
use crate::engine::decide::judge::{Judge, Judgement, Outcome, Subject, Unjudged};
use crate::engine::passes::geometry::sums::{FirstLook, Sought};
use crate::engine::passes::sections::sections_of;
use crate::io::model_writer::WriteError;
use crate::io::publish;
use crate::io::text;
use crate::kernels::server_step::ServerStep;
use crate::modes::shards::file::{ShardError, ShardFile, ShardKind, open_all};
use crate::modes::shards::gram::{asked, look_key, read_all};
use crate::modes::shards::identity::{Difference, RunIdentity};
use crate::rules::{Recipe, Reduction, Statistics};
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The schema that decisions name.
pub const SCHEMA: &str = "fedmill.decision/1";

/// What a decision file says.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct DecisionFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run it belongs to, as metadata of its partials has it.
    pub run: BTreeMap<String, String>,
    /// How updates are combined.
    pub recipe: Recipe,
    /// How the server steps.
    pub server_step: ServerStep,
    /// What the report says of the judgement.
    pub report: Value,
}

/// A decision that was read, and its digest.
#[derive(Debug)]
pub struct Decision {
    /// What it says.
    pub file: DecisionFile,
    /// BLAKE3 of the file.
    pub digest: String,
}

/// Judges a round by the partials of all its shards, and writes the decision to the job's output. Returns its path.
///
/// # Errors
///
/// When partials are not those of this run or not complete, or the rule or the strategy cannot be used.
pub fn decide(job: Job, partials: &[PathBuf], pool: &ThreadPool) -> Result<PathBuf, MergeError> {
    let mut run = Run::open(job, pool)?;
    let (round, statistics) = run.assemble()?;
    let key = pool.install(|| look_key(&run, &round, &statistics))?;
    let sections = sections_of(round.set.layout.parameters());
    let partials = open_all(partials, ShardKind::Gram, &key, sections)?;
    let rule = run.job.aggregation.rule.to_string();
    let mut looks = Partials { rule, partials, asked: asked(&run, &round) };
    let key = RunIdentity::of(&run, &round, &statistics)?;
    let judgement = judge(&run, &round, statistics, &mut looks)?;
    let report = run.report(&round, &judgement, None);
    let file = DecisionFile {
        schema: SCHEMA.to_owned(),
        run: key.0,
        recipe: judgement.decision.recipe,
        server_step: judgement.server_step,
        report: of_judging(serde_json::to_value(&report).map_err(MergeError::Report)?),
    };
    let path = &run.job.output;
    let json = format!("{}\n", serde_json::to_string_pretty(&file).map_err(MergeError::Report)?);
    let staged = publish::stage(path, json.as_bytes()).map_err(WriteError::at(path))?;
    staged.publish(path).map_err(WriteError::at(path))?;
    publish::sync_directory_of(path).map_err(WriteError::at(path))?;
    Ok(run.job.output)
}

/// What a report says of merging itself, and not of the judgement: a decision made again has the same bytes.
pub(crate) const OF_MERGING: [&str; 6] =
    ["published", "backend", "output", "bytes", "timings", "peak_resident_bytes"];

/// The settings that are those of merging.
pub(crate) const MERGING_SETTINGS: [&str; 2] = ["max_shard_size", "threads"];

/// A report without what it says of merging.
fn of_judging(mut report: Value) -> Value {
    if let Some(parts) = report.as_object_mut() {
        parts.retain(|part, _| !OF_MERGING.contains(&part.as_str()));
    }
    if let Some(settings) = report["settings"].as_object_mut() {
        settings.retain(|setting, _| !MERGING_SETTINGS.contains(&setting.as_str()));
    }
    report
}

/// Judges a round by looks from somewhere else than its files.
pub(crate) fn judge(
    run: &Run,
    round: &Round,
    statistics: Statistics,
    looks: &mut dyn Looks,
) -> Result<Judgement, MergeError> {
    let (aggregation, cohort) = (&run.job.aggregation, &round.cohort);
    let mut judge = Judge { aggregation, cohort, subject: Subject::of(&round.set), looks };
    judge.judge(statistics).map_err(|why| match Stopped::from(why) {
        Stopped::BadUpdates(faults) => MergeError::bad_in_shard(&round.set, &faults),
        Stopped::Error(why) => why,
    })
}

/// Looks that are the sums of partials.
struct Partials {
    rule: String,
    partials: Vec<ShardFile>,
    /// What they hold.
    asked: Vec<Sought>,
}

impl Looks for Partials {
    fn look(&mut self, Asked { sought, mixing, .. }: Asked) -> Result<FirstLook, Unjudged> {
        if mixing.is_some() {
            return Err(ShardError::SecondLook { rule: self.rule.clone() }.into());
        }
        assert!(self.asked.contains(&sought), "partials hold what may be asked for: {sought:?}");
        let (branches, sought) = read_all(&self.partials, sought)?;
        Ok(sought.concluded(branches))
    }

    fn leave_device(&mut self) -> bool {
        false
    }
}

impl Decision {
    /// Reads a decision of a run.
    ///
    /// # Errors
    ///
    /// When the file holds something else, or the decision of another run.
    pub fn read(path: &Path, key: &RunIdentity, clients: usize) -> Result<Self, ShardError> {
        let bad = |why: String| ShardError::NotADecision { path: path.to_owned(), why };
        let json = text::read(path).map_err(|why| bad(format!("cannot be read: {why}")))?;
        let file: DecisionFile = serde_json::from_str(&json).map_err(|why| bad(why.to_string()))?;
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

    /// What the second pass goes by. Shards that looked found every update finite.
    pub(crate) fn outcome(&self) -> Outcome<'_> {
        let DecisionFile { recipe, server_step, .. } = &self.file;
        Outcome { recipe, server_step: *server_step, screened: true }
    }
}

fn is_for(recipe: &Recipe, clients: usize) -> bool {
    let rows = match &recipe.reduction {
        Reduction::WeightedMean { weights } => weights.len(),
        Reduction::WeightedSum { coefficients, .. } => coefficients.len(),
        Reduction::Select(_) => clients,
        // Rounds of tiers are not cut into shards.
        Reduction::Tiers(_) => return false,
    };
    rows == clients && recipe.mixing.as_ref().is_none_or(|mixing| mixing.inputs() == clients)
}
