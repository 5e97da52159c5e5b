//! Functions that conditions have beside those of CEL: statistics of lists of numbers.

use crate::measures::series::{median, page_hinkley, slope};

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
        value.ok_or_else(|| {
            format!(
                "found {} values, which are too few; ask for their number before, as in size(history.loss) > 2 && ...",
                list.len()
            )
        })
    }
}
