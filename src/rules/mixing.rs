//! A mixing matrix: the rows that a rule works on, as combinations of the clients' deltas.

use serde::{Deserialize, Serialize};

/// Rows that are combinations of inputs: `row_k = sum_i coefficients[k][i] * delta_i`.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(try_from = "Vec<Vec<f64>>", into = "Vec<Vec<f64>>")]
pub struct Mixing {
    inputs: usize,
    rows: Vec<Vec<f64>>,
    /// For each row the input that it equals; `None` for a combination.
    chosen: Vec<Option<usize>>,
}

impl Mixing {
    /// The matrix with these rows. Each row has a coefficient for each of `inputs`.
    pub fn new(inputs: usize, rows: Vec<Vec<f64>>) -> Self {
        assert!(rows.iter().all(|row| row.len() == inputs), "one coefficient an input");
        let chosen = rows.iter().map(|row| only_one(row)).collect();
        Self { inputs, rows, chosen }
    }

    /// The matrix whose rows are these inputs, unchanged.
    pub fn choose(inputs: usize, chosen: &[usize]) -> Self {
        let unit = |i: &usize| (0..inputs).map(|j| f64::from(*i == j)).collect();
        Self::new(inputs, chosen.iter().map(unit).collect())
    }

    /// The matrix whose rows are the inputs, each multiplied by its factor.
    pub fn diagonal(factors: &[f64]) -> Self {
        let row = |i: usize| (0..factors.len()).map(|j| if i == j { factors[i] } else { 0.0 }).collect();
        Self::new(factors.len(), (0..factors.len()).map(row).collect())
    }

    /// Whether each row is an input times a factor, in the order of inputs.
    pub fn is_diagonal(&self) -> bool {
        let is_own = |(i, row): (usize, &Vec<f64>)| row.iter().enumerate().all(|(j, x)| i == j || *x == 0.0);
        self.rows.len() == self.inputs && self.rows.iter().enumerate().all(is_own)
    }

    /// The combinations without the factors that shorten deltas: a diagonal matrix becomes the identity.
    #[must_use]
    pub fn unscaled(&self) -> Self {
        if self.is_diagonal() { Self::diagonal(&vec![1.0; self.inputs]) } else { self.clone() }
    }

    /// Whether the rows are the inputs, unchanged and in order.
    pub fn is_identity(&self) -> bool {
        self.inputs == self.len() && (0..self.len()).all(|row| self.chosen(row) == Some(row))
    }

    /// Number of rows.
    #[expect(clippy::len_without_is_empty, reason = "there is always a row")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The coefficients of one row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.rows[row]
    }

    /// The input that a row equals; `None` for a combination.
    pub fn chosen(&self, row: usize) -> Option<usize> {
        self.chosen[row]
    }

    /// The inputs that the rows equal; `None` if a row is a combination.
    pub fn all_chosen(&self) -> Option<Vec<usize>> {
        self.chosen.iter().copied().collect()
    }

    /// The product with `first`: the rows of `self`, as combinations of the inputs of `first`.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        Self::new(first.inputs, self.rows.iter().map(|row| first.combine(row)).collect())
    }

    /// A combination of the rows, as a combination of the inputs.
    pub fn combine(&self, rows: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.inputs];
        for (row, coefficient) in self.rows.iter().zip(rows).filter(|(_, coefficient)| **coefficient != 0.0) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += coefficient * x;
            }
        }
        sums
    }
}

impl From<Mixing> for Vec<Vec<f64>> {
    fn from(mixing: Mixing) -> Self {
        mixing.rows
    }
}

/// The error for rows that differ in length, or for no rows.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("the rows of a mixing matrix have different lengths, or there are none")]
pub struct Ragged;

impl TryFrom<Vec<Vec<f64>>> for Mixing {
    type Error = Ragged;

    fn try_from(rows: Vec<Vec<f64>>) -> Result<Self, Ragged> {
        let inputs = rows.first().ok_or(Ragged)?.len();
        if rows.iter().any(|row| row.len() != inputs) {
            return Err(Ragged);
        }
        Ok(Self::new(inputs, rows))
    }
}

fn only_one(row: &[f64]) -> Option<usize> {
    let mut parts = row.iter().enumerate().filter(|(_, x)| **x != 0.0);
    match (parts.next(), parts.next()) {
        (Some((i, x)), None) if *x == 1.0 => Some(i),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixings_follow_each_other() {
        let first = Mixing::new(3, vec![vec![0.5, 0.5, 0.0], vec![0.0, 0.0, 1.0]]);
        assert_eq!((first.chosen(0), first.chosen(1), first.all_chosen()), (None, Some(2), None));
        let second = Mixing::choose(2, &[1]).after(&first);
        assert_eq!(second.all_chosen(), Some(vec![2]));
        assert_eq!(first.combine(&[2.0, 3.0]), [1.0, 1.0, 3.0]);
    }
}
