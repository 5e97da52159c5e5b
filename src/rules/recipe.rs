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
            Reduction::Tiers(tiers) => {
                let parts: Option<Vec<Vec<f64>>> =
                    tiers.iter().map(|tier| tier.recipe.coefficients()).collect();
                let clients = parts.as_ref()?.first().map_or(0, Vec::len);
                let mut sums = vec![0.0; clients];
                for (tier, part) in tiers.iter().zip(parts?) {
                    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += tier.share * x);
                }
                Some(sums)
            }
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
            other @ (Reduction::Select(_) | Reduction::Tiers(_)) => other.clone(),
        };
        let mixing = self.mixing.as_ref().map(|mixing| {
            Mixing::new(clients, (0..mixing.len()).map(|row| spread(mixing.row(row))).collect())
        });
        Self { mixing, reduction }
    }
}

/// What is made of some of the clients, and how much it counts.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct TierRecipe {
    /// Its share of the merged model.
    pub share: f64,
    /// Its clients, in their order.
    pub clients: Vec<usize>,
    /// What is made of them; its rows are those of all clients.
    pub recipe: Recipe,
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
    /// The sum of what is made of each tier, times its share. No rule decides so: tiers are put together behind rules.
    Tiers(Vec<TierRecipe>),
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

    #[test]
    fn coefficients_of_tiers_are_those_of_each_times_its_share() {
        let tier = |share, clients: &[usize], recipe: Recipe| TierRecipe {
            share,
            clients: clients.to_vec(),
            recipe: recipe.among(clients, 3),
        };
        let mean = |weights: &[f64]| Reduction::WeightedMean { weights: weights.to_vec() }.into();
        let tiers = vec![tier(0.75, &[0, 2], mean(&[1.0, 2.0])), tier(0.25, &[1], mean(&[9.0]))];
        let together = Recipe::from(Reduction::Tiers(tiers.clone()));
        assert_eq!(together.coefficients(), Some(vec![0.25, 0.25, 0.5]));
        let median = tier(0.5, &[1], OrderStatistic::Median.into());
        assert_eq!(Recipe::from(Reduction::Tiers(vec![tiers[0].clone(), median])).coefficients(), None);
    }
}
