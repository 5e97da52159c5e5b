//! A run cut into shards: several processes do together what one process does alone, to the byte.
//!
//! A shard is a range of whole [`sections`](crate::engine::passes::sections). [`gram`] measures one shard and writes a
//! shard file. [`decide`] judges by the shard files of all shards. [`combine`] merges one shard by the decision and
//! writes a shard file. [`merge`] joins those and publishes. Rules that work on each coordinate alone need neither
//! `gram` nor `decide`. [`measured`] reads what `gram` measured, for metrics. Each command opens all updates and runs
//! the code of an aggregate run on its part.
//!
//! [`identity`] tells the files of two runs apart. [`file`](mod@file) is the format of all shard files. `sections`
//! stores sums in such a file, `tensors` a part of a model.

pub mod combine;
pub mod decide;
pub mod file;
pub mod gram;
pub mod identity;
pub mod measured;
pub mod merge;
mod sections;
mod tensors;

use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::mode::{Mode, Plain};
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::session::Session;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::policy::Missing;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::sections::sections_of;
use crate::rules::Statistics;
use crate::updates::set::UpdateSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A sharded run, of which this process does a part.
struct ShardedRun<'m> {
    session: Session<'m>,
    taken: Taken,
    statistics: Statistics,
}

impl<'m> ShardedRun<'m> {
    /// Opens all updates, and takes those that a plain run takes.
    fn open(request: Request, machine: Machine<'m>) -> Result<Self, Error> {
        if request.policy.tensors.missing == Missing::Present {
            return Err(without_whole_updates().into());
        }
        let mut session = Session::open(request, machine)?;
        let taken = Plain.take(&mut session);
        let taken = session.with_report(taken)?;
        let statistics = session.statistics(&taken)?;
        Ok(Self { session, taken, statistics })
    }
}

/// The refusal of tensors that only some clients have: a decision holds one recipe for all tensors.
fn without_whole_updates() -> Unsupported {
    Unsupported {
        option: "--missing present".to_owned(),
        mode: None,
        why: "cannot be used in shards: their decision holds one recipe for all tensors".to_owned(),
        hint: Some("pass --missing base, or merge by `fedmill aggregate`"),
    }
}

/// The error that a shard found these updates bad, by index in the set. The other shards do not know, so that the run
/// cannot skip them.
fn bad_updates(set: &UpdateSet, faults: &[(usize, Fault)]) -> Error {
    let line = |(i, fault): &(usize, Fault)| format!("{}: {fault}", set.clients[*i].model.path.display());
    let lines = faults.iter().map(line).collect();
    let hint =
        "the other shards still use it: leave the update out of the inputs of all commands of this run";
    Error::BadUpdates { lines, hint: Some(hint.to_owned()) }
}

/// Turns the end of an attempt into the error of a sharded run.
fn stopped(set: &UpdateSet, why: Stopped) -> Error {
    match why {
        Stopped::BadUpdates(faults) => bad_updates(set, &faults),
        Stopped::Error(why) => why,
    }
}

/// One of the shards of a run, as a user writes it: `2/7`.
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
    /// Its sections of a layout with this many coordinates. May be empty if there are more shards than sections.
    pub fn sections(self, coordinates: usize) -> Range<usize> {
        let all = sections_of(coordinates) as u128;
        let start = |number: usize| (all * number as u128 / self.of as u128) as usize;
        start(self.number - 1)..start(self.number)
    }
}

impl Shard {
    /// Whether both belong to the same number of shards.
    fn is_cut_as(self, other: Self) -> bool {
        self.of == other.of
    }

    /// All shards, from number 1 on.
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
