//! Server strategies, one file each, named as in its paper: the server's step by the merged delta.
//!
//! A strategy acts at three places of a round. At each it is a pure function of the clients' metadata and of the
//! statistics that rules use. Before the rule it may scale each client's delta ([`Strategy::scale`]) and weigh clients
//! ([`Strategy::weigh`]), so it composes with every rule. After the rule it chooses the server's step
//! ([`Strategy::step`]): a kernel that runs tile by tile over the merged delta, the base, and the tensors kept between
//! rounds ([`Strategy::keeps`]). A new strategy is a file, a line in [`STRATEGIES`], and its oracle in the tests.
//!
//! [`adaptive`] is the common part of FedAdam, FedYogi and FedAdagrad. [`meant`] finds names of rules, steps and
//! strategies that an operator wrote at another option.

pub mod adaptive;
pub mod fedadagrad;
pub mod fedadam;
pub mod fedavg;
pub mod fedavgm;
pub mod fedbuff;
pub mod fedexp;
pub mod fednova;
pub mod fedprox;
pub mod fedyogi;
pub mod meant;
pub mod qfedavg;
pub mod scaffold;

use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::rules::Needs;
use crate::rules::geometry::Geometry;
use crate::settings::{self, Definition, RegistryEntry, SpecError};
use std::fmt;

/// The metadata of a client's update that strategies use. `None` means that the update lacks the key.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct ClientMetadata {
    /// The client's id.
    pub id: String,
    /// Number of local optimiser steps.
    pub local_steps: Option<f64>,
    /// Momentum of the local optimiser.
    pub momentum: Option<f64>,
    /// Weight of the proximal term.
    pub proximal_mu: Option<f64>,
    /// Local learning rate.
    pub local_lr: Option<f64>,
    /// Training loss.
    pub loss: Option<f64>,
    /// The round whose model the client started from.
    pub round: Option<u64>,
}

/// The fault of an update that lacks metadata which a strategy needs, or has it with an unsound value.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error("{strategy} needs metadata `{key}`: found {found}, expected {expected}")]
pub struct MissingMetadata {
    /// The name of the strategy.
    pub strategy: &'static str,
    /// The key of the metadata.
    pub key: &'static str,
    /// The value found, or `none`.
    pub found: String,
    /// The values that are sound.
    pub expected: String,
}

impl MissingMetadata {
    fn new(
        strategy: &'static str,
        key: &'static str,
        found: Option<impl fmt::Display>,
        expected: impl Into<String>,
    ) -> Self {
        let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
        Self { strategy, key, found, expected: expected.into() }
    }
}

/// The clients of a round, in order of id.
#[derive(Clone, Debug)]
pub struct Cohort {
    /// The metadata of each client.
    pub clients: Vec<ClientMetadata>,
    /// The weight of each client by `--weights`.
    pub weights: Vec<f64>,
    /// The number of this round; `None` without `--round`.
    pub round: Option<u64>,
    /// The number of all clients, whether or not they take part; `None` without `--population`.
    pub population: Option<usize>,
}

/// The input of the server's step, after the rule's decision.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// The number of steps in earlier rounds.
    pub steps: u64,
    /// The coefficient of each update's delta in the merged delta; `None` if the rule works by coordinate. Updates are
    /// those that the rule sees: after factors, clips and mixtures.
    pub coefficients: Option<&'a [f64]>,
    /// The weight of each update before the rule; equal for a rule that does not weigh.
    pub weights: &'a [f64],
    /// The geometry of the updates' parameters; `None` if it was not measured.
    pub geometry: Option<&'a Geometry>,
    /// The text of the rule, for messages.
    pub rule: &'a str,
}

/// Why a strategy cannot run on these clients.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum StrategyError {
    #[error("{strategy}: --{option} is missing, expected {expected}")]
    NoOption { strategy: String, option: &'static str, expected: &'static str },
    #[error("{strategy}: --{option} is {found}, expected {expected}")]
    BadOption { strategy: String, option: &'static str, found: String, expected: String },
    #[error("{strategy} with {rule} has no meaning: {why}")]
    NoMeaning { strategy: String, rule: String, why: &'static str },
    #[error("{strategy}: {what}")]
    NotANumber { strategy: String, what: String },
    #[error("{strategy}: the distances of the updates were not measured")]
    NotMeasured { strategy: String },
    #[error(transparent)]
    MissingMetadata(#[from] MissingMetadata),
}

impl StrategyError {
    fn not_measured(strategy: &dyn Strategy) -> Self {
        Self::NotMeasured { strategy: strategy.to_string() }
    }
}

/// A server strategy with its settings. Displays as the text that parses to it.
pub trait Strategy: fmt::Debug + fmt::Display + Send + Sync {
    /// Its name, which its state file carries.
    fn name(&self) -> &'static str;

    /// The definition that it follows.
    fn definition(&self) -> Definition {
        Definition::Paper
    }

    /// The tensors that it keeps between rounds.
    fn keeps(&self) -> Vec<KeptTensor> {
        Vec::new()
    }

    /// The measurements of the updates that it needs.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Whether the new model is the base plus the merged delta, so that it needs no base.
    fn is_plain(&self) -> bool {
        false
    }

    /// The reason that all clients weigh the same; `None` if they may weigh differently.
    fn weighs_alike(&self) -> Option<&'static str> {
        None
    }

    /// Whether it merges updates that started from models of earlier rounds.
    fn takes_stale(&self) -> bool {
        false
    }

    /// The fewest clients that it needs.
    fn least_clients(&self) -> usize {
        1
    }

    /// Checks that an update has the metadata that the strategy uses. `round` is the number of this round.
    ///
    /// # Errors
    ///
    /// When metadata is missing or unsound.
    fn check(&self, client: &ClientMetadata, round: Option<u64>) -> Result<(), MissingMetadata> {
        let _ = (client, round);
        Ok(())
    }

    /// The faults of clients whose metadata differs from that of most clients, by index, where all must agree.
    fn odd(&self, clients: &[ClientMetadata]) -> Vec<(usize, MissingMetadata)> {
        let _ = clients;
        Vec::new()
    }

    /// What of the clients' own reports decides how much each of them counts, and what a hostile client decides by it;
    /// `None` if nothing does.
    fn trusts(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// A warning of a client whose claim makes the steps of all clients far longer than other claims do.
    fn warns(&self, _: &Cohort) -> Option<String> {
        None
    }

    /// The client whose claim stretches the deltas of others far more than other claims do, by index, and its fault if
    /// the merged delta then does not fit. `None` if no claim does.
    fn outlying_claim(&self, _: &Cohort) -> Option<(usize, MissingMetadata)> {
        None
    }

    /// Factor for each client's delta before the rule; `None` means 1 for all. `geometry` is that of the deltas'
    /// parameters.
    ///
    /// # Errors
    ///
    /// When an option or a client's metadata is missing.
    fn scale(&self, cohort: &Cohort, geometry: Option<&Geometry>) -> Result<Option<Vec<f64>>, StrategyError> {
        let _ = (cohort, geometry);
        Ok(None)
    }

    /// Factor for each client's weight before the rule, which must then weigh clients; `None` means 1 for all.
    ///
    /// # Errors
    ///
    /// When an option or a client's metadata is missing.
    fn weigh(&self, cohort: &Cohort) -> Result<Option<Vec<f64>>, StrategyError> {
        let _ = cohort;
        Ok(None)
    }

    /// The server's step.
    ///
    /// # Errors
    ///
    /// When the input lacks something that the step needs.
    fn step(&self, input: &StepInput) -> Result<ServerStep, StrategyError>;

    /// Factor for the merged change of the clients' control variates, before the server adds it to its own. `None`
    /// means that clients send no control variates.
    ///
    /// # Errors
    ///
    /// When `--population` is missing, or below the number of clients that take part.
    fn control(&self, cohort: &Cohort) -> Result<Option<f64>, StrategyError> {
        let _ = cohort;
        Ok(None)
    }

    /// Metadata of the merged model for the clients of the next round: keys and values.
    fn tells(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Facts for the report beyond the settings, by name: normalisation, effective steps, staleness.
    fn accounts(&self, cohort: &Cohort) -> Vec<(&'static str, String)> {
        let _ = cohort;
        Vec::new()
    }
}

/// Every strategy.
pub const STRATEGIES: &[RegistryEntry<Box<dyn Strategy>>] = &[
    fedavg::ENTRY,
    fedprox::ENTRY,
    fedavgm::ENTRY,
    fedadam::ENTRY,
    fedyogi::ENTRY,
    fedadagrad::ENTRY,
    fednova::ENTRY,
    scaffold::ENTRY,
    qfedavg::ENTRY,
    fedbuff::ENTRY,
    fedexp::ENTRY,
];

/// The default strategy: the model moves by the merged delta.
pub fn plain() -> Box<dyn Strategy> {
    Box::new(fedavg::FedAvg::default())
}

/// Reads a strategy as an operator writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such strategy, or it has no such setting or value.
pub fn parse(text: &str, definition: Definition) -> Result<Box<dyn Strategy>, SpecError> {
    settings::parse_as("strategy", text, definition, STRATEGIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::check_registry;

    #[test]
    fn a_strategy_displays_as_it_parses() {
        for definition in [Definition::Paper, Definition::Byzfl, Definition::Flower, Definition::Tff] {
            let parse = |text: &str| {
                let strategy = parse(text, definition)?;
                assert_eq!(text.split(':').next(), Some(strategy.name()));
                Ok(strategy)
            };
            check_registry(STRATEGIES, parse);
            for text in [
                "fedadam:lr=0.01,beta1=0.8,beta2=0.999,tau=0.0001,v0=0,bias-correction=adam",
                "qfedavg:local-lr=0.1",
                "fedbuff:normalize=weights,max-staleness=5,lr=0.5",
                "fedbuff:staleness=polynomial,a=0.25",
            ] {
                assert_eq!(parse(text).unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("fedsgd", "found strategy `fedsgd`, expected one of fedavg, fedprox, "),
            ("fedprox", "fedprox: setting `mu` is missing, expected fedprox:mu=0.01"),
            ("fedprox:mu=-1", "mu: found `-1`, expected a number that is not negative"),
            ("fedprox:mu=0.1,lr=1", "fedprox has no setting `lr`; it has mu"),
            ("fedavgm:momentum=1", "momentum: found `1`, expected at least 0 and below 1"),
            ("fedavgm:nesterov=1", "it has lr, momentum"),
            ("fedadam:lr=0", "lr: found `0`, expected a number above zero"),
            ("fedadam:beta2=1", "below 1"),
            ("fedadam:beta1=NaN", "below 1"),
            ("fedadam:tau=0", "above zero"),
            ("fedadam:v0=inf", "not negative"),
            ("fedyogi:bias-correction=yes", "expected none or adam"),
            ("fedadagrad:bias-correction=adam", "expected none: the correction is for averages"),
            ("fedadagrad:beta2=0.9", "fedadagrad has no setting `beta2`"),
            ("fednova:gmf=1.5", "below 1"),
            ("fednova:steps=0", "above zero"),
            ("qfedavg:local-lr=0", "expected a number above zero"),
            ("qfedavg:local-lr=0.1,q=-1", "not negative"),
            ("fedbuff:staleness=linear", "expected polynomial, constant or hinge"),
            ("fedbuff:staleness=constant,a=1", "has no setting `a`"),
            ("fedbuff:b=1", "has no setting `b`"),
            ("fedbuff:buffer=0", "expected a number of updates, at least 1"),
            ("fedbuff:normalize=sum", "expected count or weights"),
            ("fedbuff:max-staleness=-1", "expected a number of rounds"),
            ("fedexp:eps=0", "above zero"),
        ] {
            let error = parse(text, Definition::Paper).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_library_is_named_only_where_it_differs() {
        let definition = |text, definition| parse(text, definition).unwrap().definition();
        for text in ["fedadam", "fedyogi", "fedadagrad"] {
            assert_eq!(definition(text, Definition::Flower), Definition::Flower);
            assert_eq!(definition(text, Definition::Tff), Definition::Tff);
            assert_eq!(definition(text, Definition::Byzfl), Definition::Paper);
        }
        for text in ["fedavg", "fedavgm", "fednova", "scaffold", "fedbuff", "fedexp"] {
            assert_eq!(definition(text, Definition::Flower), Definition::Paper);
        }
    }
}
