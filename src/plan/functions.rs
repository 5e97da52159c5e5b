//! Functions that conditions have beside those of CEL: statistics of lists of numbers.

/// A function of conditions.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// What it takes, for the docs.
    pub takes: &'static str,
    /// What it returns, for the docs.
    pub about: &'static str,
    of: fn(&[f64], &[f64]) -> Option<f64>,
    /// Numbers behind the list.
    arguments: usize,
}

/// All functions.
pub const FUNCTIONS: &[Function] = &[
    function("mean", "a list", "The mean.", 0, |list, _| Some(list.iter().sum::<f64>() / list.len() as f64)),
    function(
        "median",
        "a list",
        "The median; the midpoint of the middle two of an even number.",
        0,
        |list, _| median(list.to_vec()),
    ),
    function(
        "slope",
        "a list",
        "The Theil-Sen slope: the median of the slopes of all pairs.",
        0,
        |list, _| slope(list),
    ),
    function("last", "a list", "The last value.", 0, |list, _| list.last().copied()),
    function(
        "page_hinkley",
        "a list, a drift and a threshold",
        "The place, from 1 on, at which the mean is first higher than before, by the test of Page and Hinkley; 0 if it \
         never is.",
        2,
        |list, with| Some(page_hinkley(list, with[0], with[1]) as f64),
    ),
];

const fn function(
    name: &'static str,
    takes: &'static str,
    about: &'static str,
    arguments: usize,
    of: fn(&[f64], &[f64]) -> Option<f64>,
) -> Function {
    Function { name, takes, about, of, arguments }
}

/// The median; `None` of no values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(values[half - 1], values[half])),
        _ => Some(values[half]),
    }
}

/// The median of the slopes of all pairs (Sen, 1968); `None` of fewer than two values.
pub fn slope(values: &[f64]) -> Option<f64> {
    let pairs = (0..values.len()).flat_map(|a| (a + 1..values.len()).map(move |b| (a, b)));
    median(pairs.map(|(a, b)| (values[b] - values[a]) / (b - a) as f64).collect())
}

/// The place at which the mean of the values is first higher than before (Page, 1954): the sum of `x - mean - drift` rises
/// more than `threshold` above its least value. 0 if it never does.
pub fn page_hinkley(values: &[f64], drift: f64, threshold: f64) -> usize {
    let (mut mean, mut sum, mut least) = (0.0, 0.0, 0.0_f64);
    for (place, value) in values.iter().enumerate() {
        mean += (value - mean) / (place + 1) as f64;
        sum += value - mean - drift;
        least = least.min(sum);
        if sum - least > threshold {
            return place + 1;
        }
    }
    0
}

impl Function {
    /// The number of arguments behind the list.
    pub fn arguments(&self) -> usize {
        self.arguments
    }

    /// The value for a list and the numbers behind it.
    ///
    /// # Errors
    ///
    /// When there are too few numbers, or the value is none.
    pub fn call(&self, list: &[f64], rest: &[f64]) -> Result<f64, String> {
        if rest.len() != self.arguments {
            return Err(format!("found {} numbers behind the list, expected {}", rest.len(), self.arguments));
        }
        let value = (self.of)(list, rest).filter(|value| value.is_finite());
        value.ok_or_else(|| format!("found {} values, which are too few", list.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_list_by_hand() {
        assert_eq!(median(vec![3.0, 1.0, 2.0, 9.0]), Some(2.5));
        // Slopes of all pairs of 1, 2, 10: 1, 4.5 and 8.
        assert_eq!(slope(&[1.0, 2.0, 10.0]), Some(4.5));
        assert_eq!(slope(&[1.0]), None);
    }

    #[test]
    fn a_jump_of_the_mean_is_found_where_it_happens() {
        let steady = [1.0; 20];
        assert_eq!(page_hinkley(&steady, 0.1, 1.0), 0);
        let jump: Vec<f64> = (0..20).map(|at| if at < 10 { 1.0 } else { 3.0 }).collect();
        assert_eq!(page_hinkley(&jump, 0.1, 1.0), 11);
    }
}
