//! Updates of which few values were sent, under rules that compare clients.
//!
//! Where a client did not send a value, its zero says nothing of what it found. If fewer than half of the clients send a
//! coordinate, its median is zero, and distances are those between choices more than between updates. A choice that
//! all clients share has neither trouble: it is as if the model were smaller (RoSDHB, arXiv 2508.17129).

use crate::io::model_file::{Choice, Sparsity};
use crate::round::fault::Fault;
use crate::round::job::Job;
use crate::round::judge::Aggregation;
use crate::round::roster::{Client, UpdateSet};
use std::collections::BTreeMap;

/// The least part of the values that clients may choose by themselves under rules that compare them.
const LEAST_FRACTION: f64 = 0.5;

impl Aggregation {
    /// What of it compares clients, the rule or a step before it, if anything does.
    fn comparer(&self) -> Option<String> {
        let step = self.pre.iter().find(|step| step.compares_clients());
        let rule = Some(&self.rule).filter(|rule| rule.compares_clients());
        step.map(ToString::to_string).or_else(|| rule.map(ToString::to_string))
    }
}

/// The updates, by their place in the set, that the rules of a job would be misled by.
pub(super) fn misleading(set: &UpdateSet, job: &Job) -> Vec<(usize, Fault)> {
    if job.expected.allows_sparse {
        return Vec::new();
    }
    let of_tier = |client: &Client| {
        let tiers = job.tiers.as_ref()?;
        tiers.tier_of(&client.id).map(|tier| tier.aggregation.comparer())
    };
    let rule = job.aggregation.comparer();
    let found = set.clients.iter().enumerate().filter_map(|(i, client)| {
        let sparsity = client.model.decoder.as_ref()?.sparsity()?;
        let rule = of_tier(client).unwrap_or_else(|| rule.clone())?;
        Some((i, sparsity, rule))
    });
    let found: Vec<(usize, Sparsity, String)> = found.collect();
    let most = most_shared(found.iter().map(|(_, sparsity, _)| sparsity));
    found
        .into_iter()
        .filter_map(|(i, Sparsity { codec, choice }, rule)| match choice {
            Choice::Client { fraction } if fraction < LEAST_FRACTION => {
                Some((i, Fault::OwnChoice { codec, percent: 100.0 * fraction, rule }))
            }
            Choice::Shared { mark } if Some(mark) != most => Some((i, Fault::OtherChoice { codec, rule })),
            Choice::Client { .. } | Choice::Shared { .. } => None,
        })
        .collect()
}

/// The choice that most updates share; of two that as many do, the one that comes first.
fn most_shared<'a>(updates: impl Iterator<Item = &'a Sparsity>) -> Option<u64> {
    let mut votes: BTreeMap<u64, (usize, std::cmp::Reverse<usize>)> = BTreeMap::new();
    for (i, sparsity) in updates.enumerate() {
        if let Choice::Shared { mark } = sparsity.choice {
            votes.entry(mark).or_insert((0, std::cmp::Reverse(i))).0 += 1;
        }
    }
    votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(mark, _)| mark)
}
