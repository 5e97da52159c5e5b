//! Numbers as messages print them.

use std::fmt;

/// A number in the fewest digits that tell it from its neighbours, with an exponent if it is very large or very small.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shown(pub f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        let is_plain = size == 0.0 || !size.is_finite() || (1e-5..1e16).contains(&size);
        if is_plain { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_where_digits_would_be_zeros() {
        let shown = |x: f64| Shown(x).to_string();
        assert_eq!(shown(f64::MAX), "1.7976931348623157e308");
        assert_eq!(shown(-1e-300), "-1e-300");
        assert_eq!([shown(999_424.0), shown(-0.5), shown(0.0)], ["999424", "-0.5", "0"]);
        assert_eq!([shown(f64::NAN), shown(f64::NEG_INFINITY)], ["NaN", "-inf"]);
    }
}
