//! The work of a run as a forecast needs it, before the run reads any values.

use crate::engine::aggregate::request::Request;
use crate::engine::backend::forecast::{GeometryWork, Merge, Reduced, Work};
use crate::engine::decide::method::Method;
use crate::rules::{self, Distances, Needs, OrderStatistic, Reduction, Statistics};
use crate::updates::set::UpdateSet;

/// The work that merging a set takes.
pub(super) fn work(set: &UpdateSet, request: &Request, statistics: &Statistics) -> Work {
    let Request { method, reporting, .. } = request;
    let clients = set.clients.len();
    let parameters = set.layout.parameters().max(1);
    let reduction = reduction(method, statistics);
    let mixes = !method.pre.is_empty() && reduction != Reduced::WeightedSum;
    let geometry = GeometryWork {
        rows: clients,
        points: clients + 1,
        mixed: false,
        differences: method.distances.resolved(clients) == Distances::Direct,
    };
    Work {
        clients,
        parameters,
        value_bytes: (set.data_bytes() / (clients * parameters) as u64).max(1) as usize,
        geometry: if reporting.measures(method, clients) { vec![geometry] } else { Vec::new() },
        merge: Merge { clients, mixtures: mixes.then_some(clients), reduction },
    }
}

/// The reduction of the second pass: rules that judge clients end in a sum of them.
fn reduction(method: &Method, statistics: &Statistics) -> Reduced {
    let rule = method.rule.as_ref();
    if rule.needs() > Needs::Nothing {
        return Reduced::WeightedSum;
    }
    match rules::decide(rule, statistics).map(|decision| decision.recipe.reduction) {
        Ok(Reduction::Select(OrderStatistic::Median)) => Reduced::Median,
        Ok(Reduction::Select(OrderStatistic::TrimmedMean { .. })) => Reduced::TrimmedMean,
        Ok(Reduction::Select(OrderStatistic::MeanNearMedian { .. })) => Reduced::MeanNearMedian,
        _ => Reduced::WeightedSum,
    }
}
