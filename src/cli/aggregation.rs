//! What a round is made of and by: the options that `aggregate` shares with the commands of a round cut into shards.

use super::{Common, Failure, Outcome, UpdatePaths, print, size};
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::request::{self, Inputs, Request};
use crate::engine::aggregate::state::StateSpec;
use crate::engine::decide::method::{Method, MetricsRequest, Reporting};
use crate::engine::intake::personal::{Layers, Personal};
use crate::engine::intake::policy::{OnBadUpdate, Policy};
use crate::engine::intake::weights::{Weighting, read_table};
use crate::io::discover;
use crate::model::state::StateTensor;
use crate::modes::tiers::file::TierText;
use crate::rules::pre::{self, STEPS};
use crate::rules::{self, Distances, RULES};
use crate::settings::share::Share;
use crate::settings::{Definition, SpecError, split_list, usages};
use crate::strategies::{self, STRATEGIES, Strategy};
use crate::telemetry::report::Report;
use crate::updates::metadata::SCAFFOLD_CONTROL;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Which updates, and how they are judged and combined.
#[derive(Args, Debug)]
pub(super) struct AggregationOptions {
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
pub(super) struct ReportingOptions {
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

impl ReportingOptions {
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
    pub(super) fn metrics(&self, has_report: bool) -> MetricsRequest {
        match self.metrics {
            None if has_report => MetricsRequest::IfFew,
            None | Some(Metrics::None) => MetricsRequest::Nothing,
            Some(Metrics::Geometry) => MetricsRequest::Geometry,
            Some(Metrics::Signs) => MetricsRequest::GeometryAndSigns,
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

/// The path of the model that a run published.
pub(super) fn model_path(done: Result<Report, Error>) -> Result<PathBuf, Error> {
    done.map(|report| report.output.map_or_else(PathBuf::new, |output| output.path.into()))
}

/// Prints the path that a command published, or says why it published nothing.
pub(super) fn published(done: Result<PathBuf, Error>) -> Result<Outcome, Failure> {
    match done {
        Ok(path) => {
            print(&format!("{}\n", path.display()))?;
            Ok(Outcome::Done)
        }
        Err(Error::Refused(report)) => Ok(Outcome::Refused(report.refused.unwrap_or_default())),
        Err(error) => Err(Failure::of(error)),
    }
}

// The definition comes from another option: here the text is checked, later the rule is made.
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
    /// The files that a run writes, with the state file of the other options.
    pub(super) fn outputs(&self, state: Option<PathBuf>) -> request::Outputs {
        request::Outputs {
            model: self.output.clone(),
            max_shard_bytes: self.max_shard_size,
            report: self.report.clone(),
            state,
        }
    }
}

impl AggregationOptions {
    /// The request for an aggregate run into a model, without a report.
    pub(super) fn request(
        &self,
        common: &Common,
        output: &Path,
        reporting: Reporting,
    ) -> Result<Request, Failure> {
        let method = self.method()?;
        // A shadow rule weighs as it is told, but does not make an update without a weight a bad one by itself.
        let shadow_weighs = reporting.shadow.iter().any(|rule| rule.uses_weights());
        let uses_weights = method.rule.uses_weights() || self.weights.is_some() && shadow_weighs;
        if self.weights.is_some() && !uses_weights {
            tracing::warn!("{} is unweighted: --weights has no part in it", method.rule);
        }
        self.check_state(&method)?;
        let alike = method.strategy.weighs_alike();
        let is_given = self.weights.as_deref().is_some_and(|weights| weights != "uniform");
        if let Some(why) = alike.filter(|_| is_given) {
            let strategy = &method.strategy;
            let why = anyhow::anyhow!("--weights: under {strategy} all clients weigh the same: {why}");
            return Err(why.into());
        }
        let weighting = self.weighting(uses_weights && alike.is_none())?;
        let policy = self.policy(method.strategy.as_ref(), weighting);
        let request = Request::new(self.paths.resolve()?, method, output.to_owned());
        let weights_file = self.weights_file().map(Path::to_owned);
        Ok(Request {
            inputs: Inputs {
                base: self.base.clone(),
                others: self.paths.files_from.iter().cloned().chain(weights_file).collect(),
                ..request.inputs
            },
            policy,
            reporting,
            outputs: request::Outputs { state: self.state.clone(), ..request.outputs },
            backend: common.backend(false),
            ..request
        })
    }

    /// What the report holds beyond what was done.
    pub(super) fn reporting(
        &self,
        options: &ReportingOptions,
        has_report: bool,
    ) -> Result<Reporting, Failure> {
        let parse = |rule: &String| rules::parse(rule, self.definition());
        Ok(Reporting {
            shadow: options.shadow().iter().map(parse).collect::<Result<_, _>>()?,
            metrics: options.metrics(has_report),
        })
    }

    /// Which updates take part, and how much each counts.
    fn policy(&self, strategy: &dyn Strategy, weighting: Weighting) -> Policy {
        let has_controls = strategy.keeps().iter().any(|kept| kept.slot == StateTensor::Control);
        Policy {
            round: self.round,
            min_clients: self.min_clients,
            on_bad_update: match self.on_bad_update {
                BadUpdateAction::Fail => OnBadUpdate::Fail,
                BadUpdateAction::Skip => OnBadUpdate::Skip,
            },
            weighting,
            personal: Personal { layers: self.personal.clone() },
            population: self.population,
            takes_stale: strategy.takes_stale(),
            allows_sparse: self.allow_sparse_robust,
            control_prefix: has_controls.then_some(SCAFFOLD_CONTROL),
        }
    }

    /// What is kept between rounds needs a file, and a file something to keep.
    fn check_state(&self, method: &Method) -> Result<(), Failure> {
        let Method { rule, strategy, .. } = method;
        if self.state.is_none() && !strategy.keeps().is_empty() {
            let why =
                anyhow::anyhow!("{strategy} goes on from what earlier rounds left, expected --state FILE");
            let hint = Some("the first round starts the file".to_owned());
            return Err(Failure { hint, ..Failure::from(why) });
        }
        if self.state.is_some() && StateSpec::of(method).is_none() {
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

    /// The method of a tier of clients.
    pub(super) fn tier(&self, tier: &TierText) -> Result<Method, SpecError> {
        Ok(Method {
            pre: tier.pre.iter().map(|step| pre::parse(step)).collect::<Result<_, _>>()?,
            byzantine: tier.byzantine.clone(),
            seed: self.seed,
            distances: self.distances(),
            ..Method::new(rules::parse(&tier.rule, self.definition())?)
        })
    }

    fn method(&self) -> Result<Method, Failure> {
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
        Ok(Method {
            rule,
            strategy,
            pre: self.pre.iter().map(|step| pre::parse(step)).collect::<Result<_, _>>()?,
            byzantine: self.byzantine.clone(),
            seed: self.seed,
            distances: self.distances(),
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
