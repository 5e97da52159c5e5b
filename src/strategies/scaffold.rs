//! The average of clients that corrected their drift by control variates, whose mean the server keeps.
//!
//! - Paper: Karimireddy et al., SCAFFOLD: stochastic controlled averaging for federated learning, 2020, algorithm 1,
//!   lines 16 and 17: `x += lr * mean(delta)`, `c += |S| / N * mean(delta_c)`, S the clients that took part, of N.
//! - Arguments: `lr`, the server's learning rate (default 1). N is told by `--population`.
//! - Keeps: `c`, the server's control variate, zero before the first round.
//! - Goes by: a tensor `scaffold.delta_c.NAME` beside every float tensor `NAME` of an update.
//! - Elsewhere: clients weigh alike, since `c` is the plain mean of all clients' control variates. Flower's baseline
//!   weighs both means by examples. NVFlare leaves out `|S| / N`, so that `c` overshoots whenever some clients do not
//!   take part. FedML overwrites the means with the last client's values.

use crate::kernels::server_step::ServerStep;
use crate::model::state::KeptTensor;
use crate::model::state::StateTensor;
use crate::settings::numbers::shown;
use crate::settings::{Positive, Settings, SpecError, written};
use crate::strategies::{Cohort, Decided, Strategy, StrategyError};
use std::fmt;

/// SCAFFOLD.
#[derive(Clone, Copy, Debug)]
pub struct Scaffold {
    lr: Option<Positive>,
}

impl Scaffold {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        Ok(Box::new(Self { lr: settings.take("lr")? }))
    }
}

impl fmt::Display for Scaffold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written("scaffold", &[("lr", shown(&self.lr))]))
    }
}

impl Strategy for Scaffold {
    fn name(&self) -> &'static str {
        "scaffold"
    }

    fn keeps(&self) -> Vec<KeptTensor> {
        vec![KeptTensor { slot: StateTensor::Control, initial: 0.0 }]
    }

    fn weighs_alike(&self) -> Option<&'static str> {
        Some("the server's control variate is the plain mean of all clients'")
    }

    fn step(&self, _: &Decided) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: self.lr.map_or(1.0, |lr| lr.0) })
    }

    fn control(&self, cohort: &Cohort) -> Result<Option<f64>, StrategyError> {
        let present = cohort.clients.len();
        let Some(population) = cohort.population else {
            let expected = "the number of clients there are, whether or not they took part";
            let strategy = self.to_string();
            return Err(StrategyError::NoOption { strategy, option: "population", expected });
        };
        if population < present {
            return Err(StrategyError::BadOption {
                strategy: self.to_string(),
                option: "population",
                found: population.to_string(),
                expected: format!("at least {present}, as many as took part"),
            });
        }
        Ok(Some(present as f64 / population as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::Reported;

    fn control(present: usize, population: Option<usize>) -> Result<f64, String> {
        let clients = vec![Reported::default(); present];
        let cohort = Cohort { clients, weights: vec![1.0; present], round: None, population };
        Scaffold { lr: None }.control(&cohort).map(Option::unwrap).map_err(|error| error.to_string())
    }

    #[test]
    fn the_control_variate_takes_the_share_that_took_part() {
        assert_eq!(control(3, Some(12)), Ok(0.25));
        assert_eq!(control(3, Some(3)), Ok(1.0));
    }

    #[test]
    fn the_population_must_be_known_and_hold_all_who_took_part() {
        assert!(control(3, None).unwrap_err().starts_with("scaffold: --population is missing"));
        let small = control(3, Some(2)).unwrap_err();
        assert_eq!(small, "scaffold: --population is 2, expected at least 3, as many as took part");
    }
}
