//! One of the shards of a run, as an operator writes it: `2/7`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One of the shards of a run, as an operator writes it: `2/7`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shard {
    of: usize,
    /// Counted from 1.
    number: usize,
}

/// The error for a text that is not a shard.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("found `{found}`, expected I/S: shard I of S, counted from 1")]
pub struct BadShard {
    found: String,
}

impl Shard {
    /// The shard of these numbers, counted from 1; `None` if there is no such shard.
    pub fn new(number: usize, of: usize) -> Option<Self> {
        (1..=of).contains(&number).then_some(Self { of, number })
    }

    /// Its number, counted from 1.
    pub fn number(self) -> usize {
        self.number
    }

    /// The number of shards.
    pub fn count(self) -> usize {
        self.of
    }

    /// Its part of `all` items. May be empty if there are more shards than items.
    pub fn part_of(self, all: usize) -> Range<usize> {
        let start = |number: usize| (all as u128 * number as u128 / self.of as u128) as usize;
        start(self.number - 1)..start(self.number)
    }

    /// Whether both belong to the same number of shards.
    pub fn is_cut_as(self, other: Self) -> bool {
        self.of == other.of
    }

    /// All shards, from number 1 on.
    pub fn all(self) -> impl Iterator<Item = Self> {
        (1..=self.of).map(move |number| Self { number, ..self })
    }
}

impl FromStr for Shard {
    type Err = BadShard;

    fn from_str(text: &str) -> Result<Self, BadShard> {
        let numbers = text.split_once('/').map(|(number, of)| (number.parse(), of.parse()));
        let shard = match numbers {
            Some((Ok(number), Ok(of))) => Self::new(number, of),
            _ => None,
        };
        shard.ok_or_else(|| BadShard { found: text.to_owned() })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_all_items_once() {
        for all in [0, 1, 2, 15, 1000] {
            for of in [1, 2, 7, 16] {
                let shards = (1..=of).map(|number| Shard { number, of }.part_of(all));
                assert_eq!(shards.flatten().collect::<Vec<_>>(), (0..all).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        assert_eq!("2/7".parse(), Ok(Shard { number: 2, of: 7 }));
        for text in ["", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/2/3", "1 / 2"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
