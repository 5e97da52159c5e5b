//! Whole merges from files to file, in this process.

use super::BenchError;
use super::sampling::{Sample, timed};
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::run::run;
use crate::engine::backend::request::{BackendName, BackendRequest};
use crate::engine::decide::method::Method;
use crate::engine::passes::machine::Machine;
use crate::gpu::Gpu;
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::lanes::Isa;
use crate::rules;
use crate::settings::Definition;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::Report;
use rayon::ThreadPool;
use std::sync::Arc;
use std::time::Duration;

/// The share of hostile clients for rules that need `--byzantine`.
const BYZANTINE: &str = "0.2";

/// The side on which a merge computes.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// The CPU.
    Cpu,
    /// A device.
    Gpu(&'a Arc<Gpu>),
}

/// Merges updates by a rule once. The time on a device includes opening it, as in a real merge.
///
/// # Errors
///
/// When the updates cannot be merged.
pub fn merge(
    rule: &str,
    updates: &SyntheticUpdates,
    side: Side,
    isa: Isa,
    pool: &ThreadPool,
) -> Result<Sample, BenchError> {
    let request = Request { backend: backend(side), ..request(rule, updates)? };
    let progress = Progress::hidden();
    let machine = Machine::new(isa, pool, &progress);
    let (total, report) = timed(|| run(request, machine));
    Ok(Sample { compute: Some(computed(&report?)), ..Sample::whole(total) })
}

/// The time of a merge that was spent on computing.
pub(super) fn computed(report: &Report) -> Duration {
    let timings = &report.timings;
    Duration::from_secs_f64((timings.first_compute_s + timings.compute_s).max(0.0))
}

/// The side as the backend of a request.
pub(super) fn backend(side: Side) -> BackendRequest {
    match side {
        Side::Cpu => BackendRequest::new(BackendName::Cpu),
        Side::Gpu(gpu) => {
            BackendRequest { options: gpu.options().clone(), ..BackendRequest::new(BackendName::Gpu) }
        }
    }
}

fn request(rule: &str, updates: &SyntheticUpdates) -> Result<Request, BenchError> {
    let rule = rules::parse(rule, Definition::Paper)?;
    let byzantine = rule.uses_byzantine().then(|| BYZANTINE.parse().ok()).flatten();
    let method = Method { byzantine, ..Method::new(rule) };
    Ok(Request::new(vec![updates.updates().to_owned()], method, updates.output()))
}
