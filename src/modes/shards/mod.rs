//! A round cut into shards: several processes do together what [`merge`](super::merge) does alone, to the byte.
//!
//! A shard is a run of whole [`sections`](super::sections). [`gram`] looks at one shard and leaves a partial, [`decide`]
//! judges by the partials of all shards, [`combine`] merges one shard as was decided and leaves a partial, [`join`]
//! puts those together and publishes. Rules that work by coordinate need neither a look nor a decision. Each of the four
//! opens all updates, and does what merging in one process does, with the same code: it only goes through its own part.
//!
//! [`key`] is what tells one run's files from another's, [`partial`] what all partials have in common, `pieces` how a
//! part of a model stands in one.

pub mod combine;
pub mod decide;
pub mod file;
pub mod gram;
pub mod identity;
pub mod merge;
pub mod sections;
pub mod tensors;

use crate::engine::passes::sections::sections_of;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One of the parts that a round is cut into, as a user writes it: `2/7`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shard {
    of: usize,
    /// Counted from 1.
    number: usize,
}

/// Not a shard.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("found `{found}`, expected I/S: shard I of S, counted from 1")]
pub struct BadShard {
    found: String,
}

impl Shard {
    /// Its sections of a layout of so many coordinates: none if there are more shards than sections.
    pub fn sections(self, coordinates: usize) -> Range<usize> {
        let all = sections_of(coordinates) as u128;
        let start = |number: usize| (all * number as u128 / self.of as u128) as usize;
        start(self.number - 1)..start(self.number)
    }
}

impl Shard {
    /// Whether both are of as many.
    fn is_cut_as(self, other: Self) -> bool {
        self.of == other.of
    }

    /// All shards of as many.
    fn all(self) -> impl Iterator<Item = Self> {
        (1..=self.of).map(move |number| Self { number, ..self })
    }
}

impl FromStr for Shard {
    type Err = BadShard;

    fn from_str(text: &str) -> Result<Self, BadShard> {
        let numbers = text.split_once('/').map(|(number, of)| (number.parse(), of.parse()));
        match numbers {
            Some((Ok(number), Ok(of))) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(BadShard { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;
    use crate::engine::passes::sections::SECTION;

    #[test]
    fn shards_are_all_sections_once() {
        for coordinates in [0, 1, SECTION, SECTION + 1, 10 * SECTION, 1000 * SECTION - 7] {
            for of in [1, 2, 7, 16] {
                let shards = (1..=of).map(|number| Shard { number, of }.sections(coordinates));
                let sections: Vec<usize> = shards.flatten().collect();
                assert_eq!(sections, (0..coordinates.div_ceil(SECTION)).collect::<Vec<_>>());
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
