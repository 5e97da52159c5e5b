//! The numbers that options, and settings of strategies, may be.

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

/// A number from 0 to 1.
///
/// # Errors
///
/// When the text is no such number.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

/// A number above 0.
///
/// # Errors
///
/// When the text is no such number.
pub fn positive(text: &str) -> Result<f64, String> {
    number(text, "a number above 0", |x| x > 0.0 && x.is_finite())
}

/// A number that is not negative.
///
/// # Errors
///
/// When the text is no such number.
pub fn not_negative(text: &str) -> Result<f64, String> {
    number(text, "a number that is not negative", |x| x >= 0.0 && x.is_finite())
}

/// A number between 0 and 1.
///
/// # Errors
///
/// When the text is no such number.
pub fn fraction(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and below 1", |x| x > 0.0 && x < 1.0)
}

fn number(text: &str, expected: &str, is_sound: impl Fn(f64) -> bool) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| is_sound(*number));
    number.ok_or_else(|| format!("found `{text}`, expected {expected}"))
}
