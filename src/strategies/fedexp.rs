//! The average, and a longer step where the lengths of the deltas cancel.
//!
//! - Paper: Jhunjhunwala, Wang and Joshi, FedExP: speeding up federated averaging via extrapolation, 2023, equation 5.
//! - Step: `x += max(1, sum_i a_i * |delta_i|^2 / (2 * (|delta|^2 + eps * S))) * delta`, where `a_i` is a client's share
//!   and S the number of clients with a share.
//! - Cost: the distances of all updates.
//! - Elsewhere: the authors' code has `eps * S`; the equation has `eps` alone.
//!
//! The lengths are those of parameters, after every factor: a clip, a mixture, and the rule's own. If the rule gives an
//! update a share `a_i` below its weight `p_i`, as centered clipping and the geometric median do with a distant one, the
//! rule shortened the delta by `a_i / p_i`, and `a_i * (a_i / p_i) * |delta_i|^2` counts. So a distant client lengthens the
//! step no more than a near one.
//!
//! The step needs the length of the merged delta before the merge. So a rule that works by coordinate cannot precede it:
//! its merged delta is no combination of the clients' deltas. After a rule that shrinks deltas, such as centered
//! clipping, the shares need not add up to one. A hostile client that the rule keeps in full can lengthen the step with a
//! long delta. A rule that leaves out long deltas bounds the step.

use crate::kernels::server_step::ServerStep;
use crate::rules::Needs;
use crate::rules::geometry::Geometry;
use crate::settings::{Positive, RegistryEntry, Setting, spec_text, value};
use crate::strategies::{StepInput, Strategy, StrategyError};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "fedexp",
    summary: "The model moves by the merged delta, and further where the lengths of the clients' deltas \
              cancel.",
    settings: &[Setting::new("eps", "0.001", "keeps the step finite where deltas cancel")],
    parse: |settings| Ok(Box::new(FedExp { eps: settings.take("eps")? })),
};

/// FedExP.
#[derive(Clone, Copy, Debug)]
pub struct FedExp {
    eps: Option<Positive>,
}

impl FedExp {
    /// The server's learning rate. A share below the weight of its update is a factor on the update's delta: the rule
    /// shortened it.
    fn lr(&self, coefficients: &[f64], weights: &[f64], geometry: &Geometry) -> f64 {
        let has_part = |i: &usize| coefficients[*i] != 0.0;
        let parts = (0..coefficients.len()).filter(has_part).count();
        let total: f64 = (0..coefficients.len()).filter(has_part).map(|i| weights[i]).sum();
        let square = |i: usize| {
            let factor = (coefficients[i] / (weights[i] / total)).min(1.0);
            coefficients[i] * factor * geometry.norm(i).powi(2)
        };
        let lengths: f64 = (0..coefficients.len()).filter(has_part).map(square).sum();
        let merged = geometry.squared_distances_to(&geometry.combination(coefficients))[geometry.origin()];
        let eps = self.eps.map_or(1e-3, |eps| eps.0);
        (lengths / (2.0 * (merged + eps * parts as f64))).max(1.0)
    }
}

impl fmt::Display for FedExp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("fedexp", &[("eps", value(&self.eps))]))
    }
}

impl Strategy for FedExp {
    fn name(&self) -> &'static str {
        "fedexp"
    }

    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn step(&self, input: &StepInput) -> Result<ServerStep, StrategyError> {
        let Some(coefficients) = input.coefficients else {
            return Err(StrategyError::NoMeaning {
                strategy: self.to_string(),
                rule: input.rule.to_owned(),
                why: "its step needs the length of the merged delta, which is not known before the merge for a \
                      rule that works by coordinate",
            });
        };
        let geometry = input.geometry.ok_or_else(|| StrategyError::not_measured(self))?;
        let lr = self.lr(coefficients, input.weights, geometry);
        if !lr.is_finite() {
            let what = "the deltas are too long for the step to be a number".to_owned();
            return Err(StrategyError::NotANumber { strategy: self.to_string(), what });
        }
        Ok(ServerStep::Average { lr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::tests::geometry_of;

    fn lr(eps: f64, rows: &[Vec<f64>], coefficients: &[f64]) -> f64 {
        FedExp { eps: Some(Positive(eps)) }.lr(coefficients, coefficients, &geometry_of(rows))
    }

    /// The squared lengths are 9 and 16, and 25 / 4 of the mean: (25 / 2) / (25 / 2).
    #[test]
    fn by_hand() {
        let rows = [vec![3.0, 0.0], vec![0.0, 4.0], vec![9.0, 9.0]];
        assert!((lr(1e-12, &rows, &[0.5, 0.5, 0.0]) - 1.0).abs() < 1e-12);
        // Opposite deltas of length 1 and 3 by 3 and 1 quarters: 0.75 + 2.25 over 2 * 2 * eps.
        let opposite = [vec![1.0], vec![-3.0]];
        assert!((lr(0.125, &opposite, &[0.75, 0.25]) - 6.0).abs() < 1e-12);
        // A client without a share does not count.
        assert!((lr(0.125, &[vec![1.0], vec![-3.0], vec![5.0]], &[0.75, 0.25, 0.0]) - 6.0).abs() < 1e-12);
    }

    /// Two of four units, and a delta of length 8e9 that the rule gives a share of 1e-9 in place of a third.
    #[test]
    fn a_share_below_the_weight_is_a_factor() {
        let rows = [vec![1.0, 0.0], vec![0.0, 1.0], vec![8e9, 0.0]];
        let (a, far) = (0.5 - 5e-10, 1e-9);
        let got = FedExp { eps: Some(Positive(0.01)) }.lr(&[a, a, far], &[1.0; 3], &geometry_of(&rows));
        let lengths = 2.0 * a + far * (3.0 * far) * 64e18;
        let merged = (a + 8.0f64).powi(2) + a * a;
        assert!((got - (lengths / (2.0 * (merged + 0.03))).max(1.0)).abs() < 1e-6, "{got}");
    }

    #[test]
    fn it_never_steps_less_than_the_average() {
        assert_eq!(lr(1e-3, &[vec![2.0], vec![2.0]], &[0.5, 0.5]), 1.0);
        assert_eq!(lr(1e-3, &[vec![0.0], vec![0.0]], &[0.5, 0.5]), 1.0);
    }

    #[test]
    fn rules_by_coordinate_cannot_precede_it() {
        let input = StepInput { steps: 0, coefficients: None, weights: &[], geometry: None, rule: "median" };
        let error = FedExp { eps: None }.step(&input).unwrap_err().to_string();
        assert!(error.starts_with("fedexp with median has no meaning: "), "{error}");
    }
}
