//! Clients with a high loss pull harder, so that the model treats clients more equally.
//!
//! - Paper: Li et al., Fair resource allocation in federated learning, 2020, algorithm 2.
//! - Before the rule: `delta_k * n * L * F_k^q / sum_k h_k`, where F is the loss, `L = 1 / local-lr` and
//!   `h_k = q * F_k^(q-1) * |L * delta_k|^2 + L * F_k^q`.
//! - Step: `x += delta`.
//! - Cost: the distances of all updates, for their norms.
//! - Clients send: `loss` of the model a client starts from, on its data; `local_lr`, unless `local-lr` is given.
//! - Details: all clients weigh the same, as in the paper, which draws clients by weight. Each loss counts 1e-10 more, as
//!   in the authors' code.
//! - Elsewhere: Flower does the same.
//!
//! A hostile client may claim any loss. A client with a very long delta makes the sum of all `h_k` so large that the
//! model hardly moves. A step such as `clip` bounds neither, since it comes later.

use crate::kernels::server_step::ServerStep;
use crate::rules::Needs;
use crate::rules::geometry::Geometry;
use crate::settings::numbers::NotNegative;
use crate::settings::{Positive, RegistryEntry, Setting, spec_text, value};
use crate::strategies::{ClientMetadata, Cohort, MissingMetadata, StepInput, Strategy, StrategyError};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "qfedavg",
    summary: "Clients with a high loss pull harder, so that the model treats clients more equally.",
    settings: &[
        Setting::new("q", "0.1", "0 is the mean; the larger, the more the worst client counts"),
        Setting::new(
            "local-lr",
            "0.05",
            "the clients' learning rate; the `local_lr` of all updates if missing",
        ),
    ],
    parse: |settings| Ok(Box::new(QFedAvg { q: settings.take("q")?, local_lr: settings.take("local-lr")? })),
};

/// q-FedAvg.
#[derive(Clone, Copy, Debug)]
pub struct QFedAvg {
    q: Option<NotNegative>,
    local_lr: Option<Positive>,
}

/// Added to each loss, so that its powers are finite.
const LEAST_LOSS: f64 = 1e-10;

impl QFedAvg {
    /// The clients' learning rate: the setting, or the rate that all clients report.
    fn local_lr(&self, cohort: &Cohort) -> Result<f64, MissingMetadata> {
        if let Some(lr) = self.local_lr {
            return Ok(lr.0);
        }
        let first = cohort.clients.first().and_then(rate);
        let other = cohort.clients.iter().find(|client| rate(client).is_none() || rate(client) != first);
        match (first, other) {
            (Some(lr), None) => Ok(lr),
            (_, other) => {
                let expected = "one number above zero in all updates, or qfedavg:local-lr=X";
                Err(MissingMetadata::new(
                    "qfedavg",
                    "local_lr",
                    other.and_then(|client| client.local_lr),
                    expected,
                ))
            }
        }
    }

    /// The factors `n * L * F_k^q / sum h`, which make the plain mean of the deltas the paper's step. Numerator and
    /// denominator are divided by L and by the largest `F^q`, so that no power of a loss overflows.
    fn factors(&self, local_lr: f64, losses: &[f64], norms: &[f64]) -> Vec<f64> {
        let (q, lipschitz) = (self.q.map_or(0.1, |q| q.0), local_lr.recip());
        let largest = losses.iter().copied().fold(0.0, f64::max);
        let powers: Vec<f64> = losses.iter().map(|loss| (loss / largest).powf(q)).collect();
        // A client whose power vanishes beside the largest has no term, however long its delta is.
        let term = |k: usize| match q * powers[k] {
            0.0 => powers[k],
            part => powers[k] + part * lipschitz * norms[k] * norms[k] / losses[k],
        };
        let sum: f64 = (0..losses.len()).map(term).sum();
        powers.iter().map(|power| losses.len() as f64 * power / sum).collect()
    }
}

/// The learning rate that a client states, if it is above zero.
fn rate(client: &ClientMetadata) -> Option<f64> {
    client.local_lr.filter(|lr| *lr > 0.0)
}

/// The most frequent number; of equally frequent ones, the smallest.
fn most_common<'n>(numbers: impl Iterator<Item = &'n f64>) -> Option<f64> {
    // Positive floats have the order of their bits.
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    numbers.for_each(|number| *votes.entry(number.to_bits()).or_default() += 1);
    let most = votes.into_iter().max_by_key(|(bits, votes)| (*votes, Reverse(*bits)));
    most.map(|(bits, _)| f64::from_bits(bits))
}

/// The loss of a client, plus [`LEAST_LOSS`].
fn loss(client: &ClientMetadata) -> Result<f64, MissingMetadata> {
    let sound = client.loss.filter(|loss| (0.0..=f64::MAX).contains(loss));
    let lacking = || MissingMetadata::new("qfedavg", "loss", client.loss, "a number that is not negative");
    sound.map(|loss| loss + LEAST_LOSS).ok_or_else(lacking)
}

impl fmt::Display for QFedAvg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("qfedavg", &[("q", value(&self.q)), ("local-lr", value(&self.local_lr))]))
    }
}

impl Strategy for QFedAvg {
    fn name(&self) -> &'static str {
        "qfedavg"
    }

    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn weighs_alike(&self) -> Option<&'static str> {
        Some("the losses decide how much each counts")
    }

    fn trusts(&self) -> Option<(&'static str, &'static str)> {
        Some(("loss", "chooses its own factor"))
    }

    /// All clients must have one learning rate, unless the setting gives it: that of most clients.
    fn odd(&self, clients: &[ClientMetadata]) -> Vec<(usize, MissingMetadata)> {
        let rates: Vec<Option<f64>> = clients.iter().map(rate).collect();
        let (None, Some(most)) = (self.local_lr, most_common(rates.iter().flatten())) else {
            return Vec::new();
        };
        let is_odd = |i: &usize| rates[*i] != Some(most);
        let fault = |i: usize| {
            let expected = format!("{most} as in most updates, or qfedavg:local-lr=X");
            (i, MissingMetadata::new("qfedavg", "local_lr", clients[i].local_lr, expected))
        };
        (0..rates.len()).filter(is_odd).map(fault).collect()
    }

    fn check(&self, client: &ClientMetadata, _: Option<u64>) -> Result<(), MissingMetadata> {
        loss(client).map(drop)
    }

    fn scale(&self, cohort: &Cohort, geometry: Option<&Geometry>) -> Result<Option<Vec<f64>>, StrategyError> {
        let geometry = geometry.ok_or_else(|| StrategyError::not_measured(self))?;
        let losses = cohort.clients.iter().map(loss).collect::<Result<Vec<f64>, MissingMetadata>>()?;
        let norms: Vec<f64> = (0..losses.len()).map(|k| geometry.norm(k)).collect();
        let factors = self.factors(self.local_lr(cohort)?, &losses, &norms);
        if factors.iter().any(|factor| !factor.is_finite()) {
            let what =
                "the losses and the lengths of the deltas differ too much to weigh the clients".to_owned();
            return Err(StrategyError::NotANumber { strategy: self.to_string(), what });
        }
        Ok(Some(factors))
    }

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(q: f64, losses: &[f64], norms: &[f64]) -> Vec<f64> {
        QFedAvg { q: Some(NotNegative(q)), local_lr: None }.factors(0.5, losses, norms)
    }

    #[test]
    fn without_q_it_is_the_mean() {
        assert_eq!(factors(0.0, &[1e-10, 3.0, 1e300], &[5.0, 0.0, 1e100]), [1.0; 3]);
    }

    /// With L = 2 the two h are 1 * |2 * 3|^2 + 2 * 1 and 1 * |2 * 1|^2 + 2 * 4, together 50.
    #[test]
    fn by_hand() {
        let got = factors(1.0, &[1.0, 4.0], &[3.0, 1.0]);
        for (got, want) in got.iter().zip([2.0 * 2.0 / 50.0, 2.0 * 2.0 * 4.0 / 50.0]) {
            assert!((got / want - 1.0).abs() < 1e-14, "{got} {want}");
        }
    }

    #[test]
    fn absurd_losses_give_numbers() {
        for q in [1e-3, 0.1, 1.0, 50.0, 1e6] {
            let all = factors(q, &[1e-10, 1.0, 1e300], &[1e-20, 1.0, 1e100]);
            assert!(all.iter().all(|factor| factor.is_finite()), "{q}: {all:?}");
        }
        assert_eq!(factors(1.0, &[1.0, 1e300], &[0.0, 0.0])[1], 2.0);
    }

    #[test]
    fn the_learning_rate_is_given_or_that_of_all_clients() {
        let client = |local_lr| ClientMetadata { local_lr, ..ClientMetadata::default() };
        let of = |given: Option<f64>, said: &[Option<f64>]| {
            let clients = said.iter().map(|lr| client(*lr)).collect();
            let cohort = Cohort { clients, weights: Vec::new(), round: None, population: None };
            QFedAvg { q: None, local_lr: given.map(Positive) }
                .local_lr(&cohort)
                .map_err(|why| why.to_string())
        };
        assert_eq!(of(Some(0.2), &[None, Some(0.1)]), Ok(0.2));
        assert_eq!(of(None, &[Some(0.1), Some(0.1)]), Ok(0.1));
        for said in [&[Some(0.1), None][..], &[None, Some(0.1)], &[Some(0.1), Some(0.2)], &[Some(0.0)]] {
            assert!(of(None, said).unwrap_err().contains("`local_lr`: found "), "{said:?}");
        }
    }

    #[test]
    fn a_loss_must_be_a_number_that_is_not_negative() {
        for bad in [None, Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)] {
            let error =
                loss(&ClientMetadata { loss: bad, ..ClientMetadata::default() }).unwrap_err().to_string();
            assert!(error.starts_with("qfedavg needs metadata `loss`: found "), "{error}");
        }
        assert!(loss(&ClientMetadata { loss: Some(0.0), ..ClientMetadata::default() }).is_ok());
    }
}
