//! `fedmill secagg simulate`: a rehearsal in one folder.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::keygen::SuiteOption;
use super::party::SessionOption;
use super::terms::{TERMS, TermOptions};
use crate::io::discover;
use crate::modes::secure::simulate::{self, Rehearsal};
use clap::Args;
use std::path::PathBuf;

/// Play every role of a session over your updates, with clients and helpers that drop out.
///
/// Prints the path of the mean. The folder SESSION keeps all messages, for `verify`. All keys are new, and one process
/// holds them: what it plays is not secret.
#[derive(Args, Debug)]
#[command(next_help_heading = TERMS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    session: SessionOption,
    /// Updates, one of each client: files or folders.
    #[arg(value_name = "UPDATE", help_heading = INPUTS, required = true)]
    updates: Vec<PathBuf>,
    #[command(flatten)]
    terms: TermOptions,
    /// The number of helpers.
    #[arg(long, value_name = "K", default_value_t = 5)]
    helpers: usize,
    /// How clients seal seeds: x25519 or x-wing.
    #[arg(long, value_name = "SUITE", default_value = "x25519", hide_possible_values = true)]
    suite: SuiteOption,
    /// The number of clients that do not send.
    #[arg(long, value_name = "N", default_value_t = 0)]
    drop_clients: usize,
    /// The number of helpers that do not answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    drop_helpers: usize,
    /// The seed that chooses who drops out.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the mean to this path; of a session of several groups, the means to this folder.
    #[arg(long, short, value_name = "OUTPUT", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        common.refuse_gpu("secagg simulate")?;
        let rehearsal = Rehearsal {
            terms: self.terms.options(None)?,
            suite: self.suite.into(),
            updates: discover::updates(&self.updates, false)?,
            helpers: self.helpers,
            drop_clients: self.drop_clients,
            drop_helpers: self.drop_helpers,
            seed: self.seed,
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = || common.machine(&pool, &progress);
        let folder = self.session.folder();
        let done = simulate::run(folder.path(), &rehearsal, &self.output, &machine).map_err(Failure::of)?;
        done.means.iter().for_each(|path| print_path(path));
        Ok(Outcome::Done)
    }
}
