//! Compiles a recipe to a reducer.

use crate::engine::passes::combine::by_class::ByClass;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::combine::select::Select;
use crate::engine::passes::combine::weighted_sum::WeightedSum;
use crate::rules::{Recipe, Reduction};
use crate::updates::set::{UpdateSet, ValueKind};

/// Compiles a recipe for some clients of a set, by index in order. With `skips`, the pass does not read clients of
/// weight 0.
pub fn compile<'a>(
    recipe: &'a Recipe,
    set: &UpdateSet,
    members: &[usize],
    skips: bool,
) -> Box<dyn Reducer + 'a> {
    let parameters = compile_one(recipe, set, members, skips);
    match &recipe.statistics {
        None => parameters,
        Some(own) => Box::new(ByClass::new(parameters, compile_one(own, set, members, skips))),
    }
}

fn compile_one<'a>(
    recipe: &'a Recipe,
    set: &UpdateSet,
    members: &[usize],
    skips: bool,
) -> Box<dyn Reducer + 'a> {
    match &recipe.reduction {
        Reduction::WeightedMean { weights } => {
            let divisor = weights.iter().sum();
            Box::new(WeightedSum { divisor, ..WeightedSum::of(weights, members, skips) })
        }
        Reduction::WeightedSum { coefficients, centre } => {
            // A row of weights contains the base, with the row's coefficient.
            let brings_base = set.value_kind == ValueKind::AsSent && set.base.is_some();
            let rest = 1.0 - coefficients.iter().sum::<f64>();
            let base = if brings_base { rest } else { 0.0 };
            Box::new(WeightedSum { base, centre: *centre, ..WeightedSum::of(coefficients, members, skips) })
        }
        Reduction::Select(statistic) => Box::new(Select::of(*statistic, recipe.mixing.as_ref(), members)),
    }
}
