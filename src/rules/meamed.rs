//! The unweighted mean of those values of every coordinate that are nearest to its median.
//!
//! - Paper: Xie, Koyejo and Gupta, Generalized Byzantine-tolerant SGD, 2018, definition 6 (mean around median).
//! - Cost: a sorting network, as the trimmed mean.
//! - Tolerates: fewer than half.
//! - Details: n - F values count. Of two that are equally near, the smaller one counts.

use crate::rules::mean::weighted_mean;
use crate::rules::median::every_client_kept;
use crate::rules::{Decision, OrderStatistic, Rule, RuleError, Statistics};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "meamed",
    summary: "The mean of the n - F values of every coordinate that are nearest to its median.",
    settings: &[],
    parse: |_| Ok(Box::new(Meamed)),
};

/// The mean around the median.
#[derive(Clone, Copy, Debug)]
pub struct Meamed;

impl fmt::Display for Meamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("meamed")
    }
}

impl Rule for Meamed {
    fn uses_byzantine(&self) -> bool {
        true
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let clients = statistics.clients();
        let kept = clients - statistics.hostile();
        if kept == clients {
            return Ok(weighted_mean(&vec![1.0; clients], "no client is assumed hostile"));
        }
        let reason = format!("at each coordinate the {kept} values nearest to the median are kept");
        Ok(Decision {
            recipe: OrderStatistic::MeanNearMedian { kept }.into(),
            verdicts: every_client_kept(clients, &reason),
            warnings: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tolerance_says_how_many_values_count() {
        assert!(Meamed.uses_byzantine());
    }
}
