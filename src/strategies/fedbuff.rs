//! Merges updates from models of earlier rounds; the older the model, the less an update counts.
//!
//! - Paper: Nguyen et al., Federated learning with buffered asynchronous aggregation, 2022, algorithm 1; `hinge` is from
//!   Xie, Koyejo and Gupta, Asynchronous federated optimization, 2019, section 5.2.
//! - Before the rule: `delta_i * s(tau_i)`, or with `normalize=weights` the client's weight times `s(tau_i)`.
//! - Step: `x += lr * delta`.
//! - Clients send: `round`, whose model they start from.
//! - Details: the staleness tau is `--round` less the update's `round`. `s(tau)` is `(1 + tau)^-a` for `polynomial`, by
//!   default with a = 0.5. For `hinge` it is 1 up to `b`, and then `1 / (a * (tau - b) + 1)`. For `constant` it is 1.
//!   `normalize=count`, the paper's, multiplies deltas, so that a stale round is a small step. `normalize=weights`
//!   multiplies weights, which then add up to one again.
//! - Elsewhere: FLSim divides by s of the mean staleness. FederatedScope does not make the weights add up to one. NVFlare
//!   counts from the next round, so that a fresh update has 0.5 already. APPFL takes differences from the current model
//!   and not from the client's, which undoes the rounds in between. Here updates of stale clients must be deltas.

use crate::kernels::server_step::ServerStep;
use crate::rules::geometry::Geometry;
use crate::settings::numbers::NotNegative;
use crate::settings::{Positive, RegistryEntry, Setting, Settings, SpecError, spec_text, value};
use crate::strategies::{ClientMetadata, Cohort, MissingMetadata, StepInput, Strategy, StrategyError};
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedbuff",
    summary: "Updates from models of earlier rounds count too; the older the model, the less.",
    settings: &[
        Setting::new("staleness", "hinge", "polynomial (default), hinge or constant"),
        Setting::new(
            "a",
            "10",
            "how fast an update loses weight: 0.5 by default for polynomial, 10 for hinge",
        ),
        Setting::new("b", "4", "for hinge: the staleness up to which an update counts in full"),
        Setting::new("buffer", "1", "the fewest updates that are merged"),
        Setting::new("normalize", "count", "count: staleness shrinks deltas; weights: it shrinks weights"),
        Setting::new("max-staleness", "5", "an older update is a bad update; no limit if missing"),
        Setting::new("lr", "1", "the server's learning rate"),
    ],
    parse: FedBuff::parse,
};

/// Buffered asynchronous aggregation.
#[derive(Clone, Debug)]
pub struct FedBuff {
    staleness: Option<Staleness>,
    a: Option<NotNegative>,
    b: Option<NotNegative>,
    buffer: Option<Count>,
    normalize: Option<Normalize>,
    max_staleness: Option<u64>,
    lr: Option<Positive>,
}

/// The function that lowers the weight of an update by its staleness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Staleness {
    Polynomial,
    Constant,
    Hinge,
}

/// The divisor of the sum of the updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Normalize {
    /// The sum of their weights without staleness.
    Count,
    /// The sum of their weights with staleness.
    Weights,
}

/// The fewest updates that are merged.
#[derive(Clone, Copy, Debug)]
struct Count(NonZeroUsize);

impl FromStr for Staleness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "polynomial" => Ok(Self::Polynomial),
            "constant" => Ok(Self::Constant),
            "hinge" => Ok(Self::Hinge),
            _ => Err(format!("found `{text}`, expected polynomial, constant or hinge")),
        }
    }
}

impl FromStr for Normalize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "count" => Ok(Self::Count),
            "weights" => Ok(Self::Weights),
            _ => Err(format!("found `{text}`, expected count or weights")),
        }
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("found `{text}`, expected a number of updates, at least 1"))
    }
}

impl fmt::Display for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polynomial => "polynomial",
            Self::Constant => "constant",
            Self::Hinge => "hinge",
        })
    }
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Weights => "weights",
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FedBuff {
    fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        let staleness = settings.take("staleness")?;
        Ok(Box::new(Self {
            staleness,
            // Only the settings that the function has. Any other setting is a mistake of the operator.
            a: if staleness == Some(Staleness::Constant) { None } else { settings.take("a")? },
            b: if staleness == Some(Staleness::Hinge) { settings.take("b")? } else { None },
            buffer: settings.take("buffer")?,
            normalize: settings.take("normalize")?,
            max_staleness: settings.take::<Rounds>("max-staleness")?.map(|rounds| rounds.0),
            lr: settings.take("lr")?,
        }))
    }

    /// s(tau), the factor for a delta or a weight.
    fn factor(&self, staleness: u64) -> f64 {
        let tau = staleness as f64;
        let a = |default| self.a.map_or(default, |a| a.0);
        match self.staleness.unwrap_or(Staleness::Polynomial) {
            Staleness::Constant => 1.0,
            Staleness::Polynomial => (1.0 + tau).powf(-a(0.5)),
            Staleness::Hinge => {
                let over = tau - self.b.map_or(4.0, |b| b.0);
                if over <= 0.0 { 1.0 } else { 1.0 / (a(10.0) * over + 1.0) }
            }
        }
    }

    /// The factors of all clients, if they belong to `normalize`.
    fn factors(&self, cohort: &Cohort, normalize: Normalize) -> Result<Option<Vec<f64>>, StrategyError> {
        if self.normalize() != normalize {
            return Ok(None);
        }
        let staleness = self.all_staleness(cohort)?;
        Ok(Some(staleness.iter().map(|staleness| self.factor(*staleness)).collect()))
    }

    fn normalize(&self) -> Normalize {
        self.normalize.unwrap_or(Normalize::Count)
    }

    fn all_staleness(&self, cohort: &Cohort) -> Result<Vec<u64>, StrategyError> {
        let Some(round) = cohort.round else {
            let expected = "the number of this round, to count staleness";
            return Err(StrategyError::NoOption { strategy: self.to_string(), option: "round", expected });
        };
        let staleness = |client| self.staleness_of(client, round);
        cohort.clients.iter().map(staleness).collect::<Result<_, MissingMetadata>>().map_err(Into::into)
    }

    fn staleness_of(&self, client: &ClientMetadata, round: u64) -> Result<u64, MissingMetadata> {
        let least = round.saturating_sub(self.max_staleness.unwrap_or(u64::MAX));
        let sound = client.round.filter(|own| (least..=round).contains(own));
        sound.map(|own| round - own).ok_or_else(|| {
            MissingMetadata::new("fedbuff", "round", client.round, format!("a round from {least} to {round}"))
        })
    }
}

/// A number of rounds.
struct Rounds(u64);

impl FromStr for Rounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("found `{text}`, expected a number of rounds"))
    }
}

impl fmt::Display for FedBuff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("staleness", value(&self.staleness)),
            ("a", value(&self.a)),
            ("b", value(&self.b)),
            ("buffer", value(&self.buffer)),
            ("normalize", value(&self.normalize)),
            ("max-staleness", value(&self.max_staleness)),
            ("lr", value(&self.lr)),
        ];
        f.write_str(&spec_text("fedbuff", &settings))
    }
}

impl Strategy for FedBuff {
    fn name(&self) -> &'static str {
        "fedbuff"
    }

    fn takes_stale(&self) -> bool {
        true
    }

    fn least_clients(&self) -> usize {
        self.buffer.map_or(1, |count| count.0.get())
    }

    fn check(&self, client: &ClientMetadata, round: Option<u64>) -> Result<(), MissingMetadata> {
        round.map_or(Ok(()), |round| self.staleness_of(client, round).map(drop))
    }

    fn scale(&self, cohort: &Cohort, _: Option<&Geometry>) -> Result<Option<Vec<f64>>, StrategyError> {
        self.factors(cohort, Normalize::Count)
    }

    fn weigh(&self, cohort: &Cohort) -> Result<Option<Vec<f64>>, StrategyError> {
        self.factors(cohort, Normalize::Weights)
    }

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: self.lr.map_or(1.0, |lr| lr.0) })
    }

    fn accounts(&self, cohort: &Cohort) -> Vec<(&'static str, String)> {
        let mut accounts = vec![("normalize", self.normalize().to_string())];
        if let Ok(staleness) = self.all_staleness(cohort) {
            let sum: f64 = staleness.iter().map(|staleness| *staleness as f64).sum();
            accounts.push(("mean_staleness", (sum / staleness.len().max(1) as f64).to_string()));
            accounts.push(("largest_staleness", staleness.iter().max().unwrap_or(&0).to_string()));
        }
        accounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Definition;
    use crate::strategies::parse;

    fn cohort(round: Option<u64>, rounds: &[Option<u64>]) -> Cohort {
        let client = |round: &Option<u64>| ClientMetadata { round: *round, ..ClientMetadata::default() };
        let clients = rounds.iter().map(client).collect();
        Cohort { clients, weights: vec![1.0; rounds.len()], round, population: None }
    }

    fn strategy(text: &str) -> Box<dyn Strategy> {
        parse(text, Definition::Paper).unwrap()
    }

    #[test]
    fn staleness_functions_by_hand() {
        let cohort = cohort(Some(8), &[Some(8), Some(5), Some(0)]);
        for (settings, want) in [
            ("", [1.0, 0.5, 1.0 / 3.0]),
            (":a=1", [1.0, 0.25, 1.0 / 9.0]),
            (":a=0", [1.0; 3]),
            (":staleness=constant", [1.0; 3]),
            (":staleness=hinge", [1.0, 1.0, 1.0 / 41.0]),
            (":staleness=hinge,a=1,b=2", [1.0, 0.5, 1.0 / 7.0]),
        ] {
            let strategy = strategy(&format!("fedbuff{settings}"));
            let got = strategy.scale(&cohort, None).unwrap().unwrap();
            assert!(
                got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-15),
                "{settings}: {got:?}"
            );
            assert_eq!(strategy.weigh(&cohort).unwrap(), None);
        }
    }

    #[test]
    fn staleness_is_in_the_weights_with_normalize_weights() {
        let (cohort, strategy) =
            (cohort(Some(3), &[Some(0), Some(3)]), strategy("fedbuff:normalize=weights"));
        assert_eq!(strategy.weigh(&cohort).unwrap(), Some(vec![0.5, 1.0]));
        assert_eq!(strategy.scale(&cohort, None).unwrap(), None);
    }

    #[test]
    fn rounds_must_be_known_and_past_and_not_too_old() {
        let check = |text: &str, own, round| {
            let client = ClientMetadata { round: own, ..ClientMetadata::default() };
            strategy(text).check(&client, round).map_err(|lacking| lacking.to_string())
        };
        let lacking = "fedbuff needs metadata `round`: found none, expected a round from 0 to 5";
        assert_eq!(check("fedbuff", None, Some(5)), Err(lacking.to_owned()));
        assert!(check("fedbuff", Some(6), Some(5)).unwrap_err().contains("found 6"));
        assert_eq!(check("fedbuff:max-staleness=2", Some(3), Some(5)), Ok(()));
        let stale = check("fedbuff:max-staleness=2", Some(2), Some(5)).unwrap_err();
        assert!(stale.ends_with("found 2, expected a round from 3 to 5"), "{stale}");
        let unknown = strategy("fedbuff").scale(&cohort(None, &[Some(1)]), None).unwrap_err().to_string();
        assert!(unknown.starts_with("fedbuff: --round is missing"), "{unknown}");
    }

    #[test]
    fn the_report_has_the_staleness() {
        let accounts = strategy("fedbuff:buffer=4").accounts(&cohort(Some(4), &[Some(4), Some(1)]));
        let want = [("normalize", "count"), ("mean_staleness", "1.5"), ("largest_staleness", "3")];
        assert_eq!(accounts, want.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(strategy("fedbuff:buffer=4").least_clients(), 4);
    }
}
