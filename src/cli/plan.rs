//! `fedmill plan`: workflows as files.
//!
//! `next` reads what the plan of the next round repeats of `fedmill aggregate`.

mod cancel;
mod diff;
mod export;
mod history;
mod lint;
mod metrics;
mod new;
pub(super) mod next;
mod render;
mod resume;
mod run;
mod schema;
mod show;
mod status;
mod task;

use super::{Common, Failure, Outcome};
use clap::Args;

/// Run a workflow that one JSON file describes.
///
/// A plan has stages, the agents that do their work, and the limits of a run.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

subcommands! {
    New: new::Arguments, reads [];
    Lint: lint::Arguments, reads [];
    Show: show::Arguments, reads [];
    Diff: diff::Arguments, reads [];
    Run: run::Arguments, reads [];
    Resume: resume::Arguments, reads [];
    Status: status::Arguments, reads [];
    Metrics: metrics::Arguments, reads [];
    Render: render::Arguments, reads [];
    Task: task::Arguments, reads [];
    History: history::Arguments, reads [];
    Export: export::Arguments, reads [];
    Cancel: cancel::Arguments, reads [];
    Schema: schema::Arguments, reads [];
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        self.command.run(common)
    }
}
