//! Whole merges from files to file, in this process.

use super::BenchError;
use super::sampling::{Sample, timed};
use crate::engine::aggregate::request::{Job, OnBadUpdate};
use crate::engine::backend::choose::{Asked, Backend};
use crate::engine::decide::judge::{Aggregation, MetricsWanted};
use crate::engine::intake::admit::Expectations;
use crate::engine::intake::weights::Weighting;
use crate::engine::passes::geometry::Distances;
use crate::gpu::Gpu;
use crate::gpu::job::Options;
use crate::io::synthetic::SyntheticUpdates;
use crate::kernels::lanes::Isa;
use crate::rules::{self, Rule};
use crate::settings::Definition;
use crate::strategies;
use crate::telemetry::progress::Progress;
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
    let job = Job { backend: backend(side), ..job(rule, updates, isa)? };
    let (total, report) = timed(|| job.run(pool, &Progress::hidden()));
    let timings = report?.timings;
    let computed = Duration::from_secs_f64((timings.first_compute_s + timings.compute_s).max(0.0));
    Ok(Sample { compute: Some(computed), ..Sample::whole(total) })
}

fn backend(side: Side) -> Backend {
    let (asked, options) = match side {
        Side::Cpu => (Asked::Cpu, Options::default()),
        Side::Gpu(gpu) => (Asked::Gpu, gpu.options().clone()),
    };
    Backend { asked, options, calibration: None, explain: false }
}

fn job(rule: &str, updates: &SyntheticUpdates, isa: Isa) -> Result<Job, BenchError> {
    let rule = rules::parse(rule, Definition::Paper)?;
    Ok(Job {
        updates: vec![updates.updates().to_owned()],
        base: None,
        aggregation: aggregation(rule)?,
        tiers: None,
        weighting: Weighting::Default,
        min_clients: 1,
        on_bad_update: OnBadUpdate::Fail,
        expected: Expectations::default(),
        output: updates.output(),
        max_shard_bytes: None,
        report: None,
        state: None,
        partial: false,
        private: None,
        population: None,
        other_inputs: Vec::new(),
        isa,
        backend: backend(Side::Cpu),
    })
}

fn aggregation(rule: Box<dyn Rule>) -> Result<Aggregation, BenchError> {
    Ok(Aggregation {
        strategy: strategies::plain(),
        byzantine: rule.uses_byzantine().then(|| BYZANTINE.parse().ok()).flatten(),
        rule,
        pre: Vec::new(),
        shadow: Vec::new(),
        seed: 0,
        distances: Distances::Auto,
        metrics: MetricsWanted::Nothing,
    })
}
