//! `fedmill plan cancel`: ends a run.

use super::super::{COMMON, Common, Failure, INPUTS, OUTPUT, Outcome, print_account};
use crate::plan::run::claim::{self, Holds};
use crate::settings::duration::Friendly;
use crate::watch::cancel::cancel;
use crate::watch::rendered;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// End a run.
///
/// A live runner gets the kill file, ends its attempts and runs the stages of `on.exit`; the command waits, prints how
/// the run ended, and removes the file. If no runner works on the run, the command ends the processes that a killed
/// runner left behind and marks the run as cancelled; no stage starts. `fedmill plan resume` can go on with the run.
/// A rendered plan gets the kill file, and keeps it: the tasks that run here end, and no other starts.
///
/// Exit status: 0 if the run is over, 1 if its runner did not end in time, 2 for an error.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The directory of the run, or of a rendered plan.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    /// End the runner and its commands at once, by SIGTERM twice; no stage of `on.exit` runs.
    #[arg(long, help_heading = COMMON)]
    now: bool,
    /// The longest wait for the runner, such as 30s; by default without end.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = COMMON)]
    timeout: Option<Duration>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<Friendly>().ok().and_then(|time| Duration::try_from(time.0).ok());
    time.ok_or_else(|| format!("found `{text}`, expected a duration such as 30s, 5m or 7d"))
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let cancelled = match claim::of(&self.dir) {
            Holds::Rendered if self.now => {
                let why = "--now ends a runner on this machine by signals, and a rendered plan has none";
                let failure = Failure::from(anyhow::anyhow!("{}: {why}", self.dir.display()));
                let hint =
                    "leave out --now: the kill file ends the tasks; `scancel` ends jobs of Slurm at once";
                return Err(Failure { hint: Some(hint.to_owned()), ..failure });
            }
            Holds::Rendered => rendered::cancel(&self.dir, self.timeout),
            _ => cancel(&self.dir, self.now, self.timeout),
        };
        let cancelled = cancelled.map_err(Failure::of)?;
        if self.json {
            print_account(&format!("{}\n", serde_json::to_string(&cancelled)?));
        }
        if !cancelled.is_over {
            return Ok(Outcome::Refused(format!("{}: {}", self.dir.display(), cancelled.why)));
        }
        if !self.json {
            let why = if cancelled.why.is_empty() { String::new() } else { format!(": {}", cancelled.why) };
            let before = if cancelled.was == cancelled.state { " before" } else { "" };
            print_account(&format!("{}: {}{before}{why}\n", self.dir.display(), cancelled.state));
        }
        Ok(Outcome::Done)
    }
}
