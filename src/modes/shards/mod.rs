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
use crate::settings::shard::Shard;
use crate::updates::set::UpdateSet;
use std::ops::Range;

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

/// The sections that a shard has of a layout with this many coordinates. May be empty if there are more shards than
/// sections.
pub fn sections_of_shard(shard: Shard, coordinates: usize) -> Range<usize> {
    shard.part_of(sections_of(coordinates))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::passes::sections::SECTION;

    #[test]
    fn shards_are_all_sections_once() {
        for coordinates in [0, 1, SECTION, SECTION + 1, 10 * SECTION, 1000 * SECTION - 7] {
            for of in [1, 2, 7, 16] {
                let shards = Shard::new(1, of).unwrap().all();
                let sections: Vec<usize> =
                    shards.flat_map(|shard| sections_of_shard(shard, coordinates)).collect();
                assert_eq!(sections, (0..coordinates.div_ceil(SECTION)).collect::<Vec<_>>());
            }
        }
    }
}
