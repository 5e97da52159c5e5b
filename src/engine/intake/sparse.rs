//! Updates of which few values were sent, under rules that compare clients.
//!
//! Where a client did not send a value, its zero says nothing of what it found. If fewer than half of the clients send a
//! coordinate, its median is zero, and distances are those between choices more than between updates. A choice that
//! all clients share has neither trouble: it is as if the model were smaller (RoSDHB, arXiv 2508.17129).

use crate::engine::aggregate::request::Job;
use crate::engine::decide::judge::Aggregation;
use crate::engine::intake::admit::{Client, UpdateSet, most_common};
use crate::engine::intake::fault::Fault;
use crate::model::sparsity::Sparsity;
use crate::updates::encoded::sketched;

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
pub(crate) fn misleading(set: &UpdateSet, job: &Job) -> Vec<(usize, Fault)> {
    let mut faults = sketches(set, job);
    if !job.expected.allows_sparse {
        faults.extend(choices(set, job));
    }
    faults
}

/// What compares a client with others, if anything does.
fn comparer(client: &Client, job: &Job) -> Option<String> {
    let tier = job.tiers.as_ref().and_then(|tiers| tiers.tier_of(&client.id));
    tier.map_or(&job.aggregation, |tier| &tier.aggregation).comparer()
}

/// Sketches under rules that compare them: their cells are sums of values by chance, and say nothing of any.
fn sketches(set: &UpdateSet, job: &Job) -> Vec<(usize, Fault)> {
    let sketches = set.clients.iter().enumerate().filter(|(_, client)| sketched(&client.model).is_some());
    let fault = |(i, client)| {
        let asked = job.partial.then(|| "a partial".to_owned());
        Some((i, Fault::SketchUnderRule { rule: asked.or_else(|| comparer(client, job))? }))
    };
    sketches.filter_map(fault).collect()
}

/// Updates with choices of their own under rules that compare clients.
fn choices(set: &UpdateSet, job: &Job) -> Vec<(usize, Fault)> {
    let found = set.clients.iter().enumerate().filter_map(|(i, client)| {
        let sparsity = client.model.decoder.as_ref()?.sparsity();
        Some((i, sparsity, comparer(client, job)?))
    });
    let found: Vec<(usize, Sparsity, String)> = found.collect();
    let marks = found.iter().filter_map(|(_, sparsity, _)| match sparsity {
        Sparsity::Shared { mark, .. } => Some(*mark),
        Sparsity::Own { .. } | Sparsity::Dense => None,
    });
    let most = most_common(marks);
    found
        .into_iter()
        .filter_map(|(i, sparsity, rule)| match sparsity {
            Sparsity::Own { codec, fraction } if fraction < LEAST_FRACTION => {
                Some((i, Fault::OwnChoice { codec, percent: 100.0 * fraction, rule }))
            }
            Sparsity::Shared { codec, mark } if Some(mark) != most => {
                Some((i, Fault::OtherChoice { codec, rule }))
            }
            Sparsity::Own { .. } | Sparsity::Shared { .. } | Sparsity::Dense => None,
        })
        .collect()
}
