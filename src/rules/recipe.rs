//! A recipe: how the second pass combines the clients' rows into one. Rules decide it; it is data.

use crate::rules::mixing::Mixing;
use serde::{Deserialize, Serialize};

/// How the second pass combines the clients' rows into one.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Recipe {
    /// The rows that are reduced, as combinations of the clients'; none for the clients' own.
    pub mixing: Option<Mixing>,
    /// What is made of them.
    pub reduction: Reduction,
}

impl From<OrderStatistic> for Recipe {
    fn from(statistic: OrderStatistic) -> Self {
        Reduction::Select(statistic).into()
    }
}

impl From<Reduction> for Recipe {
    fn from(reduction: Reduction) -> Self {
        Self { mixing: None, reduction }
    }
}

impl Recipe {
    /// The coefficient of each client's delta in the merged one; none where coordinates are merged apart, or the
    /// centre of an earlier round has a part.
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

    /// The recipe for some of `clients` clients, its rows being theirs, as one for all of them.
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
            Mixing::new(clients, (0..mixing.len()).map(|row| spread(mixing.row(row))).collect())
        });
        Self { mixing, reduction }
    }
}

/// What the second pass makes of rows.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// `sum_i weights[i] * row_i / divisor`, with the sum of the weights for divisor.
    WeightedMean {
        /// One weight a row.
        weights: Vec<f64>,
    },
    /// `sum_i coefficients[i] * delta_i`: what lacks to one stays at the base.
    WeightedSum {
        /// One coefficient a row, and one for the centre that an earlier round left, if there is one.
        coefficients: Vec<f64>,
        /// The coefficient of that centre.
        centre: f64,
    },
    /// An order statistic of each coordinate.
    Select(OrderStatistic),
}

/// What is made of the sorted values of a coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatistic {
    /// Their median, the midpoint of the middle two for an even number.
    Median,
    /// Their mean without the `cut` smallest and `cut` largest.
    TrimmedMean {
        /// Values left out on each side.
        cut: usize,
    },
    /// The mean of the `kept` that are nearest to the median; of two as near, the smaller.
    MeanNearMedian {
        /// Values that count.
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
        assert_eq!((mixing.row(0), mixing.row(1)), (&[0.5, 0.0, 0.0][..], &[0.0, 0.0, 1.0][..]));
    }
}
