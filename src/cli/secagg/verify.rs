//! `fedmill secagg verify`: audits a session.

use super::super::{Common, Failure, Outcome, print};
use super::party::{SessionOption, machine};
use crate::modes::secure::verify::{self, Finding};
use clap::Args;

/// Audit a session: every signature and digest, the masked sum, the answers and the sums, computed again.
///
/// Prints a line for each check. The exit status is 2 if a check fails. Anyone who can read the folder may run it.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    session: SessionOption,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = machine(common, &pool, &progress)?;
        let folder = self.session.folder();
        let found = verify::run(&folder, &machine).map_err(Failure::of)?;
        print(&found.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
        let faults: Vec<&Finding> = found.iter().filter(|finding| finding.fault.is_some()).collect();
        let Some(first) = faults.first() else { return Ok(Outcome::Done) };
        let (path, count) = (folder.path().display().to_string(), faults.len());
        let (what, fault) = (&first.what, first.fault.as_deref().unwrap_or_default());
        Err(anyhow::anyhow!("{path}: found {count} faults, expected none: {what}: {fault}").into())
    }
}
