//! Finds sparse updates that mislead rules that compare clients.
//!
//! A value that a client did not send reads as zero, whatever the client computed. If fewer than half of the clients
//! send a coordinate, its median is zero. Distances then measure the choice of coordinates more than the values. A
//! choice that all clients share has neither effect: it acts like a smaller model (RoSDHB, arXiv 2508.17129).

use crate::engine::intake::admit::most_common;
use crate::engine::intake::fault::Fault;
use crate::model::sparsity::Sparsity;
use crate::updates::encoded::sketched;
use crate::updates::set::{Client, UpdateSet};

/// The least share of the values that a client must send under rules that compare clients.
const LEAST_FRACTION: f64 = 0.5;

/// Whether rules that compare clients refuse updates in which the client chose these values to send.
pub fn is_own_choice(sparsity: &Sparsity) -> bool {
    matches!(sparsity, Sparsity::Own { fraction, .. } if *fraction < LEAST_FRACTION)
}

/// The rule or step that compares clients, and the one that cannot take sketches.
pub struct Comparer<'a> {
    /// The rule or step that compares this client with others, by client id.
    pub of: &'a dyn Fn(&str) -> Option<String>,
    /// The rule or step that cannot take sketches at all.
    pub refuses_sketches: Option<&'static str>,
}

/// The faults of updates that mislead a rule or step, by index in the set.
pub fn misleading(set: &UpdateSet, allows_sparse: bool, comparer: &Comparer) -> Vec<(usize, Fault)> {
    let mut faults = sketches(set, comparer);
    if !allows_sparse {
        faults.extend(choices(set, comparer));
    }
    faults
}

/// The faults of sketches under rules that compare clients: each cell of a sketch is a random sum of values.
fn sketches(set: &UpdateSet, comparer: &Comparer) -> Vec<(usize, Fault)> {
    let sketches = set.clients.iter().enumerate().filter(|(_, client)| sketched(&client.model).is_some());
    let fault = |(i, client): (usize, &Client)| {
        let refuser = comparer.refuses_sketches.map(str::to_owned);
        Some((i, Fault::SketchUnderRule { rule: refuser.or_else(|| (comparer.of)(&client.id))? }))
    };
    sketches.filter_map(fault).collect()
}

/// The faults of updates in which the client chose the values to send, under rules that compare clients.
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
            Sparsity::Own { codec, fraction } if is_own_choice(&sparsity) => {
                Some((i, Fault::OwnChoice { codec, percent: 100.0 * fraction, rule }))
            }
            Sparsity::Shared { codec, mark } if Some(mark) != most => {
                Some((i, Fault::OtherChoice { codec, rule }))
            }
            Sparsity::Own { .. } | Sparsity::Shared { .. } | Sparsity::Dense => None,
        })
        .collect()
}
