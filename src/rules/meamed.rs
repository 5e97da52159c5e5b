//! The mean of the values of every coordinate that are nearest to its median, unweighted.
//!
//! - Paper: Xie, Koyejo and Gupta, Generalized Byzantine-tolerant SGD, 2018, definition 6 (mean around median).
//! - Cost: a sorting network, as the trimmed mean.
//! - Tolerates: fewer than half.
//! - Arguments: none. n - F values are kept; of two as near, the smaller.

use crate::rules::mean::weighted_mean;
use crate::rules::median::every_client_kept;
use crate::rules::{Decision, OrderStatistic, Rule, RuleError, Statistics};
use crate::settings::{Settings, SpecError};
use std::fmt;

/// The mean around the median.
#[derive(Clone, Copy, Debug)]
pub struct Meamed;

impl Meamed {
    pub(super) fn parse(_: &mut Settings) -> Result<Box<dyn Rule>, SpecError> {
        Ok(Box::new(Self))
    }
}

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
            return Ok(weighted_mean(&vec![1.0; clients], "nobody is assumed hostile"));
        }
        let reason = format!("at each coordinate the {kept} values nearest to the median are kept");
        Ok(Decision {
            recipe: OrderStatistic::MeanNearMedian { kept }.into(),
            verdicts: every_client_kept(clients, &reason),
            warnings: Vec::new(),
        })
    }
}
