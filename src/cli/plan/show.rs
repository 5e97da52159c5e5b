//! `fedmill plan show`: a picture of a plan.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::run::base_of;
use crate::plan::run::claim::read_run;
use crate::plan::{nested, read};
use crate::review::show::picture::Picture;
use crate::review::show::{commands, dot, json, mermaid, tree};
use crate::schema::Plan;
use crate::telemetry::escape::escaped;
use crate::watch::rest::seconds;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Draw a plan without running it.
///
/// The critical path is the chain of stages that takes longest. Each stage counts as 1, or with --dir as the seconds that
/// it took in a run.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "PLAN", help_heading = INPUTS)]
    plan: PathBuf,
    /// Take the seconds of stages from the run in this directory.
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    dir: Option<PathBuf>,
    /// How to draw the plan.
    #[arg(long, value_enum, default_value_t = Format::Tree, help_heading = OUTPUT)]
    format: Format,
    /// List what a run would execute instead: command lines, addresses, hosts, and variables that commands inherit.
    #[arg(long, conflicts_with_all = ["format", "dir"], help_heading = OUTPUT)]
    commands: bool,
}

/// How to draw a plan.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Format {
    /// A tree, for a terminal.
    Tree,
    /// The language of Graphviz.
    Dot,
    /// A flowchart in the language of Mermaid.
    Mermaid,
    /// One JSON object.
    Json,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let plan = read::plan(&self.plan).map_err(Failure::of)?;
        if self.commands {
            let inner = nested::all(&plan, &base_of(&self.plan), self.plan.file_name().map(Path::new));
            let inner = inner.map_err(|(at, why)| anyhow::anyhow!("{}: {at}: {why}", self.plan.display()))?;
            let mut text = commands::list(&plan);
            for inner in inner {
                text += &format!("\n{}:\n{}", inner.file.display(), commands::list(&inner.plan));
            }
            print(&lines(&text))?;
            return Ok(Outcome::Done);
        }
        let costs = self.dir.as_ref().map(|dir| costs(&plan, dir)).transpose()?;
        let picture = Picture::of(&plan, costs)
            .map_err(|cycle| anyhow::anyhow!("{}: $.stages: found {cycle}", self.plan.display()))?;
        let text = match self.format {
            Format::Tree => lines(&tree::draw(&picture)),
            Format::Dot => dot::draw(&picture),
            Format::Mermaid => mermaid::draw(&picture),
            Format::Json => json::draw(&picture),
        };
        print(&text)?;
        Ok(Outcome::Done)
    }
}

/// The seconds of each stage in a run of the same stages.
fn costs(plan: &Plan, dir: &std::path::Path) -> Result<Vec<f64>, Failure> {
    let (kept, _, journal) = read_run(dir).map_err(Failure::of)?;
    let measured = seconds(&kept, &journal.events()).map_err(Failure::of)?;
    let of = |stage: &crate::schema::stage::Stage| measured.get(stage.id.as_str()).copied().unwrap_or(0.0);
    Ok(plan.stages.iter().map(of).collect())
}

/// Lines that cannot act on a terminal.
fn lines(text: &str) -> String {
    text.lines().map(|line| escaped(line).into_owned() + "\n").collect()
}
