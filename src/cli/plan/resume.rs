//! `fedmill plan resume`: goes on with a run.

use super::super::{Common, Failure, INPUTS, Outcome};
use super::run::{Jobs, run};
use crate::plan::run::prepare::{Place, kept};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Go on with a run: finished stages stay finished, failed ones are tried again.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the run.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    #[command(flatten)]
    jobs: Jobs,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (plan, base) = kept(&self.dir).map_err(Failure::of)?;
        let place = Place { root: self.dir.clone(), base, named: BTreeMap::new() };
        run(&plan, &place, &self.jobs, common)
    }
}
