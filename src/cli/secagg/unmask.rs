//! `fedmill secagg unmask`: the server publishes the mean.

use super::super::{Common, Failure, OUTPUT, Outcome, PRIVACY, print_path};
use super::party::{KeyOption, SessionOption, machine};
use crate::modes::secure::unmask::{self, UnmaskOptions};
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Unmask the sum and write the mean, as the server.
///
/// Prints the path of the mean: an update that `fedmill aggregate --base BASE` merges with any strategy. A session of
/// several groups has a mean for each, in the folder OUTPUT; any rule may judge them.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    session: SessionOption,
    #[command(flatten)]
    key: KeyOption,
    /// Charge the privacy budget in the state directory DIR, under which the session was opened. A session is charged once.
    #[arg(long, value_name = "DIR", help_heading = PRIVACY)]
    dp: Option<PathBuf>,
    /// Write the sums of the clients' integers to this path too, as I64 tensors.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    sums: Option<PathBuf>,
    /// Write the mean to this path; of a session of several groups, the means to this folder.
    #[arg(long, short, value_name = "OUTPUT", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = machine(common, &pool, &progress)?;
        let options =
            UnmaskOptions { output: self.output.clone(), sums: self.sums.clone(), budget: self.dp.clone() };
        let done = unmask::run(&self.session.folder(), &options, &self.key.identity()?, &machine);
        let done = done.map_err(Failure::of)?;
        if !common.quiet {
            let clients: usize = done.transcript.groups.iter().map(|group| group.clients).sum();
            let (answers, wrong) = (done.agreeing, done.transcript.wrong.len());
            console::tell(&format!("{clients} clients, {answers} answers that agree, {wrong} wrong"));
        }
        done.means.iter().for_each(|path| print_path(path));
        Ok(Outcome::Done)
    }
}
