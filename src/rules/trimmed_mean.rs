//! The unweighted mean of every coordinate without its smallest and largest values.
//!
//! - Paper: Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, 2018,
//!   definition 2.
//! - Cost: a sorting network, about twelve comparisons a value for 32 clients.
//! - Tolerates: as many clients as values are cut on each side.

use crate::rules::mean::weighted_mean;
use crate::rules::median::every_client_kept;
use crate::rules::{Decision, OrderStatistic, Rule, RuleError, Statistics, Warning, less_than_half};
use crate::settings::share::Share;
use crate::settings::{RegistryEntry, Setting, spec_text, value};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "trimmed-mean",
    summary: "The mean of every coordinate without its `cut` smallest and its `cut` largest values.",
    settings: &[Setting::new(
        "cut",
        "0.2",
        "values cut on each side: a count, or a fraction of n; F if missing",
    )],
    parse: |settings| Ok(Box::new(TrimmedMean { cut: settings.take("cut")? })),
};

/// The coordinate-wise trimmed mean.
#[derive(Clone, Debug)]
pub struct TrimmedMean {
    cut: Option<Share>,
}

impl TrimmedMean {
    /// The number of values to cut on each side, and a warning if it is unknown.
    fn resolve_cut(&self, statistics: &Statistics) -> (usize, Vec<Warning>) {
        match (&self.cut, statistics.byzantine) {
            (Some(cut), _) => (cut.of(statistics.clients()), Vec::new()),
            (None, Some(byzantine)) => (byzantine, Vec::new()),
            (None, None) => {
                let warning = "trimmed-mean cuts nothing: neither cut=.. nor --byzantine is given";
                (0, vec![warning.into()])
            }
        }
    }
}

impl fmt::Display for TrimmedMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("trimmed-mean", &[("cut", value(&self.cut))]))
    }
}

impl Rule for TrimmedMean {
    fn tolerates(&self, clients: usize) -> usize {
        self.cut.as_ref().map_or(less_than_half(clients), |cut| cut.of(clients))
    }

    fn share(&self) -> Option<&Share> {
        self.cut.as_ref()
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let clients = statistics.clients();
        let (cut, warnings) = self.resolve_cut(statistics);
        let most = less_than_half(clients);
        if cut > most {
            return Err(RuleError::NothingLeft { rule: self.to_string(), cut, clients, most });
        }
        if cut == 0 {
            // The same sum in the same order as the mean's, so the same bits.
            let decision = weighted_mean(&vec![1.0; clients], "nothing is cut");
            return Ok(Decision { warnings, ..decision });
        }
        let reason = match cut {
            1 => "at each coordinate the smallest and the largest value are left out".to_owned(),
            cut => format!("at each coordinate the {cut} smallest and {cut} largest values are left out"),
        };
        Ok(Decision {
            recipe: OrderStatistic::TrimmedMean { cut }.into(),
            verdicts: every_client_kept(clients, &reason),
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Recipe, Reduction, decide, parse};
    use crate::settings::Definition;

    fn recipe(text: &str, clients: usize, byzantine: Option<usize>) -> Result<Recipe, RuleError> {
        let ids = (0..clients).map(|i| i.to_string()).collect();
        let statistics = Statistics { ids, weights: vec![1.0; clients], byzantine, seed: 0, geometry: None };
        decide(parse(text, Definition::Paper).unwrap().as_ref(), &statistics).map(|decision| decision.recipe)
    }

    #[test]
    fn cut_is_what_is_given_else_byzantine() {
        assert_eq!(
            recipe("trimmed-mean:cut=0.2", 20, Some(3)),
            Ok(OrderStatistic::TrimmedMean { cut: 4 }.into())
        );
        assert_eq!(recipe("trimmed-mean", 20, Some(3)), Ok(OrderStatistic::TrimmedMean { cut: 3 }.into()));
        let nothing_cut = Reduction::WeightedMean { weights: vec![1.0; 20] }.into();
        assert_eq!(recipe("trimmed-mean", 20, None), Ok(nothing_cut));
    }

    #[test]
    fn infeasible_settings_name_the_most() {
        let most = |error: Result<Recipe, RuleError>| match error {
            Err(RuleError::NothingLeft { most, .. } | RuleError::TooManyByzantine { most, .. }) => most,
            other => panic!("expected an error about F, got {other:?}"),
        };
        assert_eq!(most(recipe("trimmed-mean:cut=2", 4, None)), 1);
        assert_eq!(most(recipe("trimmed-mean:cut=1", 5, Some(2))), 1);
        assert_eq!(most(recipe("trimmed-mean", 5, Some(3))), 2);
        assert_eq!(most(recipe("median", 20, Some(10))), 9);
        assert_eq!(most(recipe("mean", 20, Some(1))), 0);
    }
}
