//! The options that `aggregate` shares with the commands of a sharded run.

use super::classes::ClassOptions;
use super::common::Common;
use super::failure::Failure;
use super::inputs::UpdatePaths;
use super::reporting::ReportingOptions;
use super::{INPUTS, OUTPUT, Outcome, RULE, SERVER_STEP};
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::publish;
use crate::engine::aggregate::request::{self, Inputs, Readers, Request};
use crate::engine::aggregate::state::StateSpec;
use crate::engine::decide::method::{Method, Reporting};
use crate::engine::intake::claims::Claims;
use crate::engine::intake::personal::{Layers, Personal};
use crate::engine::intake::policy::{Missing, OnBadUpdate, Policy, TensorPolicy, control_prefix};
use crate::engine::intake::weights::{Weighting, read_table};
use crate::io::collision::Collision;
use crate::io::discover;
use crate::model::client_id::nfc;
use crate::model::dtype::Dtype;
use crate::modes::tiers::file::TierText;
use crate::rules::pre::{self, STEPS};
use crate::rules::{self, Distances, RULES};
use crate::settings::share::Share;
use crate::settings::size;
use crate::settings::{self, Definition, SpecError};
use crate::strategies::{self, STRATEGIES, Strategy, meant};
use crate::telemetry::console::print_path;
use crate::telemetry::manual::Named;
use crate::telemetry::report::Report;
use crate::updates::metadata::MOST_EXAMPLES;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// The updates, and how the run judges and combines them.
#[derive(Args, Debug)]
#[command(next_help_heading = RULE)]
pub(crate) struct AggregationOptions {
    #[command(flatten)]
    paths: UpdatePaths,
    /// The model that the updates started from.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: Option<PathBuf>,
    #[arg(long, value_name = "RULE", default_value = "mean", value_parser = Named::new(RULES.iter().map(|rule| rule.name), rule_text), hide_possible_values = true)]
    #[arg(help = rule_help(), long_help = rule_long_help())]
    rule: String,
    #[arg(long, value_name = "STEP", value_parser = Named::new(STEPS.iter().map(|step| step.name), step_text), hide_possible_values = true)]
    #[arg(help = step_help(), long_help = step_long_help())]
    pre: Vec<String>,
    /// The number of clients to assume hostile: a count, or a fraction below 1 of all clients, rounded down.
    #[arg(long, value_name = "F")]
    byzantine: Option<Share>,
    /// Go on if --byzantine or cut is a fraction that rounds down to no client of this round.
    ///
    /// The report and the metadata of the model then say that it has no protection.
    #[arg(long)]
    allow_unprotected: bool,
    /// Follow this library's definition where it differs from the paper's.
    #[arg(long, value_name = "LIBRARY")]
    compat: Option<Library>,
    #[arg(long, value_name = "STRATEGY", default_value = "fedavg", value_parser = Named::new(STRATEGIES.iter().map(|strategy| strategy.name), strategy_text), hide_possible_values = true)]
    #[arg(help = strategy_help(), long_help = strategy_long_help(), help_heading = SERVER_STEP)]
    strategy: String,
    /// Read the state that the last round left in FILE; aggregate and merge write the next.
    ///
    /// The state holds the moments of a strategy such as fedadam, or the centre of centered-clipping. The state before
    /// stays as FILE.previous.
    #[arg(long, value_name = "FILE", help_heading = SERVER_STEP)]
    pub(crate) state: Option<PathBuf>,
    /// Start a new state from a base that earlier steps made.
    ///
    /// Without it, such a base without its state file is an error: the strategy would lose its moments. A state file
    /// that belongs to the base is used all the same.
    #[arg(long, help_heading = SERVER_STEP)]
    state_init: bool,
    /// The number of all clients, including those that do not take part in this round.
    #[arg(long, value_name = "N", help_heading = SERVER_STEP)]
    population: Option<usize>,
    /// Do not merge these layers: a pattern of tensor names such as `head.*`, or fedbn, or fedper.
    ///
    /// The merged model has the base's values there, and each client keeps its own. May be repeated.
    #[arg(long, value_name = "LAYERS", help_heading = INPUTS)]
    personal: Vec<Layers>,
    #[command(flatten)]
    classes: ClassOptions,
    /// Compute distances between clients from the Gram matrix (gram) or from differences (direct).
    ///
    /// auto takes direct for up to 16 clients.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    distances: HowDistances,
    /// The seed of random shuffles, such as those of bucketing. Choose one that clients cannot guess.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The weight of each client: examples, uniform, metadata:KEY, or a file [default: examples if the updates state
    /// them].
    ///
    /// Rules without weights ignore it. metadata:KEY takes the number under KEY of each update's metadata. The file has
    /// client ids and weights, as lines or a JSON object.
    #[arg(long, value_name = "WEIGHTS")]
    weights: Option<String>,
    /// Count at most N examples of a client, whatever it states.
    #[arg(long, value_name = "N", value_parser = most_examples)]
    max_examples: Option<f64>,
    /// Refuse a merge in which fewer than N clients have a part: a count, or a fraction of --population, rounded up.
    ///
    /// A client of weight zero has no part, and a client that the rule leaves out. An empty inbox is then refused, too.
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    min_clients: Option<Share>,
    /// What to do with a bad update: fail ends the run, skip leaves the update out.
    #[arg(long, value_name = "ACTION", default_value = "fail", help_heading = INPUTS)]
    on_bad_update: BadUpdateAction,
    /// The dtype of the merged model's float tensors: f64, f32, f16, bf16, f8_e4m3 or f8_e5m2 [default: the base's].
    ///
    /// Without a base the default is the dtype that most updates have, and the wider one of a tie. Personal layers keep
    /// the base's dtype.
    #[arg(long, value_name = "DTYPE", value_parser = Dtype::float_named, help_heading = OUTPUT)]
    dtype: Option<Dtype>,
    /// What to do with an update that lacks tensors: reject it, take the base's there, or merge over those present.
    ///
    /// present needs a rule that works by coordinate: mean, median, trimmed-mean or meamed. Each tensor has its own
    /// number of clients, weights, and share of hostile clients.
    #[arg(long, value_name = "WHAT", default_value = "reject", help_heading = INPUTS)]
    missing: MissingAction,
    /// Let rules that compare clients merge updates in which each client chose the values to send (topk).
    #[arg(long)]
    allow_sparse_robust: bool,
    /// Merge the factors of LoRA adapters one by one: right if all updates share one of the two factors.
    #[arg(long, help_heading = INPUTS)]
    allow_lora_factors: bool,
    /// The number of the round. Updates of another round are bad, and those without one if half of all state one.
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    round: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum BadUpdateAction {
    Fail,
    Skip,
}

fn most_examples(text: &str) -> Result<f64, String> {
    let most = text.parse().ok().filter(|most: &f64| *most > 0.0 && *most <= MOST_EXAMPLES);
    most.ok_or_else(|| "expected a number above 0, at most 2^53".to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum MissingAction {
    Reject,
    Base,
    Present,
}

fn rule_help() -> String {
    format!("How to combine the updates: {}; --help lists their settings", settings::names(RULES))
}

fn rule_long_help() -> String {
    format!(
        "How to combine the updates. docs/rules.md says which rule to take.\n\n{}",
        settings::lines(RULES)
    )
}

fn step_help() -> String {
    format!(
        "Change the updates before the rule, in the given order: {}; --help lists their settings",
        settings::names(STEPS)
    )
}

fn step_long_help() -> String {
    format!(
        "Change the updates before the rule. May be repeated; the steps run in the given order.\n\n{}",
        settings::lines(STEPS)
    )
}

fn strategy_help() -> String {
    format!(
        "The server's step from the merged delta: {}; --help lists their settings",
        settings::names(STRATEGIES)
    )
}

fn strategy_long_help() -> String {
    let strategies = settings::lines(STRATEGIES);
    format!("The server's step from the merged delta. docs/strategies.md has the formulas.\n\n{strategies}")
}

/// A library with definitions that the operator may choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Library {
    Byzfl,
    /// Flower's message API: flwr.serverapp.strategy of version 1.42.
    Flower,
    /// Flower's first API: flwr.server.strategy of version 1.42.
    FlowerLegacy,
    /// TensorFlow Federated.
    Tff,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum HowDistances {
    Auto,
    Gram,
    Direct,
}

/// What precedes the key of metadata that holds weights.
const METADATA: &str = "metadata:";

/// Paths of shard files, with each directory replaced by the files in it.
pub(crate) fn partial_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    Ok(discover::updates(paths, false)?)
}

/// The path of the published model.
pub(crate) fn model_path(done: Result<Report, Error>) -> Result<PathBuf, Error> {
    done.map(|report| report.output.map_or_else(PathBuf::new, |output| output.path.into()))
}

/// Prints the path of the published file, or turns the error into a failure.
pub(crate) fn published(done: Result<PathBuf, Error>) -> Result<Outcome, Failure> {
    match done {
        Ok(path) => {
            print_path(&path);
            Ok(Outcome::Done)
        }
        Err(error) => Err(Failure::of(error)),
    }
}

// clap checks the text only: the rule is built later, with the definition that --compat names.
pub(crate) fn rule_text(text: &str) -> Result<String, String> {
    rules::parse(text, Definition::Paper).map(|_| nfc(text)).map_err(|why| meant::message(&why))
}

fn step_text(text: &str) -> Result<String, String> {
    pre::parse(text).map(|_| text.to_owned()).map_err(|why| meant::message(&why))
}

fn strategy_text(text: &str) -> Result<String, String> {
    let parsed = strategies::parse(text, Definition::Paper);
    parsed.map(|_| text.to_owned()).map_err(|why| meant::message(&why))
}

/// The files of the merged model and its report.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct Outputs {
    /// Write a report to FILE, as JSON: which clients the rule kept, and why.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Split the merged model into files of at most SIZE, with an index. Example: 5GB.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    max_shard_size: Option<u64>,
    /// Write the merged model to this path.
    #[arg(long, short, value_name = "MERGED")]
    pub(crate) output: PathBuf,
}

impl Outputs {
    /// Runs a command. Writes the report of a run that fails, if the operator asked for a report.
    pub(crate) fn reporting(
        &self,
        state: Option<&PathBuf>,
        readers: Readers,
        run: impl FnOnce() -> Result<Outcome, Failure>,
    ) -> Result<Outcome, Failure> {
        run().inspect_err(|failure| {
            let error = failure.error.downcast_ref::<Error>();
            if matches!(error, Some(Error::Collision(Collision::Kept { .. }))) {
                return;
            }
            let so_far = error.and_then(Error::report);
            let outputs = self.outputs(state.cloned());
            let outputs = request::Outputs { readers, ..outputs };
            let why = (failure.message(), failure.is_refusal);
            if let Err(why) = publish::publish_failure(&outputs, so_far, why) {
                tracing::warn!("no report was written: {why}");
            }
        })
    }

    /// Every file that the run writes; `state` comes from --state.
    pub(crate) fn outputs(&self, state: Option<PathBuf>) -> request::Outputs {
        request::Outputs {
            readers: Readers::All,
            model: self.output.clone(),
            max_shard_bytes: self.max_shard_size,
            report: self.report.clone(),
            plot: None,
            state,
        }
    }
}

impl AggregationOptions {
    /// The request for an aggregate run into a model, without a report.
    pub(crate) fn request(
        &self,
        common: &Common,
        output: &Path,
        reporting: Reporting,
    ) -> Result<Request, Failure> {
        let method = self.method()?;
        // A shadow rule uses the weights of --weights. Without --weights, an update without a weight stays valid for
        // it.
        let shadow_weighs = reporting.shadow.iter().any(|rule| rule.uses_weights());
        let uses_weights = method.rule.uses_weights() || self.weights.is_some() && shadow_weighs;
        if self.weights.is_some() && !uses_weights {
            tracing::warn!("{} is unweighted: it ignores --weights", method.rule);
        }
        self.check_state(&method)?;
        if self.missing == MissingAction::Base && self.base.is_none() {
            return Err(
                anyhow::anyhow!("--missing base takes the base's tensors, expected --base MODEL").into()
            );
        }
        let alike = method.strategy.weighs_alike();
        let is_given = self.weights.as_deref().is_some_and(|weights| weights != "uniform");
        if let Some(why) = alike.filter(|_| is_given) {
            let strategy = &method.strategy;
            let why = anyhow::anyhow!("--weights: under {strategy} all clients weigh the same: {why}");
            return Err(why.into());
        }
        let weighting = self.weighting(uses_weights && alike.is_none())?;
        let policy = self.policy(method.strategy.as_ref(), weighting)?;
        let request = Request::new(self.paths.resolve()?, method, output.to_owned());
        let weights_file = self.weights_file().map(Path::to_owned);
        Ok(Request {
            inputs: Inputs {
                base: self.base.clone(),
                starts_state: self.state_init,
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

    /// What the report holds beyond the account of the run.
    pub(crate) fn reporting(
        &self,
        options: &ReportingOptions,
        has_report: bool,
    ) -> Result<Reporting, Failure> {
        let parse = |rule: &String| rules::parse(&nfc(rule), self.definition());
        let shadow = options.shadow().iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Reporting { shadow, metrics: options.metrics(has_report), overlap: None })
    }

    /// Which updates take part, and the weight of each.
    fn policy(&self, strategy: &dyn Strategy, weighting: Weighting) -> Result<Policy, Failure> {
        Ok(Policy {
            round: self.round,
            min_clients: self.min_clients()?,
            on_bad_update: match self.on_bad_update {
                BadUpdateAction::Fail => OnBadUpdate::Fail,
                BadUpdateAction::Skip => OnBadUpdate::Skip,
            },
            weighting,
            population: self.population,
            takes_stale: strategy.takes_stale(),
            allows_sparse: self.allow_sparse_robust,
            claims: Claims { max_examples: self.max_examples, ..self.paths.claims() },
            tensors: self.tensors(strategy),
        })
    }

    /// Which tensors an update must hold, and what they are.
    fn tensors(&self, strategy: &dyn Strategy) -> TensorPolicy {
        TensorPolicy {
            personal: Personal { layers: self.personal.clone() },
            classes: self.classes.patterns(),
            missing: match self.missing {
                MissingAction::Reject => Missing::Reject,
                MissingAction::Base => Missing::Base,
                MissingAction::Present => Missing::Present,
            },
            dtype: self.dtype,
            allows_lora_factors: self.allow_lora_factors,
            control_prefix: control_prefix(strategy),
        }
    }

    /// The fewest clients with a part in the result; `None` without --min-clients.
    fn min_clients(&self) -> Result<Option<usize>, Failure> {
        match (&self.min_clients, self.population) {
            (Some(share), None) if share.is_fraction() => {
                let why = "is a fraction of all clients, expected --population N beside it";
                Err(anyhow::anyhow!("--min-clients {share} {why}").into())
            }
            (share, population) => {
                Ok(share.as_ref().map(|share| share.at_least(population.unwrap_or_default())))
            }
        }
    }

    /// Refuses a method with state without --state, and --state for a method without state.
    fn check_state(&self, method: &Method) -> Result<(), Failure> {
        let Method { rule, strategy, .. } = method;
        if self.state.is_none() && !strategy.keeps().is_empty() {
            let why = anyhow::anyhow!("{strategy} keeps state between rounds, expected --state FILE");
            let hint = Some("the first round creates the file".to_owned());
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
            Some(Library::FlowerLegacy) => Definition::FlowerLegacy,
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

    /// The method of one tier of clients. A tier without a rule takes the mean.
    pub(crate) fn tier(&self, tier: &TierText) -> Result<Method, SpecError> {
        Ok(Method {
            pre: tier.pre.iter().flatten().map(|step| pre::parse(step)).collect::<Result<_, _>>()?,
            byzantine: tier.byzantine.clone(),
            seed: self.seed,
            distances: self.distances(),
            allows_unprotected: self.allow_unprotected,
            ..Method::new(rules::parse(&nfc(tier.rule.as_deref().unwrap_or("mean")), self.definition())?)
        })
    }

    fn method(&self) -> Result<Method, Failure> {
        let definition = self.definition();
        let rule = rules::parse(&self.rule, definition)?;
        let strategy = strategies::parse(&self.strategy, definition)?;
        if rule.definition() != definition && strategy.definition() != definition {
            let both = format!("{rule} and {strategy}");
            let who = if strategy.is_plain() { rule.to_string() } else { both };
            tracing::warn!("{who}: {definition} has no other definition, so the run follows the paper's");
        }
        if let Some((key, decides)) = strategy.trusts().filter(|_| rule.to_string() != "mean") {
            tracing::warn!(
                "{strategy} scales each update by the `{key}` that its client states, before {rule} compares them: a \
                 hostile client {decides}"
            );
        }
        Ok(Method {
            rule,
            strategy,
            pre: self.pre.iter().map(|step| pre::parse(step)).collect::<Result<_, _>>()?,
            byzantine: self.byzantine.clone(),
            seed: self.seed,
            distances: self.distances(),
            allows_unprotected: self.allow_unprotected,
        })
    }

    fn weights_file(&self) -> Option<&Path> {
        let is_file = |name: &&str| !["examples", "uniform"].contains(name) && !name.starts_with(METADATA);
        self.weights.as_deref().filter(is_file).map(Path::new)
    }

    fn weighting(&self, uses_weights: bool) -> Result<Weighting, Failure> {
        if !uses_weights {
            return Ok(Weighting::Uniform);
        }
        Ok(match (self.weights.as_deref(), self.weights_file()) {
            (_, Some(file)) => Weighting::Table(read_table(file)?),
            (Some("examples"), _) => Weighting::Examples,
            (Some(key), _) if key.starts_with(METADATA) => {
                Weighting::Metadata(key[METADATA.len()..].to_owned())
            }
            (Some(_), _) => Weighting::Uniform,
            (None, _) => Weighting::Default,
        })
    }
}
