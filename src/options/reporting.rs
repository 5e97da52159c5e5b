//! The options for what a report holds beyond the account of the run.
//!
//! And the line that ends a merge.

use super::OUTPUT;
use super::aggregation::rule_text;
use super::failure::Failure;
use crate::engine::decide::method::MetricsRequest;
use crate::settings::split_list;
use crate::telemetry::console::RESULT;
use crate::telemetry::report::Report;
use clap::{Args, ValueEnum};

/// Tells of a merge in one line on standard error.
pub(crate) fn tell_merged(report: &Report, has_report: bool) {
    tracing::info!(target: RESULT, "{}", report.summary(has_report));
}

/// What the report holds beyond the account of the run.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(crate) struct ReportingOptions {
    /// Add to the report which clients these rules would have kept.
    #[arg(long, value_name = "RULES", value_parser = shadow_text)]
    shadow_rules: Option<String>,
    /// The metrics of the whole round that the report holds [default: geometry for up to 1024 clients].
    #[arg(long, value_name = "WHICH")]
    metrics: Option<Metrics>,
}

/// The metrics of the whole round that the report holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Metrics {
    None,
    /// Coherence, alignment, signal fraction, noise scale, effective rank, clusters, influence.
    Geometry,
    /// The metrics of geometry, and sign agreement.
    Signs,
}

impl ReportingOptions {
    /// Refuses options that need a report if there is none.
    pub(crate) fn check(&self, has_report: bool) -> Result<(), Failure> {
        let given = [self.shadow_rules.as_ref().map(|_| "--shadow-rules"), self.metrics.map(|_| "--metrics")];
        match given.into_iter().flatten().next() {
            Some(option) if !has_report => {
                Err(anyhow::anyhow!("{option} adds to the report, expected --report FILE").into())
            }
            _ => Ok(()),
        }
    }

    /// The metrics to measure.
    pub(crate) fn metrics(&self, has_report: bool) -> MetricsRequest {
        match self.metrics {
            None if has_report => MetricsRequest::IfFew,
            None | Some(Metrics::None) => MetricsRequest::Nothing,
            Some(Metrics::Geometry) => MetricsRequest::Geometry,
            Some(Metrics::Signs) => MetricsRequest::GeometryAndSigns,
        }
    }

    /// Specs of the shadow rules: the run reports their decisions and does not follow them.
    pub(crate) fn shadow(&self) -> Vec<String> {
        self.shadow_rules.as_deref().map(split_list).unwrap_or_default()
    }
}

fn shadow_text(text: &str) -> Result<String, String> {
    split_list(text).iter().try_for_each(|rule| rule_text(rule).map(drop)).map(|()| text.to_owned())
}
