//! The interval of a mean of paired differences, by Student's t.

/// A mean with its interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The two-sided interval of the mean of `differences` at a confidence between 0 and 1, such as 0.95. If nothing
/// differs, it lies above 0 in (1 - confidence) / 2 of all cases at most. `None` of fewer than two differences.
pub fn interval(differences: &[f64], confidence: f64) -> Option<Interval> {
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
    let freedom = u32::try_from(differences.len()).ok()?.checked_sub(1).filter(|freedom| *freedom > 0)?;
    let error = (squares / f64::from(freedom) / count).sqrt();
    let half = if error > 0.0 { error * quantile(freedom, confidence) } else { 0.0 };
    Some(Interval { mean, low: mean - half, high: mean + half })
}

/// The t between whose negative and itself a part `confidence` of Student's distribution lies.
fn quantile(freedom: u32, confidence: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while between(freedom, high) < confidence && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if between(freedom, middle) < confidence { low = middle } else { high = middle }
    }
    high
}

/// The part of Student's distribution between -t and t: Abramowitz and Stegun, Handbook of mathematical functions, 26.7.3
/// and 26.7.4.
fn between(freedom: u32, t: f64) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // The terms are 1, 1/2 cos^2, 1*3/(2*4) cos^4 .. for even, and cos, 2/3 cos^3, 2*4/(3*5) cos^5 .. for odd freedom.
    let (mut term, mut sum) = (if odd { cosine } else { 1.0 }, 0.0);
    let mut next = if odd { 2 } else { 1 };
    while next <= freedom {
        sum += term;
        term *= cosine * cosine * f64::from(next) / f64::from(next + 1);
        next += 2;
    }
    if odd { (angle + sine * sum) * std::f64::consts::FRAC_2_PI } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // Two-sided 95 % and 99 % points of Student's t.
        for (freedom, at_95, at_99) in [
            (1, 12.706, 63.657),
            (2, 4.303, 9.925),
            (3, 3.182, 5.841),
            (4, 2.776, 4.604),
            (9, 2.262, 3.250),
            (30, 2.042, 2.750),
        ] {
            assert!((quantile(freedom, 0.95) - at_95).abs() < 6e-4, "{freedom}: {}", quantile(freedom, 0.95));
            assert!((quantile(freedom, 0.99) - at_99).abs() < 6e-4, "{freedom}: {}", quantile(freedom, 0.99));
        }
    }

    #[test]
    fn an_interval_by_hand() {
        // Mean 2, standard deviation 1, error 1/sqrt(3).
        let found = interval(&[1.0, 2.0, 3.0], 0.95).unwrap();
        assert!((found.low - (2.0 - 4.302_65 / 3f64.sqrt())).abs() < 1e-4, "{found:?}");
        assert_eq!(interval(&[2.0, 2.0], 0.95), Some(Interval { mean: 2.0, low: 2.0, high: 2.0 }));
        assert_eq!((interval(&[1.0], 0.95), interval(&[], 0.95)), (None, None));
    }
}
