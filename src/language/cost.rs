//! The steps that a condition may take, by what it says and the lists that it goes through.

use super::expression::Expression;

/// The most steps of a condition.
pub const MOST_STEPS: f64 = 1e7;

/// Pairs of values that `slope` looks at in the time of one step.
const PAIRS: f64 = 100.0;

/// The most steps that an expression takes if no list that it reads has more than `longest` values.
pub fn steps(expression: &Expression, longest: usize) -> f64 {
    let (mut joins, mut literal) = (0, 0);
    expression.each(&mut |part| match part {
        Expression::Call { name, .. } => joins += usize::from(name == "+"),
        Expression::List(list) => literal = literal.max(list.len()),
        _ => {}
    });
    // Each `+` may join two lists.
    within(expression, longest.max(literal) as f64 * (1 + joins) as f64)
}

fn within(expression: &Expression, longest: f64) -> f64 {
    let all = |parts: &[Expression]| parts.iter().map(|part| within(part, longest)).sum::<f64>();
    let inner = match expression {
        Expression::Constant(_) | Expression::Path { .. } | Expression::Other => 0.0,
        Expression::Field { of, .. } => within(of, longest),
        Expression::Call { name, on, with } => {
            let work = match name.as_str() {
                "slope" => longest * longest / PAIRS,
                "mean" | "median" | "last" | "page_hinkley" | "min" | "max" | "in" => longest,
                _ => 0.0,
            };
            work + on.as_deref().map_or(0.0, |on| within(on, longest)) + all(with)
        }
        Expression::List(list) => all(list),
        Expression::Map(entries) => {
            entries.iter().map(|(key, value)| within(key, longest) + within(value, longest)).sum()
        }
        Expression::Fold(fold) => {
            let each = within(&fold.goes_on, longest) + within(&fold.step, longest);
            let once = within(&fold.over, longest) + within(&fold.start, longest);
            once + longest * each + within(&fold.result, longest)
        }
    };
    1.0 + inner
}
