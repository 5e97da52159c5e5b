//! `fedmill plan render`: a plan for Slurm or Snakemake.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_account};
use super::run::{Jobs, base_of, files_of, named};
use crate::io::collision;
use crate::io::folder::readers::Readers;
use crate::plan::read;
use crate::plan::run::prepare::Place;
use crate::review::lint::report::refuse_errors;
use crate::review::render::loss::{Level, Report, Target, losses, text};
use crate::review::render::{File, slurm, snakemake};
use crate::tasks::folder::prepare;
use crate::watch::export::check_outside;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Make a directory from which another program runs a plan.
///
/// The directory has a script for each stage, which runs `fedmill plan task`, and a script for bash that starts all:
/// `submit.sh` for Slurm, `run.sh` for Snakemake. Prints what of the plan the program does in another way, and writes it
/// to report.txt and report.json. If something is lost, the command refuses with exit status 1.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "PLAN", help_heading = INPUTS)]
    plan: PathBuf,
    /// The program that runs the plan.
    #[arg(long, value_enum, help_heading = OUTPUT)]
    target: Program,
    /// The directory; all machines that run tasks must see it under the same path.
    #[arg(short, long, value_name = "DIR", help_heading = OUTPUT)]
    output: PathBuf,
    /// Make the directory even if something of the plan is lost.
    #[arg(long, help_heading = OUTPUT)]
    lossy: bool,
    /// Print the report as one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Read an input of the plan from a file or folder elsewhere. May be repeated.
    #[arg(long = "input", value_name = "NAME=PATH", value_parser = named, help_heading = INPUTS)]
    inputs: Vec<(String, PathBuf)>,
    #[command(flatten)]
    jobs: Jobs,
}

/// A program that runs plans.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Program {
    /// Slurm: batch scripts, arrays and dependencies.
    Slurm,
    /// Snakemake: a Snakefile.
    Snakemake,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let (plan, source) = read::with_text(&self.plan).map_err(Failure::of)?;
        refuse_errors(&plan, &source, &self.plan).map_err(Failure::of)?;
        check_outside(&self.output).map_err(Failure::of)?;
        let named = files_of(&self.inputs);
        let readers = Readers::of(&self.plan);
        let (root, base) = (self.output.clone(), base_of(&self.plan));
        let place = Place { root, base, named, readers, ..Place::default() };
        let target = match self.target {
            Program::Slurm => Target::Slurm,
            Program::Snakemake => Target::Snakemake,
        };
        let shared = prepare(&plan, &place, self.jobs.number()).map_err(Failure::of)?;
        let (tasks, losses) = (shared.units.tasks(), losses(&plan, &shared.units, target));
        let report =
            Report { schema: "fedmill.render/1", plan: &shared.digest, target, tasks, losses: &losses };
        let json = serde_json::to_string_pretty(&report)? + "\n";
        let text = text(target, tasks, &losses);
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let mut files = vec![file("report.json", &json), file("report.txt", &text)];
        let lost = losses.iter().filter(|loss| loss.level == Level::Lost).count();
        let refused = lost > 0 && !self.lossy;
        if !refused {
            files.extend(match target {
                Target::Slurm => slurm::files(&plan, &shared.units),
                Target::Snakemake => snakemake::files(&plan, &shared.units),
            });
        }
        files.iter().try_for_each(|file| write(&self.output, file))?;
        print_account(if self.json { &json } else { &text });
        if refused {
            let why = format!(
                "{target} loses {lost} of the plan's settings; --lossy renders the plan without them"
            );
            return Ok(Outcome::Refused(why));
        }
        Ok(Outcome::Done)
    }
}

fn write(root: &Path, file: &File) -> Result<(), Failure> {
    let path = root.join(&file.path);
    Ok(collision::write_output(&path, file.text.as_bytes())?)
}
