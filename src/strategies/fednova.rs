//! Clients that took more local steps do not pull harder: each delta is divided by the steps behind it.
//!
//! - Paper: Wang et al., Tackling the objective inconsistency problem in heterogeneous federated optimization, 2020,
//!   equation 10: `x += tau_eff * sum_i p_i * delta_i / a_i`, `p_i` a client's share of the weight. `a_i`, the length of
//!   its accumulated steps, is by the reference code's recurrence: a step with momentum `rho` is `c = rho * c + 1;
//!   a += c`, one with a proximal term `a = (1 - eta * mu) * a + 1`, a plain one `a += 1`.
//! - Arguments: `lr`, the server's learning rate (default 1); `gmf`, its momentum (default 0); `steps`, the effective
//!   number of steps `tau_eff`. Not given, that is the mean of the clients' `a_i` by weight, where a client with a
//!   proximal term counts its plain number of steps, as in the reference. A hostile client may claim any
//!   number of steps, and moves that mean; where clients are not trusted, `steps` fixes it.
//! - Keeps: with `gmf`, the discounted sum of the merged deltas.
//! - Goes by: `local_steps`; `momentum`, `proximal_mu` and `local_lr` of clients whose optimiser has them.
//! - Elsewhere: FedLab gives every client the same `p_i` and multiplies by the number of clients over that of those
//!   who took part.

use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::model::state::StateTensor;
use crate::rules::geometry::Geometry;
use crate::settings::numbers::{Decay, shown};
use crate::settings::{Positive, Settings, SpecError, written};
use crate::strategies::{Cohort, Decided, Lacking, Reported, Strategy, StrategyError};
use std::fmt;

/// More local steps than anybody takes in a round.
const MOST_STEPS: f64 = 1e7;

/// Federated normalised averaging.
#[derive(Clone, Copy, Debug)]
pub struct FedNova {
    gmf: Option<Decay>,
    lr: Option<Positive>,
    steps: Option<Positive>,
}

/// How a client came to its delta, checked.
struct LocalWork {
    steps: u32,
    momentum: f64,
    /// The learning rate times the weight of the proximal term.
    shrink: f64,
}

impl LocalWork {
    fn of(client: &Reported) -> Result<Self, Lacking> {
        let steps =
            expect("local_steps", client.local_steps, "a whole number from 1 to 10000000", |steps| {
                (1.0..=MOST_STEPS).contains(&steps) && steps.fract() == 0.0
            })?;
        let below_one = "at least 0 and below 1";
        let momentum = Some(client.momentum.unwrap_or(0.0));
        let momentum = expect("momentum", momentum, below_one, |momentum| (0.0..1.0).contains(&momentum))?;
        Ok(Self { steps: steps as u32, momentum, shrink: shrink(client)? })
    }

    /// `a_i`: the recurrence of a step, as often as there were steps. A step is linear in `(c, a, 1)`, so the power is
    /// taken by squaring: a client that claims ten million of them costs no more than others.
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

/// What a step takes off the distance from the base: `eta * mu`.
fn shrink(client: &Reported) -> Result<f64, Lacking> {
    let mu = Some(client.proximal_mu.unwrap_or(0.0));
    let mu = expect("proximal_mu", mu, "a number that is not negative", |mu| mu >= 0.0)?;
    if mu == 0.0 {
        return Ok(0.0);
    }
    let expected = "above 0 and below 1 / proximal_mu, since there is a proximal term";
    let lr = expect("local_lr", client.local_lr, expected, |lr| lr > 0.0 && lr * mu < 1.0)?;
    Ok(lr * mu)
}

fn expect(
    key: &'static str,
    found: Option<f64>,
    expected: &str,
    is_sound: impl Fn(f64) -> bool,
) -> Result<f64, Lacking> {
    found.filter(|value| is_sound(*value)).ok_or_else(|| Lacking::new("fednova", key, found, expected))
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
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        let (gmf, lr, steps) = (settings.take("gmf")?, settings.take("lr")?, settings.take("steps")?);
        Ok(Box::new(Self { gmf, lr, steps }))
    }

    fn gmf(&self) -> f64 {
        self.gmf.map_or(0.0, |gmf| gmf.0)
    }

    /// `tau_eff`.
    fn effective_steps(&self, cohort: &Cohort) -> Result<f64, Lacking> {
        if let Some(steps) = self.steps {
            return Ok(steps.0);
        }
        let mut sum = 0.0;
        for (client, weight) in cohort.clients.iter().zip(&cohort.weights) {
            let work = LocalWork::of(client)?;
            sum += weight * if work.shrink == 0.0 { work.normaliser() } else { f64::from(work.steps) };
        }
        Ok(sum / cohort.weights.iter().sum::<f64>())
    }
}

impl fmt::Display for FedNova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [("gmf", shown(&self.gmf)), ("lr", shown(&self.lr)), ("steps", shown(&self.steps))];
        f.write_str(&written("fednova", &settings))
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

    fn check(&self, client: &Reported, _: Option<u64>) -> Result<(), Lacking> {
        LocalWork::of(client).map(drop)
    }

    fn scale(&self, cohort: &Cohort, _: Option<&Geometry>) -> Result<Option<Vec<f64>>, StrategyError> {
        let effective = self.effective_steps(cohort)?;
        let scale = |client| Ok(effective / LocalWork::of(client)?.normaliser());
        cohort.clients.iter().map(scale).collect::<Result<_, Lacking>>().map(Some).map_err(Into::into)
    }

    fn step(&self, _: &Decided) -> Result<ServerStep, StrategyError> {
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

    fn client(steps: f64) -> Reported {
        Reported { local_steps: Some(steps), ..Reported::default() }
    }

    fn scale(text: &str, clients: Vec<Reported>, weights: &[f64]) -> Result<Vec<f64>, StrategyError> {
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

    /// Two steps of weight 3, ten of weight 1: four effective steps.
    #[test]
    fn by_hand() {
        let clients = || vec![client(2.0), client(10.0)];
        assert_eq!(scale("fednova", clients(), &[3.0, 1.0]).unwrap(), [2.0, 0.4]);
        assert_eq!(scale("fednova:steps=5", clients(), &[3.0, 1.0]).unwrap(), [2.5, 0.5]);
        let mut proximal = client(2.0);
        (proximal.proximal_mu, proximal.local_lr) = (Some(5.0), Some(0.1));
        // Its a is 1.5, but of effective steps it counts 2.
        assert_eq!(scale("fednova", vec![proximal], &[1.0]).unwrap(), [2.0 / 1.5]);
    }

    #[test]
    fn what_an_update_lacks_is_named() {
        let strategy = parse("fednova", crate::settings::Definition::Paper).unwrap();
        let with = |change: fn(&mut Reported)| {
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
}
