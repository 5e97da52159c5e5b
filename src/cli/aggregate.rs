//! `fedmill aggregate`: merge client updates into one model.

use super::plan::next::repeated;
use super::privacy::vector::StatisticsChoice;
use super::rates;
use super::{Common, Failure, INPUTS, OUTPUT, Outcome, PRIVACY, RULE};
use crate::bench::verdicts;
use crate::engine::aggregate::error::{Error, Unsupported};
use crate::engine::aggregate::request::{Inputs, Outputs, Plot, Readers, Request};
use crate::engine::decide::method::MetricsRequest;
use crate::engine::intake::policy::Missing;
use crate::engine::passes::machine::Machine;
use crate::modes::dp::release::{self, Options};
use crate::modes::{gaps, tiers, tree};
use crate::options::aggregation::{self, AggregationOptions, model_path, published};
use crate::options::reporting::{ReportingOptions, tell_merged};
use crate::telemetry::report::Report;
use crate::templates::next;
use clap::Args;
use std::path::{Path, PathBuf};

/// Merge client updates into one model.
///
/// Prints the path of the merged model. With --base, every update must have the base's tensors, and the merged model
/// has the base's layout. Without --base, the layout that most updates share is the reference.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    aggregation: AggregationOptions,
    /// Partials of a tree that `--partial` wrote: files, or directories of them.
    ///
    /// Only these files are read as partials. With them UPDATE may be absent. See docs/hierarchy.md.
    #[arg(long, value_name = "PARTIAL", help_heading = INPUTS, num_args = 1..)]
    partials: Vec<PathBuf>,
    /// Merge clients in tiers that FILE (JSON) defines: each tier by its rule, then the tiers by weight.
    #[arg(long, value_name = "FILE", help_heading = RULE, conflicts_with_all = ["rule", "pre", "byzantine", "shadow_rules", "metrics"])]
    tiers: Option<PathBuf>,
    /// Release the mean with differential privacy, and charge the budget in the state directory DIR.
    ///
    /// `fedmill privacy init` creates the directory. Bad updates count as zero. docs/privacy.md explains the guarantee.
    #[arg(long, value_name = "DIR", help_heading = PRIVACY, requires = "base", conflicts_with_all = ["weights", "explain"])]
    dp: Option<PathBuf>,
    /// Has no effect any more: every release keeps its noise key on disk until its outputs are published.
    #[arg(long, help_heading = PRIVACY, requires = "dp", hide = true)]
    resumable: bool,
    /// Release noise alone if no update counts.
    ///
    /// Without it, a round without updates is refused. Pass it where the cohort must stay hidden.
    #[arg(long, help_heading = PRIVACY, requires = "dp")]
    allow_empty: bool,
    /// Release the same updates once more, with other noise and at full cost, if their model was lost.
    ///
    /// Without it, a round that was paid for is not charged again: its model is used, or the run is refused.
    #[arg(long, help_heading = PRIVACY, requires = "dp")]
    release_again: bool,
    /// Draw the noise from the seed N, for tests. The model is then NOT private.
    #[arg(long, value_name = "N", help_heading = PRIVACY, requires = "dp")]
    test_seed: Option<u64>,
    /// Write what the report says about single clients under --dp too. It has no noise: keep it private.
    #[arg(long, help_heading = PRIVACY, requires = "dp", requires = "report")]
    report_clients: bool,
    /// Under --dp, keep the base's running means and variances, or release them as coordinates of each update [default:
    /// keep].
    #[arg(long, value_name = "WHICH", help_heading = PRIVACY, requires = "dp")]
    dp_statistics: Option<StatisticsChoice>,
    #[command(flatten)]
    reporting: ReportingOptions,
    /// Add to the metrics how far the largest values of two clients lie in the same places: SHARE of all values, such as
    /// 0.01.
    ///
    /// Reads each update four more times. docs/metrics.md has the formula.
    #[arg(long, value_name = "SHARE", help_heading = OUTPUT, value_parser = share, requires = "report", conflicts_with_all = ["dp", "tiers", "partial", "partials"])]
    overlap: Option<f64>,
    /// Write a partial instead of a model, for an aggregator above to merge.
    ///
    /// Works with mean, and with trimmed-mean:cut=N for a count N. See docs/hierarchy.md.
    #[arg(long, help_heading = OUTPUT)]
    partial: bool,
    /// Print the forecast times of the CPU and the GPU, and which of them the run uses.
    #[arg(long, help_heading = OUTPUT)]
    explain: bool,
    /// Draw who was kept to FILE, as SVG or PNG by its suffix: a mark for each client, in order of the rule's
    /// scores. `-` is SVG on standard output.
    ///
    /// A rule without scores has the clients' shares of the model there, or their norms. docs/aggregate.md explains the
    /// plot.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with_all = ["dp", "tiers", "partial"])]
    plot: Option<PathBuf>,
    /// Write the plan of the next round to FILE, for `fedmill plan run`: this command on the updates that then lie where
    /// this round's lie, from the merged model.
    ///
    /// With `-` standard output has the plan, for the working directory. The plan pins the merged model and the files of
    /// settings by their digests, counts --seed and --round up, and has the budget of --dp as its limit. All these files
    /// must lie below the folder of FILE.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, conflicts_with_all = ["partial", "partials", "files_from", "max_shard_size"])]
    plan_out: Option<PathBuf>,
    #[command(flatten)]
    outputs: aggregation::Outputs,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let output = &self.outputs.output;
        let next = match &self.plan_out {
            Some(plan) => Some(next::Aggregate::of(&repeated()?, plan, output)?),
            None => None,
        };
        let done = self.merge(common)?;
        if let (Some(next), Outcome::Done) = (next, &done) {
            // The model has its name: what fails now changes nothing about it.
            if let Err(why) = next.write(output) {
                tracing::warn!("{}", Failure::from(why).message());
            }
        }
        Ok(done)
    }

    fn merge(&self, common: &Common) -> Result<Outcome, Failure> {
        let readers = match self.dp {
            None => Readers::All,
            Some(_) => Readers::Owner { of_clients: self.report_clients },
        };
        self.outputs.reporting(self.aggregation.state.as_ref(), readers, || {
            let request = self.request(common)?;
            let (pool, progress) = (common.pool()?, common.progress());
            let done = self.run_as(request, common.machine(&pool, &progress));
            if let (Ok(report), false) = (&done, self.partial) {
                tell_merged(report, self.outputs.report.is_some());
            }
            published(model_path(done))
        })
    }

    /// Runs the mode that the options ask for.
    fn run_as(&self, mut request: Request, machine: Machine) -> Result<Report, Error> {
        let has_partials = !self.partials.is_empty();
        let lone =
            [("--tiers", self.tiers.is_some()), ("--partial", self.partial), ("--partials", has_partials)];
        if let (Some((option, _)), Some(_)) = (lone.iter().find(|(_, is_given)| *is_given), &self.dp) {
            return Err(outside_noised_sum(option).into());
        }
        let by_presence = request.policy.tensors.missing == Missing::Present;
        let other = lone.iter().find(|(_, is_given)| *is_given).map(|(option, _)| *option);
        if let (true, Some(option)) = (by_presence, other.or(self.dp.as_ref().map(|_| "--dp"))) {
            return Err(beside_present(option).into());
        }
        request.inputs.others.extend(self.tiers.clone());
        match (&self.dp, &self.tiers) {
            (Some(directory), _) => release::run(request, &self.options(directory.clone()), machine),
            (None, Some(_)) if self.partial || has_partials => {
                Err(Unsupported::beyond_sums("--tiers").into())
            }
            (None, Some(path)) => {
                tiers::mode::run(request, path, |tier| self.aggregation.tier(tier), machine)
            }
            (None, None) if by_presence => gaps::run(request, machine),
            (None, None) if self.partial => tree::leaf::run(request, machine),
            (None, None) => tree::root::run(request, machine),
        }
    }

    fn request(&self, common: &Common) -> Result<Request, Failure> {
        let has_report = self.outputs.report.is_some();
        self.reporting.check(has_report)?;
        let mut reporting = self.aggregation.reporting(&self.reporting, has_report)?;
        reporting.overlap = self.overlap;
        match reporting.metrics {
            MetricsRequest::Nothing if self.overlap.is_some() => {
                return Err(anyhow::anyhow!(
                    "found --overlap and --metrics none, expected --metrics geometry or signs"
                )
                .into());
            }
            MetricsRequest::IfFew if self.overlap.is_some() => reporting.metrics = MetricsRequest::Geometry,
            _ => {}
        }
        let request = self.aggregation.request(common, &self.outputs.output, reporting)?;
        let plot = self.plot.clone().map(|path| rates::format_of(&path).map(|_| Plot { path, draw: drawn }));
        let outputs = self.outputs.outputs(request.outputs.state.clone());
        let outputs = Outputs { plot: plot.transpose()?, ..outputs };
        let inputs = Inputs { partials: self.partials.clone(), ..request.inputs };
        Ok(Request { inputs, outputs, backend: common.backend(self.explain), ..request })
    }

    /// The options of a release that the budget in `directory` pays for.
    fn options(&self, directory: PathBuf) -> Options {
        let Self { test_seed, allow_empty, release_again, report_clients, .. } = *self;
        let statistics = self.dp_statistics.map(Into::into).unwrap_or_default();
        Options {
            test_seed,
            allow_empty,
            release_again,
            report_clients,
            statistics,
            ..Options::new(directory)
        }
    }
}

/// The picture of a report, in the format that the file's name asks for.
fn drawn(report: &Report, path: &Path) -> Result<Vec<u8>, String> {
    let format = rates::format_of(path).map_err(|failure| failure.message())?;
    verdicts::draw(report, format).map_err(|why| why.to_string())
}

/// A share of all values, above 0.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| format!("found {text}, expected a number above 0 and at most 1"))
}

/// The refusal of --missing present beside a mode whose sums have one divisor for all tensors.
fn beside_present(option: &str) -> Unsupported {
    Unsupported {
        option: "--missing present".to_owned(),
        mode: None,
        why: format!("cannot be used with {option}, whose sums are over the same clients in every tensor"),
        hint: Some("pass --missing base, under which an update stands at the base where it lacks a tensor"),
    }
}

/// The refusal of an option that --dp cannot use, because the noised sum cannot express it.
fn outside_noised_sum(option: &str) -> Unsupported {
    Unsupported {
        option: option.to_owned(),
        mode: Some("--dp"),
        why: "it is not part of the noised sum".to_owned(),
        hint: Some("`fedmill privacy clip` and `sum` make partial sums; the noise comes at the root"),
    }
}
