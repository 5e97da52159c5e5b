//! Sums with twice the digits of f64.

/// A sum that keeps what each addition rounds off (Knuth, The art of computer programming, volume 2, section 4.2.2,
/// theorem B).
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::rules) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    /// Adds a value.
    pub(in crate::rules) fn add(&mut self, x: f64) {
        let sum = self.high + x;
        let part = sum - self.high;
        self.low += (self.high - (sum - part)) + (x - part);
        self.high = sum;
    }

    /// The sum, rounded once.
    pub(in crate::rules) fn value(self) -> f64 {
        // Past the largest float, what was rounded off is no number.
        if self.high.is_finite() { self.high + self.low } else { self.high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = Sum::default();
        values.iter().for_each(|x| sum.add(*x));
        sum.value()
    }

    #[test]
    fn no_order_changes_a_sum() {
        let values: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 0.77).sin().abs()).collect();
        let mut others = values.clone();
        others.sort_by(f64::total_cmp);
        assert_eq!(sum(&values), sum(&others));
        assert_ne!(values.iter().sum::<f64>(), others.iter().sum::<f64>(), "plain sums differ");
        assert_eq!(sum(&[1e30, 1.0, -1e30]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
    }
}
