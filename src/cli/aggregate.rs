//! `fedmill aggregate`: merge client updates into one model.

use super::aggregation::{Outputs, RoundOptions, Telling, ended};
use super::{BackendName, Common, Failure, Outcome};
use crate::engine::aggregate::request::Job;
use crate::modes::dp::release::Private;
use crate::modes::tiers::file::Tiers;
use clap::Args;
use std::path::PathBuf;

/// Merge client updates into one model.
///
/// Prints the path of the merged model. With --base, updates are checked against the base's tensors and the
/// merged model has its layout; without, the layout that most updates share is the reference.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    round: RoundOptions,
    /// Merge tiers of clients each by a rule of its own, and then the tiers by weight, as this file says (JSON).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rule", "pre", "byzantine", "shadow_rules", "metrics"])]
    tiers: Option<PathBuf>,
    #[command(flatten)]
    telling: Telling,
    /// Write a partial, for an aggregator above to merge, instead of a model: for mean, or trimmed-mean:cut=N with
    /// N a count. docs/hierarchy.md tells how.
    #[arg(long)]
    partial: bool,
    /// Release the mean with differential privacy, charged to the budget in this state directory, which
    /// `fedmill privacy init` makes. Bad updates count as zero. docs/privacy.md tells what that protects.
    #[arg(long, value_name = "DIR", requires = "base", conflicts_with_all = ["weights", "explain"])]
    dp: Option<PathBuf>,
    /// Keep the key of the noise until the model is published, so that a run that is cut off can be made again for the
    /// same bytes without another charge.
    #[arg(long, requires = "dp")]
    resumable: bool,
    /// Make the noise from this number, for tests: the model is NOT private then.
    #[arg(long, value_name = "N", requires = "dp")]
    test_seed: Option<u64>,
    /// Tell how long CPU and GPU are predicted to take, and what was chosen.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    outputs: Outputs,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let pool = common.pool()?;
        let report = self.job(common)?.run(&pool, &common.progress());
        ended(report.map(|report| report.output.map_or_else(String::new, |output| output.path)))
    }

    fn job(&self, common: &Common) -> Result<Job, Failure> {
        let has_report = self.outputs.report.is_some();
        self.telling.check(has_report)?;
        let (metrics, shadow) = (self.telling.metrics(has_report), self.telling.shadow());
        let job = self.round.job(common, &self.outputs.output, metrics, &shadow)?;
        Ok(Job {
            tiers: self.tiers(common)?,
            other_inputs: job.other_inputs.iter().chain(&self.tiers).cloned().collect(),
            partial: self.partial,
            private: self.private(),
            backend: common.backend(self.explain),
            ..self.outputs.of(job)
        })
    }

    /// How the round is released under a budget, if it is.
    fn private(&self) -> Option<Private> {
        let directory = self.dp.clone()?;
        let (resumable, test_seed) = (self.resumable, self.test_seed);
        Some(Private { directory, resumable, test_seed, sums: Vec::new() })
    }

    /// The tiers, if there are any. Their clients are all measured for the report, or none.
    fn tiers(&self, common: &Common) -> Result<Option<Tiers>, Failure> {
        let Some(path) = &self.tiers else { return Ok(None) };
        if common.backend == BackendName::Gpu {
            let why = anyhow::anyhow!("--backend gpu: tiers are merged on the CPU, expected auto or cpu");
            return Err(why.into());
        }
        let mut tiers = Tiers::read(path, |tier| self.round.tier(tier))?;
        if self.outputs.report.is_some() {
            tiers.measure_alike();
        }
        Ok(Some(tiers))
    }
}
