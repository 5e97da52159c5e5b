//! What a round is made of and by: the options that `aggregate` shares with the commands of a round cut into shards.

use super::{Common, Failure, Outcome, UpdatePaths, print, size};
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::request::{Job, OnBadUpdate};
use crate::engine::aggregate::state::StateSpec;
use crate::engine::decide::judge::{Aggregation, MetricsWanted};
use crate::engine::intake::admit::{Expectations, SCAFFOLD_CONTROL};
use crate::engine::intake::personal::{Layers, Personal};
use crate::engine::intake::weights::{Weighting, read_table};
use crate::engine::passes::geometry::Distances;
use crate::io::discover;
use crate::model::state::StateTensor;
use crate::modes::tiers::file::TierText;
use crate::rules::pre::{self, STEPS};
use crate::rules::{self, RULES};
use crate::settings::share::Share;
use crate::settings::{Definition, SpecError, split_list, usages};
use crate::strategies::{self, STRATEGIES, Strategy};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Which updates, and how they are judged and combined.
#[derive(Args, Debug)]
pub(super) struct RoundOptions {
    #[command(flatten)]
    paths: UpdatePaths,
    /// The model that the updates started from.
    #[arg(long, value_name = "BASE")]
    base: Option<PathBuf>,
    #[arg(long, value_name = "RULE", default_value = "mean", value_parser = rule_text, help = rule_help())]
    rule: String,
    #[arg(long, value_name = "STEP", value_parser = step_text, help = step_help())]
    pre: Vec<String>,
    /// How many clients are assumed hostile: a count, or a fraction below 1, rounded down.
    #[arg(long, value_name = "F")]
    byzantine: Option<Share>,
    /// Whose definition of a rule or a strategy to follow, where a library's differs from the paper's.
    #[arg(long, value_name = "LIBRARY")]
    compat: Option<Library>,
    #[arg(long, value_name = "STRATEGY", default_value = "fedavg", help = strategy_help())]
    #[arg(value_parser = strategy_text)]
    strategy: String,
    /// Keep what the strategy and the rule carry from round to round in this file: the moments of fedadam and the
    /// like, the centre of centered-clipping. What it held before stays as FILE.previous.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// How many clients there are in all, those that took no part included.
    #[arg(long, value_name = "N")]
    population: Option<usize>,
    /// Layers that stay with each client and are not merged: a pattern of tensor names such as `head.*`, fedbn, or
    /// fedper; may be repeated. They keep the base's values.
    #[arg(long, value_name = "LAYERS")]
    personal: Vec<Layers>,
    /// How distances between clients are found: from the Gram matrix, or directly, which auto does for up to 16.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    distances: HowDistances,
    /// What shuffles where something is shuffled. Clients should not be able to guess it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
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
    /// Also merge updates of which the clients chose few values to send (topk) by rules that compare clients.
    #[arg(long)]
    allow_sparse_robust: bool,
    /// Reject updates that say they are of another round.
    #[arg(long, value_name = "N")]
    round: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum BadUpdateAction {
    Fail,
    Skip,
}

fn rule_help() -> String {
    format!("How to combine the updates: {}. docs/rules.md says which to take", usages(RULES))
}

fn step_help() -> String {
    format!("What to do to the updates before the rule; may be repeated, in order: {}", usages(STEPS))
}

fn strategy_help() -> String {
    let strategies = usages(STRATEGIES);
    format!("How the server steps by the merged delta: {strategies}. docs/strategies.md has the formulas")
}

/// A library whose definitions can be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Library {
    Byzfl,
    Flower,
    /// TensorFlow Federated.
    Tff,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum HowDistances {
    Auto,
    Gram,
    Direct,
}

/// What the report tells beyond what was done.
#[derive(Args, Debug)]
pub(super) struct Telling {
    /// Also tell in the report which clients these rules would have kept.
    #[arg(long, value_name = "RULES", value_parser = shadow_text)]
    shadow_rules: Option<String>,
    /// What the report says of the round as a whole [default: geometry for up to 1024 clients].
    #[arg(long, value_name = "WHICH")]
    metrics: Option<Metrics>,
}

/// What the report says of the round as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Metrics {
    None,
    /// Coherence, alignment, signal fraction, noise scale, effective rank, influence.
    Geometry,
    /// Those, and sign agreement.
    Signs,
}

impl Telling {
    /// Checks that there is a report to tell in.
    pub(super) fn check(&self, has_report: bool) -> Result<(), Failure> {
        let asked = [self.shadow_rules.as_ref().map(|_| "--shadow-rules"), self.metrics.map(|_| "--metrics")];
        match asked.into_iter().flatten().next() {
            Some(option) if !has_report => {
                Err(anyhow::anyhow!("{option} has nothing to tell in, expected --report FILE").into())
            }
            _ => Ok(()),
        }
    }

    /// What is told of the round as a whole.
    pub(super) fn metrics(&self, has_report: bool) -> MetricsWanted {
        match self.metrics {
            None if has_report => MetricsWanted::IfFew,
            None | Some(Metrics::None) => MetricsWanted::Nothing,
            Some(Metrics::Geometry) => MetricsWanted::Geometry,
            Some(Metrics::Signs) => MetricsWanted::GeometryAndSigns,
        }
    }

    /// The rules that are told about and not followed.
    pub(super) fn shadow(&self) -> Vec<String> {
        self.shadow_rules.as_deref().map(split_list).unwrap_or_default()
    }
}

/// The files that partials are named by, directories replaced by what is in them.
pub(super) fn partial_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    Ok(discover::updates(paths, false)?)
}

/// Prints the path that a command left, or says why it left nothing.
pub(super) fn ended(done: Result<String, MergeError>) -> Result<Outcome, Failure> {
    match done {
        Ok(path) => {
            print(&(path + "\n"))?;
            Ok(Outcome::Done)
        }
        Err(MergeError::Refused(report)) => Ok(Outcome::Refused(report.refused.unwrap_or_default())),
        Err(error) => {
            let (hint, signal) = (error.hint(), error.signal());
            Err(Failure { hint, signal, ..Failure::from(error) })
        }
    }
}

// A rule's definition hangs on another option: here it is checked that the text names one, later it is made.
fn rule_text(text: &str) -> Result<String, SpecError> {
    rules::parse(text, Definition::Paper).map(|_| text.to_owned())
}

fn shadow_text(text: &str) -> Result<String, SpecError> {
    split_list(text).iter().try_for_each(|rule| rule_text(rule).map(drop)).map(|()| text.to_owned())
}

fn step_text(text: &str) -> Result<String, SpecError> {
    pre::parse(text).map(|_| text.to_owned())
}

fn strategy_text(text: &str) -> Result<String, SpecError> {
    strategies::parse(text, Definition::Paper).map(|_| text.to_owned())
}

/// Where a merged model and its report go.
#[derive(Args, Debug)]
pub(super) struct Outputs {
    /// Write who was kept and why to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Split the merged model into files of at most this much data, with an index; for example 5GB.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    max_shard_size: Option<u64>,
    /// Where the merged model goes.
    #[arg(long, short, value_name = "MERGED")]
    pub(super) output: PathBuf,
}

impl Outputs {
    /// The job with its report and the size of its files.
    pub(super) fn of(&self, job: Job) -> Job {
        Job { report: self.report.clone(), max_shard_bytes: self.max_shard_size, ..job }
    }
}

impl RoundOptions {
    /// The job of aggregating them, without a report; `metrics` and `shadow` are what one would tell besides.
    pub(super) fn job(
        &self,
        common: &Common,
        output: &Path,
        metrics: MetricsWanted,
        shadow: &[String],
    ) -> Result<Job, Failure> {
        let aggregation = self.aggregation(metrics, shadow)?;
        // A shadow rule weighs as it is told, but does not make an update without a weight a bad one by itself.
        let shadow_weighs = aggregation.shadow.iter().any(|rule| rule.uses_weights());
        let uses_weights = aggregation.rule.uses_weights() || self.weights.is_some() && shadow_weighs;
        if self.weights.is_some() && !uses_weights {
            tracing::warn!("{} is unweighted: --weights has no part in it", aggregation.rule);
        }
        self.check_state(&aggregation)?;
        let alike = aggregation.strategy.weighs_alike();
        let is_told = self.weights.as_deref().is_some_and(|weights| weights != "uniform");
        if let Some(why) = alike.filter(|_| is_told) {
            let strategy = &aggregation.strategy;
            let why = anyhow::anyhow!("--weights: under {strategy} all clients weigh the same: {why}");
            return Err(why.into());
        }
        let uses_weights = uses_weights && alike.is_none();
        let weights_file = self.weights_file().map(Path::to_owned);
        let expected = self.expectations(aggregation.strategy.as_ref());
        Ok(Job {
            updates: self.paths.resolve()?,
            base: self.base.clone(),
            aggregation,
            tiers: None,
            weighting: self.weighting(uses_weights)?,
            min_clients: self.min_clients,
            on_bad_update: match self.on_bad_update {
                BadUpdateAction::Fail => OnBadUpdate::Fail,
                BadUpdateAction::Skip => OnBadUpdate::Skip,
            },
            expected,
            output: output.to_owned(),
            max_shard_bytes: None,
            report: None,
            state: self.state.clone(),
            partial: false,
            private: None,
            population: self.population,
            other_inputs: self.paths.files_from.iter().cloned().chain(weights_file).collect(),
            isa: common.isa(),
            backend: common.backend(false),
        })
    }

    /// What an update must say and hold.
    fn expectations(&self, strategy: &dyn Strategy) -> Expectations {
        let has_controls = strategy.keeps().iter().any(|kept| kept.slot == StateTensor::Control);
        Expectations {
            round: self.round,
            takes_stale: strategy.takes_stale(),
            personal: Personal { layers: self.personal.clone() },
            allows_sparse: self.allow_sparse_robust,
            control_prefix: has_controls.then_some(SCAFFOLD_CONTROL),
        }
    }

    /// What is kept between rounds needs a file, and a file something to keep.
    fn check_state(&self, aggregation: &Aggregation) -> Result<(), Failure> {
        let Aggregation { rule, strategy, .. } = aggregation;
        if self.state.is_none() && !strategy.keeps().is_empty() {
            let why =
                anyhow::anyhow!("{strategy} goes on from what earlier rounds left, expected --state FILE");
            let hint = Some("the first round starts the file".to_owned());
            return Err(Failure { hint, ..Failure::from(why) });
        }
        if self.state.is_some() && StateSpec::of(aggregation).is_none() {
            let why = "expected centered-clipping, or a strategy that keeps moments";
            let why = anyhow::anyhow!("--state: {rule} and {strategy} keep nothing between rounds, {why}");
            return Err(why.into());
        }
        Ok(())
    }

    fn definition(&self) -> Definition {
        match self.compat {
            None => Definition::Paper,
            Some(Library::Byzfl) => Definition::Byzfl,
            Some(Library::Flower) => Definition::Flower,
            Some(Library::Tff) => Definition::Tff,
        }
    }

    fn distances(&self) -> Distances {
        match self.distances {
            HowDistances::Auto => Distances::Auto,
            HowDistances::Gram => Distances::Gram,
            HowDistances::Direct => Distances::Direct,
        }
    }

    /// How a tier of clients is judged and combined.
    pub(super) fn tier(&self, tier: &TierText) -> Result<Aggregation, SpecError> {
        Ok(Aggregation {
            rule: rules::parse(&tier.rule, self.definition())?,
            strategy: strategies::plain(),
            pre: tier.pre.iter().map(|step| pre::parse(step)).collect::<Result<_, _>>()?,
            shadow: Vec::new(),
            byzantine: tier.byzantine.clone(),
            seed: self.seed,
            distances: self.distances(),
            metrics: MetricsWanted::Nothing,
        })
    }

    fn aggregation(&self, metrics: MetricsWanted, shadow: &[String]) -> Result<Aggregation, Failure> {
        let definition = self.definition();
        let rule = rules::parse(&self.rule, definition)?;
        let strategy = strategies::parse(&self.strategy, definition)?;
        if rule.definition() != definition && strategy.definition() != definition {
            let both = format!("{rule} and {strategy}");
            let who = if strategy.is_plain() { rule.to_string() } else { both };
            tracing::warn!(
                "{who}: {definition} has no definition of its own that could be followed: the paper's runs"
            );
        }
        Ok(Aggregation {
            rule,
            strategy,
            pre: self.pre.iter().map(|step| pre::parse(step)).collect::<Result<_, _>>()?,
            shadow: shadow.iter().map(|rule| rules::parse(rule, definition)).collect::<Result<_, _>>()?,
            byzantine: self.byzantine.clone(),
            seed: self.seed,
            distances: self.distances(),
            metrics,
        })
    }

    fn weights_file(&self) -> Option<&Path> {
        self.weights.as_deref().filter(|name| !["examples", "uniform"].contains(name)).map(Path::new)
    }

    fn weighting(&self, uses_weights: bool) -> Result<Weighting, Failure> {
        if !uses_weights {
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
