//! A part of the clients: a count, or a fraction.

use std::fmt;
use std::str::FromStr;

/// A count (`4`), or a fraction below 1 (`0.2`). Its digits are exact, so that 0.29 of 100 is 29.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    digits: u128,
    /// Power of ten that divides `digits`; `None` for a count.
    scale: Option<u128>,
    text: String,
}

/// The most digits of a share. More would overflow the exact arithmetic.
const MAX_DIGITS: usize = 18;

/// The error for a text that is not a share.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("found `{found}`, expected a count such as 3 or a fraction below 1 such as 0.2")]
pub struct BadShare {
    found: String,
}

impl Share {
    /// This share of `clients`, rounded down.
    pub fn of(&self, clients: usize) -> usize {
        let count = match self.scale {
            None => self.digits,
            Some(scale) => self.digits * clients as u128 / scale,
        };
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// The smallest number of clients that is at least this share of `clients`.
    pub fn at_least(&self, clients: usize) -> usize {
        self.of(clients)
            + usize::from(
                self.scale.is_some_and(|scale| !(self.digits * clients as u128).is_multiple_of(scale)),
            )
    }

    /// The fewest clients of which this fraction is at least one client, if there are fewer. `None` for a count, and
    /// if the fraction of `clients` is a client.
    pub fn needs_more_than(&self, clients: usize) -> Option<usize> {
        let least = usize::try_from(self.scale?.div_ceil(self.digits)).unwrap_or(usize::MAX);
        (clients < least).then_some(least)
    }

    /// Reads a part of many values: a fraction below 1, or a count without a point, above 0.
    ///
    /// # Errors
    ///
    /// When it is neither, such as `1.0`, which could mean all or one.
    pub fn part(text: &str) -> Result<Self, BadShare> {
        let part: Self = text.parse()?;
        match part.digits == 0 || (text.contains('.') && !part.is_fraction()) {
            true => Err(BadShare { found: text.to_owned() }),
            false => Ok(part),
        }
    }

    /// Whether it is a fraction.
    pub fn is_fraction(&self) -> bool {
        self.scale.is_some()
    }
}

impl FromStr for Share {
    type Err = BadShare;

    fn from_str(text: &str) -> Result<Self, BadShare> {
        let bad = || BadShare { found: text.to_owned() };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let digits: u128 = digits.parse().map_err(|_| bad())?;
        let scale = 10u128.pow(fraction.len() as u32);
        if fraction.is_empty() || digits.is_multiple_of(scale) {
            return Ok(Self { digits: digits / scale, scale: None, text: text.to_owned() });
        }
        if digits > scale {
            return Err(bad());
        }
        Ok(Self { digits, scale: Some(scale), text: text.to_owned() })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, clients: usize) -> usize {
        text.parse::<Share>().unwrap().of(clients)
    }

    #[test]
    fn a_part_is_no_number_that_could_mean_all_or_one() {
        for text in ["0", "0.0", "1.0", "2.0", "1.5", "x"] {
            assert!(Share::part(text).is_err(), "{text}");
        }
        assert!(Share::part("1").is_ok_and(|part| part.of(9) == 1) && Share::part("0.5").is_ok());
    }

    #[test]
    fn fractions_round_down_exactly() {
        assert_eq!(of("0.29", 100), 29);
        assert_eq!(of("0.1", 30), 3);
        assert_eq!(of("0.2", 4), 0);
        assert_eq!(of(".5", 5), 2);
        assert_eq!(of("0.999", 1000), 999);
    }

    #[test]
    fn a_fraction_says_how_many_clients_it_needs() {
        let needs = |text: &str, clients| text.parse::<Share>().unwrap().needs_more_than(clients);
        assert_eq!((needs("0.2", 4), needs("0.2", 5)), (Some(5), None));
        assert_eq!((needs("0.3", 3), needs("0.3", 4), needs("0.3", 0)), (Some(4), None, Some(4)));
        assert_eq!((needs("0.0001", 9_999), needs("0.0001", 10_000)), (Some(10_000), None));
        assert_eq!((needs("0", 4), needs("0.0", 4), needs("2", 1)), (None, None, None));
    }

    #[test]
    fn a_quorum_rounds_up() {
        let at_least = |text: &str, clients| text.parse::<Share>().unwrap().at_least(clients);
        assert_eq!((at_least("0.5", 5), at_least("0.5", 4), at_least("0.29", 100)), (3, 2, 29));
        assert_eq!((at_least("3", 100), at_least("0.1", 0)), (3, 0));
    }

    #[test]
    fn whole_numbers_are_counts() {
        assert_eq!(of("3", 100), 3);
        assert_eq!(of("0", 100), 0);
        assert_eq!(of("1", 100), 1);
        assert_eq!(of("2.0", 100), 2);
        assert_eq!(of("0.0", 100), 0);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ".", "1.5", "-1", "a", "0.2x", "1e3", "NaN", "9999999999999999999"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
