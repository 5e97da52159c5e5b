//! The average of clients that correct their drift by control variates; the server keeps the mean.
//!
//! - Paper: Karimireddy et al., SCAFFOLD: stochastic controlled averaging for federated learning, 2020, algorithm 1,
//!   lines 16 and 17.
//! - Step: `x += lr * delta; c += |S| / N * mean(delta_c)`, where S are the clients that take part, and N is
//!   `--population`.
//! - Keeps: `c`, the server's control variate, zero before the first round.
//! - Clients send: a tensor `scaffold.delta_c.NAME` beside every float tensor `NAME`.
//! - Details: all clients weigh the same, since `c` is the plain mean of all clients' control variates.
//! - Elsewhere: Flower's baseline weighs both means by examples. NVFlare leaves out `|S| / N`, so that `c` overshoots
//!   whenever some clients do not take part. FedML overwrites the means with the last client's values.

use crate::kernels::server_step::ServerStep;
use crate::model::state::{KeptTensor, StateTensor};
use crate::settings::{Positive, RegistryEntry, Setting, spec_text, value};
use crate::strategies::{Cohort, StepInput, Strategy, StrategyError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "scaffold",
    summary: "The average of clients that correct their drift by control variates, whose mean the server \
              keeps.",
    settings: &[Setting::new("lr", "1", "the server's learning rate")],
    parse: |settings| Ok(Box::new(Scaffold { lr: settings.take("lr")? })),
};

/// SCAFFOLD.
#[derive(Clone, Copy, Debug)]
pub struct Scaffold {
    lr: Option<Positive>,
}

impl fmt::Display for Scaffold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("scaffold", &[("lr", value(&self.lr))]))
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

    fn step(&self, _: &StepInput) -> Result<ServerStep, StrategyError> {
        Ok(ServerStep::Average { lr: self.lr.map_or(1.0, |lr| lr.0) })
    }

    fn control(&self, cohort: &Cohort) -> Result<Option<f64>, StrategyError> {
        let present = cohort.clients.len();
        let Some(population) = cohort.population else {
            let expected = "the number of all clients, whether or not they took part";
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
    use crate::strategies::ClientMetadata;

    fn control(present: usize, population: Option<usize>) -> Result<f64, String> {
        let clients = vec![ClientMetadata::default(); present];
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
