//! A recipe: how the second pass combines the clients' rows into one row.

use crate::rules::mixing::Mixing;
use serde::{Deserialize, Serialize};

/// How the second pass combines the clients' rows into one row.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Recipe {
    /// The rows to reduce, as combinations of the clients' rows. `None` means the clients' rows themselves.
    pub mixing: Option<Mixing>,
    /// The reduction of these rows to one row.
    pub reduction: Reduction,
    /// The recipe for statistics; `None` if it is that for parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Box<Recipe>>,
}

impl From<OrderStatistic> for Recipe {
    fn from(statistic: OrderStatistic) -> Self {
        Reduction::Select(statistic).into()
    }
}

impl From<Reduction> for Recipe {
    fn from(reduction: Reduction) -> Self {
        Self { mixing: None, reduction, statistics: None }
    }
}

impl Recipe {
    /// The coefficient of each client's delta in the merged delta. `None` if the recipe merges each coordinate by itself,
    /// or if the centre of an earlier round has a part.
    pub fn coefficients(&self) -> Option<Vec<f64>> {
        match &self.reduction {
            Reduction::WeightedMean { weights } => {
                let total: f64 = weights.iter().sum();
                Some(weights.iter().map(|weight| weight / total).collect())
            }
            Reduction::WeightedSum { coefficients, centre } if *centre == 0.0 => Some(coefficients.clone()),
            Reduction::WeightedSum { .. } | Reduction::Select(_) => None,
        }
    }

    /// Extends a recipe for the clients `members` to all `clients` clients.
    #[must_use]
    pub fn among(&self, members: &[usize], clients: usize) -> Self {
        let spread = |values: &[f64]| {
            let mut all = vec![0.0; clients];
            members.iter().zip(values).for_each(|(member, value)| all[*member] = *value);
            all
        };
        let reduction = match &self.reduction {
            Reduction::WeightedMean { weights } => Reduction::WeightedMean { weights: spread(weights) },
            Reduction::WeightedSum { coefficients, centre } => {
                Reduction::WeightedSum { coefficients: spread(coefficients), centre: *centre }
            }
            other @ Reduction::Select(_) => other.clone(),
        };
        let mixing = self.mixing.as_ref().map(|mixing| {
            Mixing::new(clients, (0..mixing.len()).map(|row| spread(&mixing.row(row))).collect())
        });
        let statistics = self.statistics.as_ref().map(|own| Box::new(own.among(members, clients)));
        Self { mixing, reduction, statistics }
    }

    /// The recipe with `statistics` as the recipe for statistics, of which only a mean or an order statistic is one:
    /// no factor may stretch a statistic.
    #[must_use]
    pub fn with_statistics(self, statistics: Self) -> Self {
        let own = statistics.unstretched();
        let is_other = (&own.mixing, &own.reduction) != (&self.mixing, &self.reduction);
        Self { statistics: is_other.then(|| Box::new(own)), ..self }
    }

    /// A weighted mean by the coefficients in place of a weighted sum, which may leave a part at the base.
    fn unstretched(self) -> Self {
        match self.reduction {
            Reduction::WeightedSum { coefficients, .. } => {
                Reduction::WeightedMean { weights: coefficients }.into()
            }
            reduction => Self { mixing: self.mixing, reduction, statistics: None },
        }
    }
}

/// A reduction of rows to one row.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// `sum_i weights[i] * row_i / divisor`, where the divisor is the sum of the weights.
    WeightedMean {
        /// One weight for each row.
        weights: Vec<f64>,
    },
    /// `sum_i coefficients[i] * delta_i + centre * delta_c`: the rest up to one stays at the base.
    WeightedSum {
        /// One coefficient for each row.
        coefficients: Vec<f64>,
        /// The coefficient of the centre that an earlier round left; zero without a centre.
        centre: f64,
    },
    /// An order statistic of each coordinate.
    Select(OrderStatistic),
}

/// A statistic of the sorted values of a coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatistic {
    /// The median; of an even number of values, the midpoint of the middle two.
    Median,
    /// The mean without the `cut` smallest and the `cut` largest values.
    TrimmedMean {
        /// Number of values left out on each side.
        cut: usize,
    },
    /// The mean of the `kept` values nearest to the median. Of two that are equally near, the smaller one counts.
    MeanNearMedian {
        /// Number of values that count.
        kept: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_for_some_clients_is_one_for_all() {
        let mean = Recipe::from(Reduction::WeightedMean { weights: vec![1.0, 3.0] }).among(&[1, 3], 4);
        assert_eq!(mean.reduction, Reduction::WeightedMean { weights: vec![0.0, 1.0, 0.0, 3.0] });
        let mixed = Recipe { mixing: Some(Mixing::diagonal(&[0.5, 1.0])), ..OrderStatistic::Median.into() };
        let mixing = mixed.among(&[0, 2], 3).mixing.unwrap();
        assert_eq!((&mixing.row(0)[..], &mixing.row(1)[..]), (&[0.5, 0.0, 0.0][..], &[0.0, 0.0, 1.0][..]));
    }
}
