//! How many values of a vector a sparse codec sends: `fraction=0.01`, or `k=100`.

use crate::settings::{Settings, SpecError};
use std::fmt;
use std::str::FromStr;

/// How many values of a vector are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Portion {
    /// A fraction of them, rounded up.
    Fraction(f64),
    /// A count.
    Count(u64),
}

impl Portion {
    /// Takes the settings `fraction` and `k`. The default is a hundredth.
    pub(crate) fn take(settings: &mut Settings) -> Result<Self, SpecError> {
        match (settings.take("fraction")?, settings.take("k")?) {
            (Some(_), Some(Count(_))) => Err(settings.bad("k", "found fraction= too, expected one of them")),
            (None, Some(Count(count))) => Ok(Self::Count(count)),
            (Some(Fraction(fraction)), None) => Ok(Self::Fraction(fraction)),
            (None, None) => Ok(Self::Fraction(0.01)),
        }
    }

    /// The number for a vector of `len` values: at least one, and at most all.
    pub fn of(self, len: u64) -> u64 {
        let wanted = match self {
            // Ignores the rounding error of a product that should be a whole number.
            Self::Fraction(fraction) => (fraction * len as f64 * (1.0 - 1e-15)).ceil() as u64,
            Self::Count(count) => count,
        };
        wanted.clamp(1, len.max(1))
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction(fraction) => write!(f, "fraction={fraction}"),
            Self::Count(count) => write!(f, "k={count}"),
        }
    }
}

struct Fraction(f64);

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fraction = text.parse().ok().filter(|x: &f64| *x > 0.0 && *x <= 1.0);
        fraction.map(Self).ok_or_else(|| format!("found `{text}`, expected a number above 0 and at most 1"))
    }
}

struct Count(u64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().filter(|count| *count >= 1);
        count.map(Self).ok_or_else(|| format!("found `{text}`, expected a count of at least 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_rounded_up_and_kept_within_the_vector() {
        for (fraction, len, expected) in
            [(0.01, 100, 1), (0.01, 101, 2), (0.07, 100, 7), (0.3, 10, 3), (1e-9, 5, 1), (1.0, 5, 5)]
        {
            assert_eq!(Portion::Fraction(fraction).of(len), expected, "{fraction} of {len}");
        }
        assert_eq!((Portion::Count(9).of(5), Portion::Count(2).of(5)), (5, 2));
    }
}
