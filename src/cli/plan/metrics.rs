//! `fedmill plan metrics`: numbers of a round or a run as a whole.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::measures::series::Sensitivity;
use crate::watch::numbers::{Numbers, Settings};
use clap::Args;
use std::path::PathBuf;

/// Compute numbers that describe a round or a run as a whole.
///
/// Takes shard files of `fedmill gram`, a report or a decision, the directory of a run, or JSON with `gram`, `weights`,
/// `clients`, `series`, `merged` and `alone`. A stage whose output is this command's --json has the numbers as metrics
/// for conditions. docs/metrics.md has the formulas.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Where the numbers come from; all shard files of one run together. `-` is JSON on standard input.
    #[arg(value_name = "SOURCE", required = true, help_heading = INPUTS)]
    sources: Vec<PathBuf>,
    /// In scores, less is better.
    #[arg(long, help_heading = INPUTS)]
    minimize: bool,
    /// Look at the last N values of each series.
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    window: Option<usize>,
    /// The change of a series' mean that does not count, in standard deviations of its noise.
    #[arg(long, value_name = "S", default_value_t = Sensitivity::default().drift, help_heading = INPUTS)]
    drift: f64,
    /// The sum of changes beyond the drift at which a series rose or fell, in standard deviations of its noise.
    #[arg(long, value_name = "S", default_value_t = Sensitivity::default().threshold, help_heading = INPUTS)]
    threshold: f64,
    /// Print one JSON object, whose numbers a plan can take as metrics.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let Self { minimize, window, drift, threshold, .. } = *self;
        if ![drift, threshold].iter().all(|number| *number >= 0.0 && number.is_finite()) {
            let found = format!("found --drift {drift} and --threshold {threshold}");
            return Err(anyhow::anyhow!("{found}, expected two numbers from 0 on").into());
        }
        let settings = Settings { minimize, window, sensitivity: Sensitivity { drift, threshold } };
        let numbers = Numbers::of(&self.sources, settings).map_err(Failure::of)?;
        print(&if self.json { format!("{}\n", numbers.json()) } else { numbers.table() })?;
        Ok(Outcome::Done)
    }
}
