//! The score of an agent: how often it succeeds, at the least.

/// How often an attempt of an agent succeeds, at the least, with a confidence of 95 %: the lower 5 % point of the
/// distribution Beta(1 + successes, 1 + failures). An agent without an attempt has 0.05.
pub fn lower_bound(succeeded: u64, failed: u64) -> f64 {
    let (a, b) = (1.0 + succeeded as f64, 1.0 + failed as f64);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle, a, b) < 0.05 { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The probability that a value of Beta(a, b) is at most `x`: the regularized incomplete beta function.
///
/// Source: Press et al., Numerical Recipes, section 6.4: a continued fraction by the method of Lentz.
fn below(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (-x).ln_1p();
    if x < (a + 1.0) / (a + b + 2.0) {
        front.exp() * fraction(x, a, b) / a
    } else {
        1.0 - front.exp() * fraction(1.0 - x, b, a) / b
    }
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut product = d;
    for step in 1..10_000 {
        let m = f64::from(step);
        for term in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            product *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    product
}

/// The share of the last attempt in [`recent`].
const RATE: f64 = 0.1;

/// How well the last attempts went: a moving average that forgets, of success by speed. An attempt that took longer
/// than `expected` seconds counts in proportion.
pub fn recent(before: Option<f64>, succeeded: bool, seconds: f64, expected: Option<f64>) -> f64 {
    let speed = expected.filter(|_| seconds > 0.0).map_or(1.0, |expected| (expected / seconds).min(1.0));
    let now = if succeeded { speed } else { 0.0 };
    before.map_or(now, |before| before + RATE * (now - before))
}

/// Attempts after which an agent may be retired by its score.
pub const TRIED: u64 = 20;

/// The score below which an agent is retired.
pub const WEAK: f64 = 0.3;

/// Why an agent is too weak to go on, if it is.
pub fn is_weak(succeeded: u64, failed: u64) -> Option<String> {
    let (all, score) = (succeeded + failed, lower_bound(succeeded, failed));
    let why = || format!("score {score:.3} is below {WEAK} after {all} attempts");
    (all >= TRIED && score < WEAK).then(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by definition: the sum of the density over small steps.
    fn by_sums(succeeded: i32, failed: i32) -> f64 {
        const STEPS: u32 = 200_000;
        let density = |step: u32| {
            let x = (f64::from(step) + 0.5) / f64::from(STEPS);
            x.powi(succeeded) * (1.0 - x).powi(failed)
        };
        let all: f64 = (0..STEPS).map(density).sum();
        let mut sum = 0.0;
        let reached = (0..STEPS).find(|step| {
            sum += density(*step);
            sum >= 0.05 * all
        });
        f64::from(reached.unwrap()) / f64::from(STEPS)
    }

    #[test]
    fn the_lower_bound_is_that_of_the_distribution() {
        for (succeeded, failed) in [(0, 0), (1, 0), (0, 1), (3, 2), (18, 2), (7, 13), (50, 50), (200, 3)] {
            let found = lower_bound(succeeded, failed);
            let expected = by_sums(succeeded as i32, failed as i32);
            assert!((found - expected).abs() < 2e-5, "{succeeded} {failed}: {found} {expected}");
        }
        // Closed forms: the least, and the greatest, of n + 1 values.
        assert!((lower_bound(9, 0) - 0.05_f64.powf(0.1)).abs() < 1e-12);
        assert!((lower_bound(0, 9) - (1.0 - 0.95_f64.powf(0.1))).abs() < 1e-12);
        assert!((lower_bound(1_000_000, 1_000_000) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn the_average_forgets() {
        assert_eq!(recent(None, true, 2.0, Some(1.0)), 0.5);
        assert_eq!(recent(None, true, 2.0, None), 1.0);
        assert_eq!(recent(Some(1.0), false, 1.0, None), 0.9);
        assert_eq!(recent(Some(0.5), true, 0.0, Some(1.0)), 0.55);
    }

    #[test]
    fn only_a_weak_agent_that_was_tried_is_retired() {
        assert_eq!(is_weak(0, 19), None);
        assert!(is_weak(0, 20).is_some());
        // The lower bound of 10 of 20 is 0.328, that of 9 of 20 is 0.286.
        assert_eq!(is_weak(10, 10), None);
        assert_eq!(is_weak(9, 11).unwrap(), "score 0.286 is below 0.3 after 20 attempts");
    }
}
