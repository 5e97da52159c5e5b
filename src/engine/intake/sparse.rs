//! Updates of which few values were sent, under rules that compare clients.
//!
//! Where a client did not send a value, its zero says nothing of what it found. If fewer than half of the clients send a
//! coordinate, its median is zero, and distances are those between choices more than between updates. A choice that
//! all clients share has neither trouble: it is as if the model were smaller (RoSDHB, arXiv 2508.17129).

use crate::engine::intake::admit::most_common;
use crate::engine::intake::fault::Fault;
use crate::model::sparsity::Sparsity;
use crate::updates::encoded::sketched;
use crate::updates::set::{Client, UpdateSet};

/// The least part of the values that clients may choose by themselves under rules that compare them.
const LEAST_FRACTION: f64 = 0.5;

/// What compares clients with each other, if anything does.
pub struct Comparer<'a> {
    /// The rule or step that compares a client with others, by the client's id.
    pub of: &'a dyn Fn(&str) -> Option<String>,
    /// What cannot take sketches at all, whatever compares clients.
    pub refuses_sketches: Option<&'static str>,
}

/// The faults of updates that would mislead what compares clients, by their place in the set.
pub fn misleading(set: &UpdateSet, allows_sparse: bool, comparer: &Comparer) -> Vec<(usize, Fault)> {
    let mut faults = sketches(set, comparer);
    if !allows_sparse {
        faults.extend(choices(set, comparer));
    }
    faults
}

/// Sketches under rules that compare them: their cells are sums of values by chance, and say nothing of any.
fn sketches(set: &UpdateSet, comparer: &Comparer) -> Vec<(usize, Fault)> {
    let sketches = set.clients.iter().enumerate().filter(|(_, client)| sketched(&client.model).is_some());
    let fault = |(i, client): (usize, &Client)| {
        let refuser = comparer.refuses_sketches.map(str::to_owned);
        Some((i, Fault::SketchUnderRule { rule: refuser.or_else(|| (comparer.of)(&client.id))? }))
    };
    sketches.filter_map(fault).collect()
}

/// Updates with choices of their own under rules that compare clients.
fn choices(set: &UpdateSet, comparer: &Comparer) -> Vec<(usize, Fault)> {
    let found = set.clients.iter().enumerate().filter_map(|(i, client)| {
        let sparsity = client.model.decoder.as_ref()?.sparsity();
        Some((i, sparsity, (comparer.of)(&client.id)?))
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
