//! The number of clients of a round against the plan's sampling.

use crate::privacy::ledger::plan::{BudgetPlan, Sampling};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Probability below which a number of clients contradicts the sampling.
const IMPOSSIBLE: f64 = 1e-9;

/// A number of clients that the plan's sampling gives with hardly any probability. If clients were drawn otherwise, a
/// round costs more than its charge says.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Contradiction {
    /// The number of clients.
    pub clients: u64,
    /// The number that the plan gives on average.
    pub expected: u64,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clients contradict the plan's sampling, which gives {}: if they were drawn otherwise, the round costs \
             more epsilon than was charged",
            self.clients, self.expected
        )
    }
}

impl BudgetPlan {
    /// Whether a charge pays for a round whose clients took part independently, each with this probability. `None` is a
    /// selection that gives no such promise.
    pub fn covers(&self, drawn: Option<f64>) -> bool {
        match self.sampling {
            _ if self.sampling_rate >= 1.0 => true,
            Sampling::All => true,
            Sampling::Poisson => drawn.is_some_and(|rate| rate <= self.sampling_rate),
            Sampling::Fixed => false,
        }
    }

    /// Whether a number of clients contradicts the sampling of the plan: another number than it draws, or one of a
    /// probability below one in a billion.
    pub fn contradiction(&self, clients: u64) -> Option<Contradiction> {
        let expected = self.cohort();
        let is_possible = match self.sampling {
            _ if self.sampling_rate >= 1.0 => true,
            Sampling::All => true,
            Sampling::Fixed => clients == expected,
            Sampling::Poisson => tail(self.population, self.sampling_rate, clients) >= IMPOSSIBLE,
        };
        (!is_possible).then_some(Contradiction { clients, expected })
    }
}

/// The probability of at least this number, if it is above the mean of the binomial distribution, else of at most this
/// number.
fn tail(population: u64, rate: f64, clients: u64) -> f64 {
    if clients > population {
        return 0.0;
    }
    let (n, k) = (population as f64, clients as f64);
    let binomial: f64 = (1..=clients).map(|i| ((n - k + i as f64) / i as f64).ln()).sum();
    let mass = binomial + k * rate.ln() + (n - k) * (-rate).ln_1p();
    let odds = rate / (1.0 - rate);
    // The ratio of each probability to the one before, away from the mean: it falls below one and keeps falling.
    let ratio = |step: f64| match k > n * rate {
        true => odds * (n - k - step) / (k + step + 1.0),
        false => (k - step) / ((n - k + step + 1.0) * odds),
    };
    let (mut term, mut sum, mut step) = (1.0, 1.0, 0.0);
    while term > sum * f64::EPSILON {
        term *= ratio(step).max(0.0);
        sum += term;
        step += 1.0;
    }
    mass.exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::event::Adjacency;
    use crate::privacy::ledger::trial;

    /// The tails by the definition, for a small population.
    #[test]
    fn tails_are_those_of_the_binomial_distribution() {
        let (n, q) = (30, 0.2_f64);
        let mut mass = vec![0.8_f64.powi(n)];
        for k in 0..n {
            mass.push(mass[k as usize] * f64::from(n - k) / f64::from(k + 1) * q / (1.0 - q));
        }
        for k in 0..=n as usize {
            let expected: f64 = if k > 6 { mass[k..].iter().sum() } else { mass[..=k].iter().sum() };
            let found = tail(n as u64, q, k as u64);
            assert!((found / expected - 1.0).abs() < 1e-9, "{k}: {found}, expected {expected}");
        }
        assert_eq!(tail(30, q, 31), 0.0);
    }

    #[test]
    fn a_charge_covers_rates_up_to_that_of_its_plan() {
        let poisson = trial::plan();
        assert!(poisson.covers(Some(0.1)) && poisson.covers(Some(0.05)));
        assert!(!poisson.covers(Some(0.1 + f64::EPSILON)) && !poisson.covers(None));
        let fixed =
            BudgetPlan { sampling: Sampling::Fixed, adjacency: Adjacency::ReplaceOne, ..trial::plan() };
        assert!(!fixed.covers(Some(0.1)));
        let all = BudgetPlan { sampling: Sampling::All, sampling_rate: 1.0, ..trial::plan() };
        assert!(all.covers(None) && all.covers(Some(1.0)));
    }

    #[test]
    fn each_sampling_has_its_own_numbers() {
        // 1000 clients at a rate of 0.1.
        let poisson = trial::plan();
        for possible in [50, 100, 150] {
            assert_eq!(poisson.contradiction(possible), None, "{possible}");
        }
        for impossible in [0, 40, 170, 1000, 1001] {
            let expected = Some(Contradiction { clients: impossible, expected: 100 });
            assert_eq!(poisson.contradiction(impossible), expected);
        }
        let adjacency = Adjacency::ReplaceOne;
        let fixed = BudgetPlan { sampling: Sampling::Fixed, adjacency, ..trial::plan() };
        assert_eq!(fixed.contradiction(100), None);
        assert!(fixed.contradiction(99).is_some() && fixed.contradiction(101).is_some());
        let all = BudgetPlan { sampling: Sampling::All, sampling_rate: 1.0, ..trial::plan() };
        assert_eq!(all.contradiction(3), None);
    }

    #[test]
    fn any_number_may_take_part_if_all_are_drawn() {
        let all = BudgetPlan { sampling_rate: 1.0, ..trial::plan() };
        assert!(all.contradiction(0).is_none() && all.contradiction(1).is_none());
    }
}
