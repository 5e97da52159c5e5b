//! The work of a run as a forecast needs it, and the backend that it leads to.

use crate::engine::aggregate::request::Request;
use crate::engine::backend::calibration::Host;
use crate::engine::backend::choose::{Choice, choose};
use crate::engine::backend::forecast::{GeometryWork, Merge, Reduced, Work};
use crate::engine::decide::method::Method;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::gpu_ring;
use crate::gpu::job::GpuError;
use crate::rules::{self, Distances, Needs, OrderStatistic, Reduction, Statistics};
use crate::updates::set::UpdateSet;

/// Chooses the backend of a run. A mode with another second pass than the rule's names its `reduction`.
///
/// # Errors
///
/// When the operator asks for a GPU that cannot be used.
pub(super) fn choice(
    taken: &Taken,
    request: &Request,
    statistics: &Statistics,
    host: &Host,
    reduction: Option<Reduced>,
) -> Result<Choice, GpuError> {
    let mut work = work(&taken.set, request, statistics);
    work.merge.reduction = reduction.unwrap_or(work.merge.reduction);
    // A GPU makes noise for tensors of any dtype.
    let has_gpu_work = reduction == Some(Reduced::NoisedSum) || !gpu_ring::shares(&taken.set).is_empty();
    choose(&request.backend, &work, host, has_gpu_work)
}

/// The work that merging a set takes.
fn work(set: &UpdateSet, request: &Request, statistics: &Statistics) -> Work {
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
        value_bytes: (set.data_bytes() / (clients.max(1) * parameters) as u64).max(1) as usize,
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
