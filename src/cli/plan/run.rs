//! `fedmill plan run`: runs a plan to its end.

use super::super::{COMMON, Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::export::Exports;
use crate::cli::agents::registry::record;
use crate::io::child::jobserver::Places;
use crate::io::folder::readers::Readers;
use crate::io::publish::directory_of;
use crate::plan::read;
use crate::plan::run::disk::holder;
use crate::plan::run::drive::drive;
use crate::plan::run::event::Ending;
use crate::plan::run::prepare::{Opened, Place, open};
use crate::plan::run::publish::receipts::Earlier;
use crate::review::lint::report::refuse_errors;
use crate::schema::Plan;
use crate::telemetry::console;
use crate::telemetry::escape::escaped;
use crate::watch::directory::directory_for;
use crate::watch::export::{self, check_outside};
use crate::watch::failures::failures;
use crate::watch::results::{results, summary};
use clap::Args;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Run a plan to its end.
///
/// Nothing starts if `fedmill plan lint` finds an error. Prints the paths of the results: the outputs that no other
/// stage goes on with. Metrics are results if there are no others. If the directory holds a run of the plan that is not
/// over, the command goes on with it. Under GNU make, attempts beyond the first take places of its jobserver. Exit
/// status: 0 if every stage succeeded or was skipped, 1 if a limit, an invariant, a gate or the kill file ended the run,
/// 2 if a stage failed.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "PLAN", help_heading = INPUTS)]
    plan: PathBuf,
    /// The directory of the run; by default that of the plan with the ending `.run`, or `.DIGEST.run` if a run of another
    /// plan succeeded there.
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    dir: Option<PathBuf>,
    /// Take the results of an earlier run over where the work is the same: arguments, files, variables and agent.
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    reuse: Option<PathBuf>,
    /// Read an input of the plan from a file or folder elsewhere. May be repeated.
    #[arg(long = "input", value_name = "NAME=PATH", value_parser = named, help_heading = INPUTS)]
    inputs: Vec<(String, PathBuf)>,
    #[command(flatten)]
    uses: Uses,
}

/// How much of the machine a run may use.
#[derive(Args, Debug)]
pub(super) struct Jobs {
    /// Attempts at a time, where the plan does not say; by default the number of processors.
    #[arg(long, value_name = "N", help_heading = COMMON)]
    jobs: Option<NonZeroU32>,
}

/// What a run may use, and who learns from it.
#[derive(Args, Debug)]
pub(super) struct Uses {
    #[command(flatten)]
    jobs: Jobs,
    /// Keep what the attempts of agents came to in the registry of this state directory, and retire weak agents.
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    agents: Option<PathBuf>,
    #[command(flatten)]
    exports: Exports,
}

/// The folder of a plan, where its inputs lie.
pub(super) fn base_of(plan: &Path) -> PathBuf {
    directory_of(plan).to_owned()
}

pub(super) fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("found `{text}`, expected NAME=PATH"))?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// The files that options name for inputs.
pub(super) fn files_of(inputs: &[(String, PathBuf)]) -> BTreeMap<String, Vec<PathBuf>> {
    inputs.iter().map(|(name, path)| (name.clone(), vec![path.clone()])).collect()
}

impl Jobs {
    pub(super) fn number(&self) -> u32 {
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        self.jobs.map_or_else(processors, NonZeroU32::get)
    }
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (plan, source) = read::with_text(&self.plan).map_err(Failure::of)?;
        let warnings = refuse_errors(&plan, &source, &self.plan).map_err(Failure::of)?;
        if !common.quiet {
            warnings.iter().for_each(|warning| console::tell(&format!("warning: {}", escaped(warning))));
        }
        let root = match (&self.dir, self.plan.as_os_str() == "-") {
            (Some(dir), _) => dir.clone(),
            (None, true) => return Err(anyhow::anyhow!("a plan from standard input needs --dir").into()),
            (None, false) => directory_for(&self.plan, &read::digest(&plan), self.reuse.as_deref()),
        };
        check_outside(&root).map_err(Failure::of)?;
        let readers = Readers::of(&self.plan);
        let earlier = self.reuse.as_deref().map(|dir| Earlier::open(dir, holder));
        let earlier = earlier.transpose().map_err(Failure::of)?;
        let (base, named) = (base_of(&self.plan), files_of(&self.inputs));
        let place = Place { root, base, named, readers, earlier };
        run(&plan, &place, &[], &self.uses, common)
    }
}

/// Runs a plan, or goes on with its run.
pub(super) fn run(
    plan: &Plan,
    place: &Place,
    settled: &[(String, bool)],
    uses: &Uses,
    common: &Common,
) -> Result<Outcome, Failure> {
    if matches!(Places::of_make(), Places::One) && !common.quiet {
        console::tell(
            "MAKEFLAGS names a jobserver that cannot be opened, so that attempts run one at a time; a `+` before the \
             command in the Makefile passes it on",
        );
    }
    export::check_all(&uses.exports.files(), &place.root).map_err(Failure::of)?;
    let Opened { mut machine, mut world, inputs, finished } =
        open(plan, place, uses.jobs.number()).map_err(Failure::of)?;
    let files = inputs.values().flatten().map(|file| place.base.join(&file.path));
    export::check_inputs(&uses.exports.files(), files).map_err(Failure::of)?;
    for (stage, done) in settled {
        machine.attest(stage, *done, &mut world).map_err(Failure::of)?;
    }
    // The world ends with the work, so that the exports see no runner.
    let driven = uses.exports.of(&place.root, || drive(&mut machine, inputs, &mut { world }))?;
    let ending = driven.map_err(Failure::of)?;
    if !common.quiet {
        summary(plan, &machine).iter().for_each(|line| console::tell(line));
    }
    if let Some(time) = finished.filter(|_| !common.quiet && settled.is_empty()) {
        let dir = place.root.display();
        console::tell(&format!(
            "{dir}: the run finished at {time}, and nothing ran now; --dir names another directory for a new run"
        ));
    }
    if let Some(agents) = &uses.agents {
        record(agents, &place.root, common.quiet)?;
    }
    Ok(match ending {
        Ending::Succeeded => {
            for path in results(plan, &machine) {
                print_path(&place.root.join(path));
            }
            Outcome::Done
        }
        Ending::Refused(why) => Outcome::Refused(why),
        Ending::Failed => {
            let lines = failures(plan, &machine.state, &place.root);
            let hint = format!("`fedmill plan status {}` shows the stages", place.root.display());
            let error = anyhow::anyhow!("{}", lines.last().map_or("", String::as_str));
            return Err(Failure { hint: Some(hint), lines, ..Failure::from(error) });
        }
    })
}
