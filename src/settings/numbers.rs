//! The numbers that settings of strategies may be.

use std::fmt::{self, Display};
use std::str::FromStr;

/// A number that is not negative.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NotNegative(pub f64);

/// The part of an average that stays from one round to the next: at least 0, below 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decay(pub f64);

impl FromStr for NotNegative {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
        number.map(Self).ok_or_else(|| format!("found `{text}`, expected a number that is not negative"))
    }
}

impl FromStr for Decay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|x: &f64| (0.0..1.0).contains(x));
        number.map(Self).ok_or_else(|| format!("found `{text}`, expected at least 0 and below 1"))
    }
}

impl Display for NotNegative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
