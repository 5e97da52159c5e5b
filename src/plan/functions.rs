//! Functions that conditions have beside those of CEL: statistics of lists of numbers.

use cel::extractors::Arguments;
use cel::{Context, DeclarationError, ExecutionError, Value};

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

/// Adds all functions to a context.
///
/// # Errors
///
/// When one has the name of a function that CEL has.
pub fn add_to(context: &mut Context<'_, '_>) -> Result<(), DeclarationError> {
    for function in FUNCTIONS {
        context.add_function(function.name, |Arguments(given): Arguments| function.call(&given))?;
    }
    context.add_function("abs", |Arguments(given): Arguments| extreme("abs", &given))?;
    context.add_function("min", |Arguments(given): Arguments| extreme("min", &given))?;
    context.add_function("max", |Arguments(given): Arguments| extreme("max", &given))
}

impl Function {
    fn call(&self, given: &[Value]) -> Result<Value, ExecutionError> {
        let fault = |why: &str| ExecutionError::function_error(self.name, why);
        let (Some(list), rest) = (given.first(), given.get(1..).unwrap_or_default()) else {
            return Err(ExecutionError::invalid_argument_count(1 + self.arguments, 0));
        };
        if rest.len() != self.arguments {
            return Err(ExecutionError::invalid_argument_count(1 + self.arguments, given.len()));
        }
        let list = numbers(list).ok_or_else(|| fault("found no list of numbers"))?;
        let rest: Option<Vec<f64>> = rest.iter().map(number).collect();
        let rest = rest.ok_or_else(|| fault("found no number behind the list"))?;
        match (self.of)(&list, &rest) {
            Some(value) if value.is_finite() => Ok(value.into()),
            _ => Err(fault(&format!("found {} values, which are too few", list.len()))),
        }
    }
}

/// The least or the greatest of numbers or of a list, or a number without its sign.
fn extreme(name: &'static str, given: &[Value]) -> Result<Value, ExecutionError> {
    let fault = |why: &str| ExecutionError::function_error(name, why);
    let values: Vec<Value> = match given {
        [Value::List(list)] => list.to_vec(),
        numbers => numbers.to_vec(),
    };
    if name == "abs" {
        return match values.as_slice() {
            [Value::Int(whole)] => {
                whole.checked_abs().map(Value::from).ok_or_else(|| fault("the number is too large"))
            }
            [Value::Float(real)] => Ok(real.abs().into()),
            _ => Err(fault("expected one number")),
        };
    }
    let found: Option<Vec<(f64, &Value)>> =
        values.iter().map(|value| Some((number(value)?, value))).collect();
    let found = found.ok_or_else(|| fault("expected numbers"))?;
    let order = |a: &&(f64, &Value), b: &&(f64, &Value)| a.0.total_cmp(&b.0);
    let chosen = if name == "min" { found.iter().min_by(order) } else { found.iter().max_by(order) };
    chosen.map(|(_, value)| (*value).clone()).ok_or_else(|| fault("found no numbers"))
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::List(list) => list.iter().map(number).collect(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(whole) => Some(*whole as f64),
        Value::Float(real) => Some(*real),
        _ => None,
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
