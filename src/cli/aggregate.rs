//! `fedmill aggregate`: merge client updates into one model.

use super::{Common, Failure, Outcome, UpdatePaths, print, size};
use crate::round::merge::{Job, OnBadUpdate};
use crate::round::refusal::MergeError;
use crate::round::roster::Expectations;
use crate::round::weights::{Weighting, read_table};
use crate::rules::share::Share;
use crate::rules::{self, Rule};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Merge client updates into one model.
///
/// Prints the path of the merged model. With --base, updates are checked against the base's tensors and the
/// merged model has its layout; without, the layout that most updates share is the reference.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: UpdatePaths,
    /// The model that the updates started from.
    #[arg(long, value_name = "BASE")]
    base: Option<PathBuf>,
    /// How to combine the updates: mean (weighted), median, or trimmed-mean[:cut=N]; a cut below 1
    /// is a fraction of the clients, on each side.
    #[arg(long, value_name = "RULE", default_value = "mean", value_parser = parse_rule)]
    rule: Arc<dyn Rule>,
    /// How many clients are assumed hostile: a count, or a fraction below 1, rounded down.
    #[arg(long, value_name = "F")]
    byzantine: Option<Share>,
    /// What each client weighs in rules that weigh clients: examples, uniform, or a file of client ids and
    /// weights (lines or a JSON object) [default: examples if the updates state them].
    #[arg(long, value_name = "WEIGHTS")]
    weights: Option<String>,
    /// Refuse to merge fewer clients than this.
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_clients: usize,
    /// Whether an update that cannot be merged ends the run or is left out.
    #[arg(long, value_name = "ACTION", default_value = "fail")]
    on_bad_update: BadUpdateAction,
    /// Reject updates that say they are of another round.
    #[arg(long, value_name = "N")]
    round: Option<u64>,
    /// Write who was kept and why to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Split the merged model into files of at most this much data, with an index; for example 5GB.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    max_shard_size: Option<u64>,
    /// Where the merged model goes.
    #[arg(long, short, value_name = "MERGED")]
    output: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum BadUpdateAction {
    Fail,
    Skip,
}

fn parse_rule(text: &str) -> Result<Arc<dyn Rule>, rules::spec::SpecError> {
    rules::parse(text).map(Arc::from)
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let pool = common.pool()?;
        match self.job(common)?.run(&pool, &common.progress()) {
            Ok(report) => {
                print(&report.output.map_or_else(String::new, |output| output.path + "\n"))?;
                Ok(Outcome::Done)
            }
            Err(MergeError::Refused(report)) => Ok(Outcome::Refused(report.refused.unwrap_or_default())),
            Err(error) => {
                let (hint, signal) = (error.hint(), error.signal());
                Err(Failure { hint, signal, ..Failure::from(error) })
            }
        }
    }

    fn job(&self, common: &Common) -> Result<Job, Failure> {
        if self.weights.is_some() && !self.rule.uses_weights() {
            tracing::warn!("{} is unweighted: --weights has no part in it", self.rule);
        }
        let weights_file = self.weights_file().map(Path::to_owned);
        Ok(Job {
            updates: self.paths.resolve()?,
            base: self.base.clone(),
            rule: Arc::clone(&self.rule),
            byzantine: self.byzantine.clone(),
            weighting: self.weighting()?,
            min_clients: self.min_clients,
            on_bad_update: match self.on_bad_update {
                BadUpdateAction::Fail => OnBadUpdate::Fail,
                BadUpdateAction::Skip => OnBadUpdate::Skip,
            },
            expected: Expectations { round: self.round },
            output: self.output.clone(),
            max_shard_bytes: self.max_shard_size,
            report: self.report.clone(),
            other_inputs: self.paths.files_from.iter().cloned().chain(weights_file).collect(),
            isa: common.isa(),
        })
    }

    fn weights_file(&self) -> Option<&Path> {
        self.weights.as_deref().filter(|name| !["examples", "uniform"].contains(name)).map(Path::new)
    }

    fn weighting(&self) -> Result<Weighting, Failure> {
        if !self.rule.uses_weights() {
            return Ok(Weighting::Uniform);
        }
        Ok(match (self.weights.as_deref(), self.weights_file()) {
            (_, Some(file)) => Weighting::Table(read_table(file)?),
            (Some("examples"), _) => Weighting::Examples,
            (Some(_), _) => Weighting::Uniform,
            (None, _) => Weighting::Default,
        })
    }
}
