//! A mixing matrix: the rows that a rule works on, as combinations of the clients' deltas.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Rows that are combinations of inputs: `row_k = sum_i coefficients[k][i] * delta_i`.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(try_from = "Vec<Vec<f64>>", into = "Vec<Vec<f64>>")]
pub struct Mixing {
    inputs: usize,
    rows: Vec<Row>,
}

/// The coefficients of a row. Few clients or many, a row takes no more memory than it needs.
#[derive(Clone, PartialEq, Debug)]
enum Row {
    /// An input times a factor. The row of zeros is input 0 times 0.
    One { input: usize, factor: f64 },
    /// The same share of each member; one bit an input.
    Equal { members: Vec<u64>, share: f64 },
    /// Any combination.
    Any(Vec<f64>),
}

impl Row {
    fn of(row: Vec<f64>) -> Self {
        let mut parts = row.iter().enumerate().filter(|(_, x)| **x != 0.0);
        match (parts.next(), parts.next()) {
            (None, _) => Self::One { input: 0, factor: 0.0 },
            (Some((input, factor)), None) => Self::One { input, factor: *factor },
            _ => Self::Any(row),
        }
    }

    /// Calls `of` with each input whose coefficient is not zero, and the coefficient, in the order of inputs.
    fn for_each(&self, mut of: impl FnMut(usize, f64)) {
        match self {
            Self::One { input, factor } => of(*input, *factor),
            Self::Equal { members, share } => {
                for (word, bits) in members.iter().enumerate() {
                    let mut bits = *bits;
                    while bits != 0 {
                        of(word * 64 + bits.trailing_zeros() as usize, *share);
                        bits &= bits - 1;
                    }
                }
            }
            Self::Any(row) => {
                row.iter().enumerate().filter(|(_, x)| **x != 0.0).for_each(|(i, x)| of(i, *x));
            }
        }
    }
}

impl Mixing {
    /// The matrix with these rows. Each row has a coefficient for each of `inputs`.
    pub fn new(inputs: usize, rows: Vec<Vec<f64>>) -> Self {
        assert!(rows.iter().all(|row| row.len() == inputs), "one coefficient an input");
        Self { inputs, rows: rows.into_iter().map(Row::of).collect() }
    }

    /// The matrix whose rows are the means of some inputs: for each row, whether an input counts.
    pub fn means(inputs: usize, rows: Vec<Members>) -> Self {
        let row = |Members { bits, count }: Members| match count {
            0 | 1 => {
                let word = bits.iter().position(|word| *word != 0);
                let input = word.map_or(0, |word| word * 64 + bits[word].trailing_zeros() as usize);
                Row::One { input, factor: count as f64 }
            }
            _ => Row::Equal { members: bits, share: 1.0 / count as f64 },
        };
        Self { inputs, rows: rows.into_iter().map(row).collect() }
    }

    /// The matrix whose rows are these inputs, unchanged.
    pub fn choose(inputs: usize, chosen: &[usize]) -> Self {
        let one = |input: &usize| Row::One { input: *input, factor: 1.0 };
        Self { inputs, rows: chosen.iter().map(one).collect() }
    }

    /// The matrix whose rows are the inputs, each multiplied by its factor.
    pub fn diagonal(factors: &[f64]) -> Self {
        let one = |(input, factor): (usize, &f64)| match *factor {
            0.0 => Row::One { input: 0, factor: 0.0 },
            factor => Row::One { input, factor },
        };
        Self { inputs: factors.len(), rows: factors.iter().enumerate().map(one).collect() }
    }

    /// Whether each row is an input times a factor, in the order of inputs.
    pub fn is_diagonal(&self) -> bool {
        let is_own = |(i, row): (usize, &Row)| matches!(row, Row::One { input, factor } if *input == i || *factor == 0.0);
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
    pub fn row(&self, row: usize) -> Cow<'_, [f64]> {
        if let Row::Any(row) = &self.rows[row] {
            return Cow::Borrowed(row);
        }
        let mut values = vec![0.0; self.inputs];
        self.rows[row].for_each(|i, x| values[i] = x);
        Cow::Owned(values)
    }

    /// The input and the factor of a row that is an input times a factor; `None` for a combination.
    pub fn single(&self, row: usize) -> Option<(usize, f64)> {
        match self.rows[row] {
            Row::One { input, factor } => Some((input, factor)),
            _ => None,
        }
    }

    /// The input that a row equals; `None` for a combination.
    pub fn chosen(&self, row: usize) -> Option<usize> {
        self.single(row).and_then(|(input, factor)| (factor == 1.0).then_some(input))
    }

    /// The inputs that the rows equal; `None` if a row is a combination.
    pub fn all_chosen(&self) -> Option<Vec<usize>> {
        (0..self.len()).map(|row| self.chosen(row)).collect()
    }

    /// For each input, whether it has a part in a row.
    pub fn has_part(&self) -> Vec<bool> {
        let mut has_part = vec![false; self.inputs];
        self.rows.iter().for_each(|row| row.for_each(|i, x| has_part[i] |= x != 0.0));
        has_part
    }

    /// The sum of the coefficients of a row.
    pub fn sum(&self, row: usize) -> f64 {
        let mut sum = 0.0;
        self.rows[row].for_each(|_, x| sum += x);
        sum
    }

    /// The product with `first`: the rows of `self`, as combinations of the inputs of `first`.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        let product = |row: &Row| match row {
            Row::One { input, factor: 1.0 } => first.rows[*input].clone(),
            row => Row::of(first.combined(row)),
        };
        Self { inputs: first.inputs, rows: self.rows.iter().map(product).collect() }
    }

    /// A combination of the rows, as a combination of the inputs.
    pub fn combine(&self, rows: &[f64]) -> Vec<f64> {
        self.combined(&Row::Any(rows.to_vec()))
    }

    fn combined(&self, row: &Row) -> Vec<f64> {
        let mut sums = vec![0.0; self.inputs];
        row.for_each(|k, coefficient| self.rows[k].for_each(|i, x| sums[i] += coefficient * x));
        sums
    }
}

/// A set of inputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    bits: Vec<u64>,
    count: usize,
}

impl From<&[bool]> for Members {
    fn from(members: &[bool]) -> Self {
        let word = |part: &[bool]| part.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit));
        let bits = members.chunks(64).map(word).collect();
        Self { bits, count: members.iter().filter(|member| **member).count() }
    }
}

impl From<Mixing> for Vec<Vec<f64>> {
    fn from(mixing: Mixing) -> Self {
        (0..mixing.len()).map(|row| mixing.row(row).into_owned()).collect()
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

    /// Every form of a row gives what the row of coefficients gives.
    #[test]
    fn forms_of_rows_are_equal() {
        let members: Vec<bool> = (0..130).map(|i| i % 3 == 0 || i > 126).collect();
        let share = 1.0 / members.iter().filter(|member| **member).count() as f64;
        let plain: Vec<f64> = members.iter().map(|member| if *member { share } else { 0.0 }).collect();
        let alone: Vec<bool> = (0..130).map(|i| i == 77).collect();
        let means = Mixing::means(130, vec![members[..].into(), alone[..].into()]);
        let dense = Mixing::new(130, vec![plain.clone(), Mixing::choose(130, &[77]).row(0).into_owned()]);
        assert_eq!((means.row(0), means.row(1)), (dense.row(0), dense.row(1)));
        assert_eq!((means.chosen(0), means.chosen(1)), (None, Some(77)));
        assert_eq!(means.combine(&[2.0, 0.5]), dense.combine(&[2.0, 0.5]));
        assert_eq!((means.sum(0), means.sum(1)), (plain.iter().sum(), 1.0));
        assert_eq!(means.has_part().iter().filter(|part| **part).count(), 47);
        let zero = Mixing::diagonal(&[0.0, 2.0, 0.0]);
        assert_eq!(zero, Mixing::new(3, vec![vec![0.0; 3], vec![0.0, 2.0, 0.0], vec![0.0; 3]]));
        assert!(zero.is_diagonal() && zero.unscaled().is_identity());
        assert_eq!(Mixing::choose(2, &[1, 0]).after(&means).row(0), means.row(1));
    }
}
