//! The oracle: every rule as its paper defines it, in f64, without optimisation.
//!
//! This file has the rules that work by coordinate, the folder those that judge whole clients.

pub(crate) mod choices;
pub(crate) mod nearest;
pub(crate) mod pre;
pub(crate) mod robust;
pub(crate) mod spectral;
pub(crate) mod strategies;
pub(crate) mod vectors;

/// A sorted copy, by value. Zeros of both signs are equal.
fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    sorted
}

/// The median, the midpoint of the middle two for an even number of values (Yin et al. 2018, definition 1).
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { sorted[n / 2 - 1] / 2.0 + sorted[n / 2] / 2.0 }
}

/// The mean without the `cut` smallest and the `cut` largest values (Yin et al. 2018, definition 2).
pub(crate) fn trimmed_mean(values: &[f64], cut: usize) -> f64 {
    let sorted = sorted(values);
    let kept = &sorted[cut..sorted.len() - cut];
    kept.iter().sum::<f64>() / kept.len() as f64
}

/// The weighted mean (McMahan et al. 2017, algorithm 1).
pub(crate) fn weighted_mean(values: &[f64], weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    values.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() / total
}

/// Fails unless `got` equals `want` up to the rounding of a sum of `terms` numbers of at most `scale`.
#[track_caller]
pub(crate) fn assert_close(got: f64, want: f64, terms: usize, scale: f64, what: &str) {
    assert!(got.is_finite() && want.is_finite(), "{what}: got {got:e}, expected {want:e}");
    let bound = 4.0 * terms as f64 * f64::EPSILON * scale;
    assert!((got - want).abs() <= bound, "{what}: got {got:e}, expected {want:e} to {bound:e}");
}

/// The exact sum of these values times their weights, rounded once. It is an expansion of parts that do not overlap,
/// built term by term (Shewchuk, Adaptive precision floating-point arithmetic, 1997; `math.fsum` of Python).
pub(crate) fn exact_weighted_sum(values: &[f64], weights: &[f64]) -> f64 {
    let mut parts: Vec<f64> = Vec::new();
    for (value, weight) in values.iter().zip(weights) {
        let product = value * weight;
        for term in [product, value.mul_add(*weight, -product)] {
            grow(&mut parts, term);
        }
    }
    // Parts below the largest two only decide ties.
    let mut sum = parts.pop().unwrap_or(0.0);
    while let Some(part) = parts.pop() {
        let total = sum + part;
        let rest = part - (total - sum);
        sum = total;
        if rest != 0.0 {
            let beyond_a_tie = parts.pop().is_some_and(|next| next != 0.0 && (next < 0.0) == (rest < 0.0));
            if beyond_a_tie && sum + 2.0 * rest - sum == 2.0 * rest {
                sum += 2.0 * rest;
            }
            break;
        }
    }
    sum
}

fn grow(parts: &mut Vec<f64>, mut term: f64) {
    let mut grown = Vec::new();
    for part in parts.iter() {
        let (large, small) = if term.abs() < part.abs() { (*part, term) } else { (term, *part) };
        let sum = large + small;
        let rest = small - (sum - large);
        if rest != 0.0 {
            grown.push(rest);
        }
        term = sum;
    }
    grown.push(term);
    *parts = grown;
}
