//! The mean of the updates with the least Krum scores.
//!
//! - Paper: Blanchard et al., Machine learning with adversaries: Byzantine tolerant gradient descent, 2017, section 5.
//! - Cost: the distances of all updates, and the mean of the updates kept.
//! - Tolerates: F where n >= 2F + 3.
//! - Details: the mean is plain. If weights counted, a client that is kept could claim a huge number of examples.
//! - Elsewhere: ByzFL counts n - F - 1 neighbours and keeps n - F. Flower weighs by examples and keeps one by default.

use crate::rules::krum;
use crate::rules::mean::weighted_mean;
use crate::rules::ranking::lowest;
use crate::rules::{Decision, Needs, Rule, RuleError, Statistics, Warning, mean_of_kept};
use crate::settings::{Definition, RegistryEntry, Setting, spec_text, value};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Rule>> = RegistryEntry {
    name: "multi-krum",
    summary: "The mean of the `m` updates with the least sums of squared distances to their n - F - 2 \
              nearest others.",
    settings: &[Setting::new("m", "5", "updates to keep; n - F - 2 if missing")],
    parse: |settings| Ok(Box::new(MultiKrum { m: settings.take("m")?, definition: settings.definition() })),
};

/// Multi-Krum.
#[derive(Clone, Copy, Debug)]
pub struct MultiKrum {
    m: Option<usize>,
    definition: Definition,
}

impl MultiKrum {
    /// The number of clients to keep.
    fn count(&self, n: usize, f: usize) -> Result<usize, RuleError> {
        let default = match self.definition {
            Definition::Paper | Definition::Tff => krum::neighbours(n, f),
            Definition::Byzfl => n - f,
            Definition::Flower | Definition::FlowerLegacy => 1,
        };
        match self.m.unwrap_or(default) {
            m if (1..=n).contains(&m) => Ok(m),
            m => Err(RuleError::BadSetting {
                rule: self.to_string(),
                key: "m",
                found: m.to_string(),
                expected: format!("1 to {n}, the number of clients"),
            }),
        }
    }
}

impl fmt::Display for MultiKrum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("multi-krum", &[("m", value(&self.m))]))
    }
}

impl Rule for MultiKrum {
    fn uses_weights(&self) -> bool {
        matches!(self.definition, Definition::Flower | Definition::FlowerLegacy)
    }

    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn definition(&self) -> Definition {
        self.definition
    }

    fn uses_byzantine(&self) -> bool {
        true
    }

    fn least_clients(&self) -> usize {
        krum::least_clients(self.definition)
    }

    fn tolerates(&self, clients: usize) -> usize {
        krum::tolerates(self.definition, clients)
    }

    fn decide(&self, statistics: &Statistics) -> Result<Decision, RuleError> {
        let (n, f) = (statistics.clients(), statistics.hostile());
        let m = self.count(n, f)?;
        let scores = krum::scores(self.definition, statistics)?;
        let (kept, warning) = lowest(&scores, m, &statistics.ids);
        let values: Vec<f64> = scores.iter().map(|score| score.value).collect();
        let (is, is_not) =
            (format!("its score is among the {m} lowest"), format!("its score is not among the {m} lowest"));
        let mut decision = mean_of_kept(&kept, &values, (&is, &is_not));
        let mut warnings: Vec<Warning> = warning.into_iter().collect();
        if m + f > n {
            let text = format!(
                "{self} keeps {m} of {n} clients, of which {f} are assumed hostile: some of those are kept"
            );
            warnings.push(text.into());
        }
        if self.uses_weights() {
            let weights: Vec<f64> =
                kept.iter().zip(&statistics.weights).map(|(kept, w)| if *kept { *w } else { 0.0 }).collect();
            if weights.iter().any(|weight| *weight > 0.0) {
                decision.recipe = weighted_mean(&weights, "").recipe;
                let total: f64 = weights.iter().sum();
                for (verdict, weight) in decision.verdicts.iter_mut().zip(&weights) {
                    verdict.weight = Some(weight / total);
                }
            }
        }
        Ok(Decision { warnings, ..decision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::tests::geometry_of;

    /// Warnings of the rule for `n` clients, `f` of them hostile.
    fn warnings(m: Option<usize>, definition: Definition, n: usize, f: usize) -> Vec<String> {
        let rows: Vec<Vec<f64>> = (0..n).map(|i| vec![(i * i) as f64, i as f64]).collect();
        let statistics = Statistics {
            ids: (0..n).map(|i| i.to_string()).collect(),
            weights: vec![1.0; n],
            byzantine: Some(f),
            geometry: Some(geometry_of(&rows)),
            seed: 0,
        };
        let decision = MultiKrum { m, definition }.decide(&statistics).unwrap();
        decision.warnings.into_iter().map(|warning| warning.text).collect()
    }

    /// The `n - f` honest clients may all be kept; a larger `m` keeps a hostile one.
    #[test]
    fn keeping_more_than_are_honest_warns() {
        for (n, f) in [(7, 2), (8, 2), (5, 1), (9, 3)] {
            for m in 1..=n - f {
                assert_eq!(warnings(Some(m), Definition::Paper, n, f), [""; 0], "{m} of {n}, {f}");
            }
            for m in n - f + 1..=n {
                let said = format!("keeps {m} of {n} clients, of which {f} are assumed hostile");
                let found = warnings(Some(m), Definition::Paper, n, f);
                assert!(found.len() == 1 && found[0].contains(&said), "{found:?}");
            }
            assert_eq!(warnings(None, Definition::Paper, n, f), [""; 0]);
            assert_eq!(warnings(None, Definition::Byzfl, n, f), [""; 0]);
        }
    }

    #[test]
    fn the_setting_or_the_definition_says_how_many_are_kept() {
        let count = |m, definition, n, f| MultiKrum { m, definition }.count(n, f).ok();
        assert_eq!(count(None, Definition::Paper, 7, 2), Some(3));
        assert_eq!(count(None, Definition::Paper, 3, 2), Some(1));
        assert_eq!(count(None, Definition::Byzfl, 7, 2), Some(5));
        assert_eq!(count(None, Definition::Flower, 7, 2), Some(1));
        assert_eq!(count(Some(7), Definition::Paper, 7, 2), Some(7));
        assert_eq!(count(Some(0), Definition::Paper, 7, 2), None);
        assert_eq!(count(Some(8), Definition::Paper, 7, 2), None);
    }

    #[test]
    fn kept_clients_without_weight_count_alike() {
        let rows: Vec<Vec<f64>> = (0..5).map(|i| vec![f64::from(i * i)]).collect();
        for definition in [Definition::Paper, Definition::Byzfl, Definition::Flower, Definition::Tff] {
            let statistics = Statistics {
                ids: (0..5).map(|i| i.to_string()).collect(),
                weights: vec![0.0; 5],
                byzantine: Some(1),
                geometry: Some(geometry_of(&rows)),
                seed: 0,
            };
            let decision = MultiKrum { m: Some(2), definition }.decide(&statistics).unwrap();
            let weights = decision.verdicts.iter().filter_map(|verdict| verdict.weight);
            assert!(weights.clone().all(f64::is_finite), "{definition:?}: {:?}", weights.collect::<Vec<_>>());
        }
    }
}
