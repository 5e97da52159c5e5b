//! `fedmill plan resume`: goes on with a run.

use super::super::{Common, Failure, INPUTS, Outcome};
use super::run::{Uses, run};
use crate::plan::run::claim::{self, Holds};
use crate::plan::run::error::RunError;
use crate::plan::run::given::given;
use crate::plan::run::prepare::Place;
use clap::Args;
use std::path::PathBuf;

/// Go on with a run: finished stages stay finished, failed ones are tried again.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the run.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// Say what came of a `once` stage whose attempt a crash interrupted: done, or again. May be repeated.
    #[arg(long, value_name = "STAGE=done|again", value_parser = settled, help_heading = INPUTS)]
    settle: Vec<(String, bool)>,
    #[command(flatten)]
    uses: Uses,
}

pub(super) fn settled(text: &str) -> Result<(String, bool), String> {
    match text.rsplit_once('=') {
        Some((stage, "done")) => Ok((stage.to_owned(), true)),
        Some((stage, "again")) => Ok((stage.to_owned(), false)),
        _ => Err(format!("found `{text}`, expected STAGE=done or STAGE=again")),
    }
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if let Holds::Task(above) = claim::of(&self.dir) {
            return Err(Failure::of(RunError::OfRendered { path: self.dir.clone(), above }));
        }
        let (plan, base, _) = claim::read_run(&self.dir).map_err(Failure::of)?;
        let place = Place { root: self.dir.clone(), base, named: given(&self.dir), ..Place::default() };
        run(&plan, &place, &self.settle, &self.uses, common)
    }
}
