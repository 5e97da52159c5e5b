//! Divides each delta by the length of its local steps, so that more steps do not pull harder.
//!
//! - Paper: Wang et al., Tackling the objective inconsistency problem in heterogeneous federated optimization, 2020,
//!   equation 10.
//! - Before the rule: `delta_i * tau_eff / a_i`, where `a_i` is the length of a client's accumulated steps and `tau_eff`
//!   is `steps`, or else the mean of the `a_i` by weight.
//! - Step: `x += lr * delta`; with `gmf`: `m = gmf * m + delta; x += lr * m`.
//! - Keeps: with `gmf`, `m`, zero before the first round.
//! - Clients send: `local_steps`; `momentum`, `proximal_mu` and `local_lr`, if their optimiser has them.
//! - Details: `a_i` follows the reference code's recurrence. A step with momentum `rho` is `c = rho * c + 1; a += c`. A
//!   step with a proximal term is `a = (1 - eta * mu) * a + 1`, a plain step `a += 1`. In `tau_eff` a client with a
//!   proximal term counts its plain number of steps, as in the reference. A hostile client may claim any number of steps
//!   and so move that mean; `steps` fixes it.
//! - Elsewhere: FedLab gives every client the same share, and multiplies by the number of all clients over the number
//!   of clients that take part.

use crate::kernels::server_step::ServerStep;
use crate::model::state::{KeptTensor, StateTensor};
use crate::rules::geometry::Geometry;
use crate::settings::numbers::Decay;
use crate::settings::{Positive, RegistryEntry, Setting, spec_text, value};
use crate::strategies::{ClientMetadata, Cohort, MissingMetadata, StepInput, Strategy, StrategyError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fednova",
    summary: "Each delta is divided by the length of its local steps, so that more steps do not pull \
              harder.",
    settings: &[
        Setting::new("gmf", "0", "the server's momentum"),
        Setting::new("lr", "1", "the server's learning rate"),
        Setting::new("steps", "12", "effective number of steps; the clients' mean if missing"),
    ],
    parse: |settings| {
        let (gmf, lr, steps) = (settings.take("gmf")?, settings.take("lr")?, settings.take("steps")?);
        Ok(Box::new(FedNova { gmf, lr, steps }))
    },
};

/// The most local steps that a client may report.
const MOST_STEPS: f64 = 1e7;

/// How many times the median of the clients' steps a claim must exceed to be worth a warning, or to be the cause of an
/// overflow.
const OUTLYING: f64 = 10.0;

/// Federated normalised averaging.
#[derive(Clone, Copy, Debug)]
pub struct FedNova {
    gmf: Option<Decay>,
    lr: Option<Positive>,
    steps: Option<Positive>,
}

/// A client's local optimisation, checked.
struct LocalWork {
    steps: u32,
    momentum: f64,
    /// The learning rate times the weight of the proximal term; zero without that term.
    shrink: f64,
}

impl LocalWork {
    fn of(client: &ClientMetadata) -> Result<Self, MissingMetadata> {
        let steps =
            expect("local_steps", client.local_steps, "a whole number from 1 to 10000000", |steps| {
                (1.0..=MOST_STEPS).contains(&steps) && steps.fract() == 0.0
            })?;
        let below_one = "at least 0 and below 1";
        let momentum = Some(client.momentum.unwrap_or(0.0));
        let momentum = expect("momentum", momentum, below_one, |momentum| (0.0..1.0).contains(&momentum))?;
        Ok(Self { steps: steps as u32, momentum, shrink: shrink(client)? })
    }

    /// The steps that count in `tau_eff`.
    fn counted(&self) -> f64 {
        if self.shrink == 0.0 { self.normaliser() } else { f64::from(self.steps) }
    }

    /// `a_i`: the recurrence of a step, applied once for each step. A step is linear in `(c, a, 1)`, and squaring gives
    /// its power, so a client that claims ten million steps costs no more than others.
    fn normaliser(&self) -> f64 {
        let keep = 1.0 - self.shrink;
        let (counts, adds) = match (self.momentum != 0.0, self.shrink != 0.0) {
            (false, _) => (0.0, 1.0),
            (true, false) => (1.0, 0.0),
            (true, true) => (1.0, 1.0),
        };
        let step = [
            [self.momentum, 0.0, 1.0],
            [counts * keep * self.momentum, keep, counts * keep + adds],
            [0.0, 0.0, 1.0],
        ];
        power(step, self.steps)[1][2]
    }
}

/// The part of the distance from the base that a step removes: `eta * mu`.
fn shrink(client: &ClientMetadata) -> Result<f64, MissingMetadata> {
    let mu = Some(client.proximal_mu.unwrap_or(0.0));
    let mu = expect("proximal_mu", mu, "a number that is not negative", |mu| mu >= 0.0)?;
    if mu == 0.0 {
        return Ok(0.0);
    }
    let expected = "above 0 and below 1 / proximal_mu, since there is a proximal term";
    let lr = expect("local_lr", client.local_lr, expected, |lr| lr > 0.0 && lr * mu < 1.0)?;
    Ok(lr * mu)
}

/// The value of a client's metadata, if it is sound.
fn expect(
    key: &'static str,
    found: Option<f64>,
    expected: &str,
    is_sound: impl Fn(f64) -> bool,
) -> Result<f64, MissingMetadata> {
    found
        .filter(|value| is_sound(*value))
        .ok_or_else(|| MissingMetadata::new("fednova", key, found, expected))
}

/// A claim far above the middle one.
struct Outlying {
    client: usize,
    /// The steps of the claim that count in `tau_eff`.
    steps: f64,
    /// Those of the middle claim.
    middle: f64,
}

type Square = [[f64; 3]; 3];

fn product(a: &Square, b: &Square) -> Square {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

fn power(mut square: Square, mut exponent: u32) -> Square {
    let mut result = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = product(&result, &square);
        }
        square = product(&square, &square);
        exponent /= 2;
    }
    result
}

impl FedNova {
    fn gmf(&self) -> f64 {
        self.gmf.map_or(0.0, |gmf| gmf.0)
    }

    /// `tau_eff`, the effective number of steps.
    fn effective_steps(&self, cohort: &Cohort) -> Result<f64, MissingMetadata> {
        if let Some(steps) = self.steps {
            return Ok(steps.0);
        }
        let mut sum = 0.0;
        for (client, weight) in cohort.clients.iter().zip(&cohort.weights) {
            sum += weight * LocalWork::of(client)?.counted();
        }
        Ok(sum / cohort.weights.iter().sum::<f64>())
    }

    /// The largest claim, if it is far above the middle one and moves `tau_eff`.
    fn outlying(&self, cohort: &Cohort) -> Option<Outlying> {
        let of = |client| LocalWork::of(client).map_or(0.0, |work| work.counted());
        let counted: Vec<f64> = cohort.clients.iter().map(of).collect();
        let mut sorted = counted.clone();
        sorted.sort_by(f64::total_cmp);
        let (middle, steps) = (*sorted.get((sorted.len().max(1) - 1) / 2)?, *sorted.last()?);
        let client = counted.iter().position(|counted| *counted == steps)?;
        (self.steps.is_none() && steps > OUTLYING * middle).then_some(Outlying { client, steps, middle })
    }
}

impl fmt::Display for FedNova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [("gmf", value(&self.gmf)), ("lr", value(&self.lr)), ("steps", value(&self.steps))];
        f.write_str(&spec_text("fednova", &settings))
    }
}

impl Strategy for FedNova {
    fn name(&self) -> &'static str {
        "fednova"
    }

    fn keeps(&self) -> Vec<KeptTensor> {
        let momentum = KeptTensor { slot: StateTensor::Momentum, initial: 0.0 };
        if self.gmf() == 0.0 { Vec::new() } else { vec![momentum] }
    }

    fn trusts(&self) -> Option<(&'static str, &'static str)> {
        let decides = match self.steps {
            Some(_) => "chooses its own factor",
            None => {
                "chooses its own factor, and its claim moves tau_eff, the factor of all updates; fednova:steps=N fixes \
                 tau_eff"
            }
        };
        Some(("local_steps", decides))
    }

    fn warns(&self, cohort: &Cohort) -> Option<String> {
        let Outlying { client, steps, middle } = self.outlying(cohort)?;
        let (id, effective) = (&cohort.clients[client].id, self.effective_steps(cohort).ok()?);
        Some(format!(
            "client {id} claims {steps} effective steps, over {OUTLYING} times the {middle} of most clients: its claim \
             takes tau_eff, the factor of all updates, to {effective:.1}; fednova:steps=N fixes tau_eff"
        ))
    }

    fn check(&self, client: &ClientMetadata, _: Option<u64>) -> Result<(), MissingMetadata> {
        LocalWork::of(client).map(drop)
    }

    fn outlying_claim(&self, cohort: &Cohort) -> Option<(usize, MissingMetadata)> {
        let Outlying { client, middle, .. } = self.outlying(cohort)?;
        let expected = format!("about as many as most clients, {middle}: the merged delta does not fit");
        let found = cohort.clients[client].local_steps;
        Some((client, MissingMetadata::new("fednova", "local_steps", found, expected)))
    }

    fn scale(&self, cohort: &Cohort, _: Option<&Geometry>) -> Result<Option<Vec<f64>>, StrategyError> {
        let effective = self.effective_steps(cohort)?;
        let scale = |client| Ok(effective / LocalWork::of(client)?.normaliser());
        cohort.clients.iter().map(scale).collect::<Result<_, MissingMetadata>>().map(Some).map_err(Into::into)
    }

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        let lr = self.lr.map_or(1.0, |lr| lr.0);
        Ok(match self.gmf() {
            0.0 => ServerStep::Average { lr },
            momentum => ServerStep::Momentum { lr, momentum },
        })
    }

    fn accounts(&self, cohort: &Cohort) -> Vec<(&'static str, String)> {
        let effective = self.effective_steps(cohort).ok();
        effective.map(|steps| ("effective_steps", steps.to_string())).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::parse;

    fn client(steps: f64) -> ClientMetadata {
        ClientMetadata { local_steps: Some(steps), ..ClientMetadata::default() }
    }

    fn scale(text: &str, clients: Vec<ClientMetadata>, weights: &[f64]) -> Result<Vec<f64>, StrategyError> {
        let cohort = Cohort { clients, weights: weights.to_vec(), round: None, population: None };
        let strategy = parse(text, crate::settings::Definition::Paper).unwrap();
        strategy.scale(&cohort, None).map(Option::unwrap)
    }

    /// The reference's recurrence, step by step.
    fn counted(work: &LocalWork) -> f64 {
        let (mut counter, mut a) = (0.0, 0.0);
        for _ in 0..work.steps {
            if work.momentum != 0.0 {
                counter = counter * work.momentum + 1.0;
                a += counter;
            }
            if work.shrink != 0.0 {
                a = a * (1.0 - work.shrink) + 1.0;
            }
            if work.momentum == 0.0 && work.shrink == 0.0 {
                a += 1.0;
            }
        }
        a
    }

    #[test]
    fn normalisers_are_those_of_the_recurrence() {
        for steps in [1, 2, 3, 10, 1001] {
            for (momentum, shrink) in [(0.0, 0.0), (0.9, 0.0), (0.0, 0.25), (0.5, 0.01), (0.99, 0.75)] {
                let work = LocalWork { steps, momentum, shrink };
                let (got, want) = (work.normaliser(), counted(&work));
                assert!((got / want - 1.0).abs() < 1e-12, "{steps} {momentum} {shrink}: {got} {want}");
            }
        }
        let work = LocalWork { steps: 10_000_000, momentum: 0.0, shrink: 0.0 };
        assert_eq!(work.normaliser(), 1e7);
    }

    #[test]
    fn equal_clients_are_left_as_they_are() {
        assert_eq!(scale("fednova", vec![client(7.0), client(7.0)], &[1.0, 9.0]).unwrap(), [1.0, 1.0]);
    }

    /// Two steps with weight 3 and ten with weight 1: four effective steps.
    #[test]
    fn by_hand() {
        let clients = || vec![client(2.0), client(10.0)];
        assert_eq!(scale("fednova", clients(), &[3.0, 1.0]).unwrap(), [2.0, 0.4]);
        assert_eq!(scale("fednova:steps=5", clients(), &[3.0, 1.0]).unwrap(), [2.5, 0.5]);
        let mut proximal = client(2.0);
        (proximal.proximal_mu, proximal.local_lr) = (Some(5.0), Some(0.1));
        // Its a is 1.5, but it counts 2 effective steps.
        assert_eq!(scale("fednova", vec![proximal], &[1.0]).unwrap(), [2.0 / 1.5]);
    }

    #[test]
    fn what_an_update_lacks_is_named() {
        let strategy = parse("fednova", crate::settings::Definition::Paper).unwrap();
        let with = |change: fn(&mut ClientMetadata)| {
            let mut client = client(3.0);
            change(&mut client);
            strategy.check(&client, None).unwrap_err().to_string()
        };
        let steps = "fednova needs metadata `local_steps`: found ";
        assert!(with(|c| c.local_steps = None).starts_with(&format!("{steps}none")));
        for bad in [0.0, -1.0, 1.5, 1e7 + 1.0, f64::NAN, f64::INFINITY] {
            assert!(strategy.check(&client(bad), None).is_err(), "{bad}");
        }
        assert!(with(|c| c.local_steps = Some(1.5)).starts_with(&format!("{steps}1.5, expected a whole")));
        assert!(with(|c| c.momentum = Some(1.0)).contains("`momentum`: found 1"));
        assert!(with(|c| c.proximal_mu = Some(0.1)).contains("`local_lr`: found none"));
        assert!(with(|c| (c.proximal_mu, c.local_lr) = (Some(20.0), Some(0.1))).contains("`local_lr`"));
        assert!(with(|c| c.proximal_mu = Some(-1.0)).contains("`proximal_mu`: found -1"));
        assert!(strategy.check(&client(1e7), None).is_ok());
    }

    #[test]
    fn a_proximal_step_that_removes_the_whole_distance_is_refused() {
        let of = |mu, lr| {
            let client = ClientMetadata { proximal_mu: Some(mu), local_lr: Some(lr), ..client(1.0) };
            shrink(&client).ok()
        };
        assert_eq!((of(2.0, 0.5), of(2.0, 0.25), of(2.0, 0.0)), (None, Some(0.5), None));
        assert_eq!((of(0.0, 0.5), of(-1.0, 0.5)), (Some(0.0), None));
    }

    #[test]
    fn the_lower_of_two_middle_claims_is_the_measure() {
        let cohort = |steps: &[f64]| Cohort {
            clients: steps.iter().map(|steps| client(*steps)).collect(),
            weights: vec![1.0; steps.len()],
            round: None,
            population: None,
        };
        let strategy = parse("fednova", crate::settings::Definition::Paper).unwrap();
        let claim = strategy.outlying_claim(&cohort(&[1.0, 1000.0])).map(|(client, _)| client);
        assert_eq!(claim, Some(1));
        assert!(strategy.outlying_claim(&cohort(&[1.0, 9.0])).is_none());
    }
}
