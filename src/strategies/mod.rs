//! Server strategies, one file each, named as in its paper: what becomes of the merged delta.
//!
//! A strategy has a part in a round at three places, and at each it is a pure function of what clients report and of
//! the statistics rules go by. Before the rule it may scale each client's delta ([`Strategy::scale`]) and weigh clients
//! ([`Strategy::weigh`]); so it composes with every rule. After the rule it says how the server steps
//! ([`Strategy::step`]): a kernel that runs tile by tile over the merged delta, the base, and what it keeps between
//! rounds ([`Strategy::keeps`]). To add one: its file, and a line in [`STRATEGIES`].

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
pub mod qfedavg;
pub mod scaffold;

use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::rules::Needs;
use crate::rules::geometry::Geometry;
use crate::settings::{self, Definition, Parse, SpecError};
use std::fmt;

/// What a client says about its update, as far as a strategy goes by it.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Reported {
    /// Its id.
    pub id: String,
    /// Local optimiser steps.
    pub local_steps: Option<f64>,
    /// Momentum of its local optimiser.
    pub momentum: Option<f64>,
    /// Weight of its proximal term.
    pub proximal_mu: Option<f64>,
    /// Its learning rate.
    pub local_lr: Option<f64>,
    /// Its training loss.
    pub loss: Option<f64>,
    /// The round whose model it started from.
    pub round: Option<u64>,
}

/// What an update lacks under a strategy.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error("{strategy} needs metadata `{key}`: found {found}, expected {expected}")]
pub struct Lacking {
    /// The strategy.
    pub strategy: &'static str,
    /// The key of the metadata.
    pub key: &'static str,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

impl Lacking {
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

/// The clients of a round, in order of their ids.
#[derive(Clone, Debug)]
pub struct Cohort {
    /// What each says.
    pub clients: Vec<Reported>,
    /// What each weighs as the run was told.
    pub weights: Vec<f64>,
    /// The round that is merged, if the run says.
    pub round: Option<u64>,
    /// How many clients there are in all, if the run says.
    pub population: Option<usize>,
}

/// What is known when the server steps.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// Rounds stepped before this one.
    pub steps: u64,
    /// The coefficient of each client's delta in the merged one; none where the rule works by coordinate.
    pub coefficients: Option<&'a [f64]>,
    /// The geometry of the clients' deltas as they were sent, if it was measured.
    pub geometry: Option<&'a Geometry>,
    /// The rule, for messages.
    pub rule: &'a str,
}

/// Why a strategy cannot be used on these clients.
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
    Lacking(#[from] Lacking),
}

impl StrategyError {
    fn not_measured(strategy: &dyn Strategy) -> Self {
        Self::NotMeasured { strategy: strategy.to_string() }
    }
}

/// A server strategy with its settings. Displays as the text that parses to it.
pub trait Strategy: fmt::Debug + fmt::Display + Send + Sync {
    /// Its name, which its state goes by.
    fn name(&self) -> &'static str;

    /// Whose definition it is.
    fn definition(&self) -> Definition {
        Definition::Paper
    }

    /// What it keeps between rounds.
    fn keeps(&self) -> Vec<KeptTensor> {
        Vec::new()
    }

    /// What must be measured of the updates for it.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Whether the merged model is the base plus the merged delta, so that it works without a base as well.
    fn is_plain(&self) -> bool {
        false
    }

    /// Why all clients weigh the same under it, if they do.
    fn weighs_alike(&self) -> Option<&'static str> {
        None
    }

    /// Whether updates may have started from models of earlier rounds.
    fn takes_stale(&self) -> bool {
        false
    }

    /// The fewest clients it goes on with.
    fn least_clients(&self) -> usize {
        1
    }

    /// Checks that an update says what the strategy goes by. `round` is the one that is merged.
    ///
    /// # Errors
    ///
    /// What it lacks.
    fn check(&self, client: &Reported, round: Option<u64>) -> Result<(), Lacking> {
        let _ = (client, round);
        Ok(())
    }

    /// By what each client's delta is multiplied before the rule; none for one.
    ///
    /// # Errors
    ///
    /// When the run or the clients do not say enough.
    fn scale(&self, cohort: &Cohort, geometry: Option<&Geometry>) -> Result<Option<Vec<f64>>, StrategyError> {
        let _ = (cohort, geometry);
        Ok(None)
    }

    /// By what each client's weight is multiplied before the rule; none for one. `rule` has to weigh clients then.
    ///
    /// # Errors
    ///
    /// When the run does not say enough.
    fn weigh(&self, cohort: &Cohort) -> Result<Option<Vec<f64>>, StrategyError> {
        let _ = cohort;
        Ok(None)
    }

    /// How the server steps.
    ///
    /// # Errors
    ///
    /// When the step needs what the rule does not leave.
    fn step(&self, decided: &Decided) -> Result<ServerStep, StrategyError>;

    /// By what the merged change of the clients' control variates is multiplied before the server's takes it; none
    /// where clients send none.
    ///
    /// # Errors
    ///
    /// When the run does not say how many clients there are, or says fewer than took part.
    fn control(&self, cohort: &Cohort) -> Result<Option<f64>, StrategyError> {
        let _ = cohort;
        Ok(None)
    }

    /// What the merged model tells the clients of the next round, as metadata.
    fn tells(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What the report says of how it went, beyond its settings: normalisation, effective steps, step sizes. By name.
    fn accounts(&self, cohort: &Cohort) -> Vec<(&'static str, String)> {
        let _ = cohort;
        Vec::new()
    }
}

/// Every strategy by name.
pub const STRATEGIES: [(&str, Parse<Box<dyn Strategy>>); 11] = [
    ("fedavg", fedavg::FedAvg::parse),
    ("fedprox", fedprox::FedProx::parse),
    ("fedavgm", fedavgm::FedAvgM::parse),
    ("fedadam", fedadam::parse),
    ("fedyogi", fedyogi::parse),
    ("fedadagrad", fedadagrad::parse),
    ("fednova", fednova::FedNova::parse),
    ("scaffold", scaffold::Scaffold::parse),
    ("qfedavg", qfedavg::QFedAvg::parse),
    ("fedbuff", fedbuff::FedBuff::parse),
    ("fedexp", fedexp::FedExp::parse),
];

/// The strategy when nobody names one: the model moves by the merged delta.
pub fn plain() -> Box<dyn Strategy> {
    Box::new(fedavg::FedAvg::default())
}

/// Reads a strategy as a user writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such strategy, or it has no such setting or value.
pub fn parse(text: &str, definition: Definition) -> Result<Box<dyn Strategy>, SpecError> {
    settings::parse_as("strategy", text, definition, &STRATEGIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_displays_as_it_parses() {
        for text in [
            "fedavg",
            "fedavg:lr=0.5",
            "fedprox:mu=0.01",
            "fedavgm",
            "fedavgm:lr=0.3,momentum=0.5",
            "fedadam",
            "fedadam:lr=0.01,beta1=0.8,beta2=0.999,tau=0.0001,v0=0,bias-correction=adam",
            "fedyogi:bias-correction=none",
            "fedadagrad:lr=1,beta1=0.5,tau=2,v0=3,bias-correction=none",
            "fednova",
            "fednova:gmf=0.9,lr=2,steps=12.5",
            "scaffold",
            "scaffold:lr=0.1",
            "qfedavg",
            "qfedavg:local-lr=0.1",
            "qfedavg:q=2,local-lr=0.1",
            "fedbuff",
            "fedbuff:staleness=hinge,a=1,b=2,buffer=10,normalize=weights,max-staleness=5,lr=0.5",
            "fedbuff:staleness=polynomial,a=0.25",
            "fedexp",
            "fedexp:eps=0.5",
        ] {
            for definition in [Definition::Paper, Definition::Byzfl, Definition::Flower, Definition::Tff] {
                let strategy = parse(text, definition).unwrap();
                assert_eq!(strategy.to_string(), text);
                assert!(text.starts_with(strategy.name()));
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
