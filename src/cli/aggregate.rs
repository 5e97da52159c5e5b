//! `fedmill aggregate`: merge client updates into one model.

use super::aggregation::{AggregationOptions, Outputs, ReportingOptions, model_path, published};
use super::{Common, Failure, Outcome};
use crate::engine::aggregate::error::{Error, Unsupported};
use crate::engine::aggregate::request::Request;
use crate::engine::passes::machine::Machine;
use crate::modes::dp::release::{self, Options};
use crate::modes::{tiers, tree};
use crate::telemetry::report::Report;
use clap::Args;
use std::path::PathBuf;

/// Merge client updates into one model.
///
/// Prints the path of the merged model. With --base, updates are checked against the base's tensors and the
/// merged model has its layout; without, the layout that most updates share is the reference.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    /// Merge tiers of clients each by a rule of its own, and then the tiers by weight, as this file says (JSON).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rule", "pre", "byzantine", "shadow_rules", "metrics"])]
    tiers: Option<PathBuf>,
    #[command(flatten)]
    reporting: ReportingOptions,
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
        let request = self.request(common)?;
        let (pool, progress) = (common.pool()?, common.progress());
        published(model_path(self.run_as(request, common.machine(&pool, &progress))))
    }

    /// Runs the mode that the options ask for.
    fn run_as(&self, mut request: Request, machine: Machine) -> Result<Report, Error> {
        let lone = [("--tiers", self.tiers.is_some()), ("--partial", self.partial)];
        if let (Some((option, _)), Some(_)) = (lone.iter().find(|(_, is_given)| *is_given), &self.dp) {
            return Err(outside_noised_sum(option).into());
        }
        request.inputs.others.extend(self.tiers.clone());
        match (&self.dp, &self.tiers) {
            (Some(directory), _) => release::run(request, &self.options(directory.clone()), machine),
            (None, Some(_)) if self.partial => Err(Unsupported::beyond_sums("--tiers").into()),
            (None, Some(path)) => {
                tiers::mode::run(request, path, |tier| self.aggregation.tier(tier), machine)
            }
            (None, None) if self.partial => tree::leaf::run(request, machine),
            (None, None) => tree::root::run(request, machine),
        }
    }

    fn request(&self, common: &Common) -> Result<Request, Failure> {
        let has_report = self.outputs.report.is_some();
        self.reporting.check(has_report)?;
        let reporting = self.aggregation.reporting(&self.reporting, has_report)?;
        let request = self.aggregation.request(common, &self.outputs.output, reporting)?;
        let outputs = self.outputs.outputs(request.outputs.state.clone());
        Ok(Request { outputs, backend: common.backend(self.explain), ..request })
    }

    /// How the run is released under a budget.
    fn options(&self, directory: PathBuf) -> Options {
        let (resumable, test_seed) = (self.resumable, self.test_seed);
        Options { resumable, test_seed, ..Options::new(directory) }
    }
}

/// The refusal of an option that combines clients in another way than the noised sum.
fn outside_noised_sum(option: &str) -> Unsupported {
    Unsupported {
        option: option.to_owned(),
        mode: Some("--dp"),
        why: "it is not part of the noised sum".to_owned(),
        hint: Some("`fedmill privacy clip` and `sum` make partial sums; the noise comes at the root"),
    }
}
