//! `fedmill round run`: does what the state of a federation allows.

use super::super::{Common, Failure, INPUTS, Outcome, print, print_path};
use super::directory::{config, hardware};
use super::failed;
use crate::config::Config;
use crate::io::folder;
use crate::round::drive::{self, Until, drive};
use crate::round::error::RoundError;
use crate::round::journal::Ending;
use crate::round::layout;
use crate::round::machine::{Machine, PHASES};
use crate::round::server::{Server, options};
use crate::telemetry::console;
use crate::templates::next;
use clap::Args;
use std::path::PathBuf;

/// Do what the state of a federation allows now, and exit.
///
/// Prints the path of each model that it publishes. Exit status: 0 if something was done or nothing is left, 1 if the
/// round waits or was refused, 2 for an error. cron may run it every minute; a second run at the same time ends at once.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Do what the state allows now, and exit. This is the default.
    #[arg(long, conflicts_with_all = ["rounds", "phase"])]
    once: bool,
    /// Go on until N rounds ended, and wait for updates in between.
    #[arg(long, value_name = "N", conflicts_with = "phase", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,
    /// Run this phase alone, if it is next.
    #[arg(long, value_name = "PHASE", value_parser = PHASES)]
    phase: Option<String>,
    /// Run only if the round that goes on, or else the next one, starts from the model with this BLAKE3.
    #[arg(long, value_name = "BLAKE3", conflicts_with = "dry_run")]
    only_from: Option<String>,
    /// Exit with status 0 where the round waits or another run works. Status 1 then means that a round was refused.
    #[arg(long)]
    waiting_ok: bool,
    /// Print what the command would do, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// The fewest clients of a round, in place of coordination.min_clients.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    min_clients: Option<u64>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let mut config = config(&self.directory)?;
        if let Some(least) = self.min_clients {
            config.coordination.min_clients = least;
            config.coordination.clients = config.coordination.clients.max(least);
        }
        if self.dry_run {
            return self.foresee(&config, common);
        }
        let mut server = match Server::open(&self.directory, &config, hardware(common)?) {
            // The run of the minute before still works: nothing is wrong.
            Err(why @ RoundError::Locked { .. }) => return Ok(self.waits(common, why.to_string())),
            opened => opened.map_err(Failure::of)?,
        };
        let mut begun = None;
        let done = self.drive(common, &config, &mut server, &mut begun);
        next::federation(&self.directory, &config);
        let noted = match &done {
            Err(why) if why.is_refusal || why.signal.is_some() => Ok(()),
            Err(why) => failed::note(&mut server, &options::with_keys(&why.message())),
            Ok(_) => failed::clear(&mut server),
        };
        if let Err(why) = noted {
            tracing::warn!("{why}: `fedmill round status` shows no error of this run");
        }
        match (done, begun) {
            // The round is published: what is left of it is for the next run.
            (Err(why), Some(model)) if !why.is_refusal && why.signal.is_none() => {
                tracing::warn!(
                    hint = "the next `fedmill round run` goes on there",
                    "{}: is published, and the round did not end: {}",
                    model.display(),
                    why.message()
                );
                Ok(Outcome::Done)
            }
            (done, _) => done,
        }
    }

    /// The model that the link of the federation names.
    fn current(&self) -> Option<PathBuf> {
        let target = folder::target(&self.directory.join(layout::CURRENT)).ok().flatten();
        target.map(|target| self.directory.join(target))
    }

    /// Drives the rounds as far as asked. `begun` gets the model of a round that was published and failed before its end.
    fn drive(
        &self,
        common: &Common,
        config: &Config,
        server: &mut Server,
        begun: &mut Option<PathBuf>,
    ) -> Result<Outcome, Failure> {
        let mut machine = Machine::open(server, config, &self.directory).map_err(Failure::of)?;
        machine.mend().map_err(Failure::of)?;
        if let Some(model) = &self.only_from {
            machine.check_start(model).map_err(Failure::of)?;
        }
        let until = match (&self.phase, self.rounds) {
            (Some(phase), _) => Until::Phase(phase.clone()),
            (None, Some(rounds)) => Until::Rounds(rounds),
            (None, None) => Until::Waits,
        };
        let (before, mut published) = (self.current(), Vec::new());
        let done = drive(&mut machine, &until, |phase, ending| {
            tracing::info!("{phase} done");
            match ending {
                Some(Ending::Published(version)) => {
                    published.push(self.directory.join(layout::model(&version.file.blake3)));
                }
                Some(Ending::Refused { why, .. }) => tracing::info!("the round published nothing: {why}"),
                None => {}
            }
        });
        if done.is_err() {
            let ended = published.last().or(before.as_ref());
            *begun = self.current().filter(|model| Some(model) != ended);
        }
        for model in published.iter().chain(begun.as_ref()) {
            print_path(model);
        }
        Ok(match done.map_err(Failure::of)? {
            drive::Outcome::Progressed(None) => Outcome::Done,
            drive::Outcome::Progressed(Some(why)) => {
                self.tell(common, &why);
                Outcome::Done
            }
            drive::Outcome::Finished(why) => {
                self.tell(common, &why);
                Outcome::Done
            }
            drive::Outcome::Waiting(why) => self.waits(common, why),
            drive::Outcome::Refused(why) => Outcome::Refused(why),
        })
    }

    /// The end of a run that could do nothing.
    fn waits(&self, common: &Common, why: String) -> Outcome {
        if !self.waiting_ok {
            return Outcome::Waiting(why);
        }
        self.tell(common, &format!("waiting: {why}"));
        Outcome::Done
    }

    fn tell(&self, common: &Common, text: &str) {
        if !common.quiet {
            console::tell(text);
        }
    }

    /// Prints what a run would do.
    fn foresee(&self, config: &crate::config::Config, common: &Common) -> Result<Outcome, Failure> {
        let mut server = Server::reader(&self.directory, config, hardware(common)?);
        let mut machine = Machine::open(&mut server, config, &self.directory).map_err(Failure::of)?;
        let text = machine.foresee().map_err(Failure::of)?;
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}
