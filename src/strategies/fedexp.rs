//! The average, and further where the deltas point different ways: extrapolation by how much of their length cancels.
//!
//! - Paper: Jhunjhunwala, Wang and Joshi, FedExP: speeding up federated averaging via extrapolation, 2023, equation 5:
//!   `lr = max(1, sum_i a_i * |delta_i|^2 / (2 * (|sum_i a_i * delta_i|^2 + eps * S)))`, `a_i` the clients' shares, S
//!   how many have one.
//! - Cost: the distances of all updates.
//! - Arguments: `eps` (default 1e-3), what keeps the step finite where deltas cancel out.
//! - Elsewhere: `eps * S` is as the authors' code has it; the equation has `eps` alone.
//!
//! The length of the merged delta must be known before there is one. So rules that work by coordinate, whose merged
//! delta is no combination of the clients', cannot precede it. After rules that shrink deltas, such as centered
//! clipping, the shares are as they are, and need not add up to one. A hostile client that a rule keeps can lengthen the
//! step with a long delta; a rule that leaves out long ones bounds it.

use crate::kernels::server_step::ServerStep;
use crate::rules::Needs;
use crate::rules::geometry::Geometry;
use crate::settings::numbers::shown;
use crate::settings::{Positive, Settings, SpecError, written};
use crate::strategies::{Decided, Strategy, StrategyError};
use std::fmt;

/// FedExP.
#[derive(Clone, Copy, Debug)]
pub struct FedExp {
    eps: Option<Positive>,
}

impl FedExp {
    pub(super) fn parse(settings: &mut Settings) -> Result<Box<dyn Strategy>, SpecError> {
        Ok(Box::new(Self { eps: settings.take("eps")? }))
    }

    /// The server's learning rate.
    fn lr(&self, coefficients: &[f64], geometry: &Geometry) -> f64 {
        let parts = coefficients.iter().filter(|a| **a != 0.0).count();
        let squares = |(i, a): (usize, &f64)| a * geometry.norm(i).powi(2);
        let lengths: f64 = coefficients.iter().enumerate().map(squares).sum();
        let merged = geometry.squared_distances_to(&geometry.combination(coefficients))[geometry.origin()];
        let eps = self.eps.map_or(1e-3, |eps| eps.0);
        (lengths / (2.0 * (merged + eps * parts as f64))).max(1.0)
    }
}

impl fmt::Display for FedExp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written("fedexp", &[("eps", shown(&self.eps))]))
    }
}

impl Strategy for FedExp {
    fn name(&self) -> &'static str {
        "fedexp"
    }

    fn needs(&self) -> Needs {
        Needs::Geometry
    }

    fn step(&self, decided: &Decided) -> Result<ServerStep, StrategyError> {
        let Some(coefficients) = decided.coefficients else {
            return Err(StrategyError::NoMeaning {
                strategy: self.to_string(),
                rule: decided.rule.to_owned(),
                why: "its step goes by the length of the merged delta, which is not known before the merge for a \
                      rule that works by coordinate",
            });
        };
        let geometry = decided.geometry.ok_or_else(|| StrategyError::not_measured(self))?;
        let lr = self.lr(coefficients, geometry);
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
        FedExp { eps: Some(Positive(eps)) }.lr(coefficients, &geometry_of(rows))
    }

    /// Lengths 9 and 16, the mean of half of both has length 25 / 4: (25 / 2) / (25 / 2).
    #[test]
    fn by_hand() {
        let rows = [vec![3.0, 0.0], vec![0.0, 4.0], vec![9.0, 9.0]];
        assert!((lr(1e-12, &rows, &[0.5, 0.5, 0.0]) - 1.0).abs() < 1e-12);
        // Opposite deltas of length 1 and 3 by 3 and 1 quarters: 0.75 + 2.25 over 2 * 2 * eps.
        let opposite = [vec![1.0], vec![-3.0]];
        assert!((lr(0.125, &opposite, &[0.75, 0.25]) - 6.0).abs() < 1e-12);
        // Who has no part is not counted.
        assert!((lr(0.125, &[vec![1.0], vec![-3.0], vec![5.0]], &[0.75, 0.25, 0.0]) - 6.0).abs() < 1e-12);
    }

    #[test]
    fn it_never_steps_less_than_the_average() {
        assert_eq!(lr(1e-3, &[vec![2.0], vec![2.0]], &[0.5, 0.5]), 1.0);
        assert_eq!(lr(1e-3, &[vec![0.0], vec![0.0]], &[0.5, 0.5]), 1.0);
    }

    #[test]
    fn rules_by_coordinate_cannot_precede_it() {
        let decided = Decided { steps: 0, coefficients: None, geometry: None, rule: "median" };
        let error = FedExp { eps: None }.step(&decided).unwrap_err().to_string();
        assert!(error.starts_with("fedexp with median has no meaning: "), "{error}");
    }
}
