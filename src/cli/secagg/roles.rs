//! `fedmill secagg check`, `sum` and `help`: the steps between masked updates and their sum.

use super::super::{Common, Failure, Outcome, print_path};
use super::party::{KeyOption, PartsOptions, PartyOptions, SessionOption, machine};
use crate::modes::secure::help::Helped;
use crate::modes::secure::parts::sum::Joined;
use crate::modes::secure::{check, help, parts, sum};
use crate::parties::fault::LeftOutClient;
use crate::telemetry::console;
use clap::Args;

/// Check the seeds that clients sealed for you, as a helper.
///
/// Prints the path of your report. Run it as often as you like before the server freezes the set: the server leaves out
/// the clients that you report.
#[derive(Args, Debug)]
pub(in crate::cli) struct CheckArguments {
    #[command(flatten)]
    session: SessionOption,
    #[command(flatten)]
    key: KeyOption,
}

/// Freeze the set of clients and add up their masked updates, as the server.
///
/// Prints the path of the masked sum. The set is frozen once: clients that come later are not in it, and there is no
/// second set in a session. Several machines may add up a shard each: --shard I/S --parts DIR on every one, and then
/// --parts DIR on one.
#[derive(Args, Debug)]
pub(in crate::cli) struct SumArguments {
    #[command(flatten)]
    session: SessionOption,
    #[command(flatten)]
    party: PartyOptions,
    #[command(flatten)]
    parts: PartsOptions,
}

/// Answer for the frozen set of clients, as a helper, once in a session.
///
/// Prints the path of the answer: your share of the sum of the masks. You answer for one set of clients; the same set
/// gives the same answer again, and another one is refused. Several machines may compute a shard each: --shard I/S
/// --parts DIR on every one, and then --parts DIR on one.
#[derive(Args, Debug)]
pub(in crate::cli) struct HelpArguments {
    #[command(flatten)]
    session: SessionOption,
    #[command(flatten)]
    party: PartyOptions,
    #[command(flatten)]
    parts: PartsOptions,
}

impl CheckArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = machine(common, &pool, &progress)?;
        let (report, path) =
            check::run(&self.session.folder(), &self.key.identity()?, &machine).map_err(Failure::of)?;
        for bad in &report.bad {
            tracing::warn!("client `{}`: {}", bad.member.client, bad.fault);
        }
        for bad in &report.unsigned {
            tracing::warn!("`{}`: {}", bad.client, bad.fault);
        }
        if !common.quiet {
            console::tell(&format!("{} clients checked, {} bad", report.sound.len(), report.bad.len()));
        }
        print_path(&path);
        Ok(Outcome::Done)
    }
}

impl SumArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = machine(common, &pool, &progress)?;
        let (folder, identity) = (self.session.folder(), self.party.identity()?);
        let journal = self.party.journal();
        let summed = match self.parts.get() {
            None => sum::run(&folder, &identity, &journal, &machine).map_err(Failure::of)?,
            Some((parts, Some(shard))) => {
                let part = parts::sum::shard(&folder, &identity, &journal, (parts, shard), &machine);
                print_path(&part.map_err(Failure::of)?);
                return Ok(Outcome::Done);
            }
            Some((parts, None)) => {
                match parts::sum::join(&folder, &identity, &journal, parts, &machine).map_err(Failure::of)? {
                    Joined::Summed(summed) => summed,
                    Joined::LeftOut(faults) => return Ok(left_out(&faults)),
                }
            }
        };
        let set = &summed.frozen.set;
        for left_out in &set.left_out {
            tracing::warn!("`{}` is left out: {}", left_out.client, left_out.fault);
        }
        if !set.in_small_groups.is_empty() {
            tracing::warn!("in groups that are too small: {}", set.in_small_groups.join(", "));
        }
        if !common.quiet {
            let (found, left_out) = (set.members().count(), set.left_out.len());
            console::tell(&format!(
                "{found} clients in the sum, {left_out} left out; set {}",
                summed.frozen.digest
            ));
        }
        print_path(&summed.path);
        Ok(Outcome::Done)
    }
}

/// The end of a join that found clients with bad lanes.
fn left_out(faults: &[LeftOutClient]) -> Outcome {
    for left_out in faults {
        tracing::warn!("`{}` is left out: {}", left_out.client, left_out.fault);
    }
    let count = faults.len();
    Outcome::Waiting(format!(
        "the shards have {count} bad clients in them: run each shard again, without those"
    ))
}

impl HelpArguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = machine(common, &pool, &progress)?;
        let (folder, identity) = (self.session.folder(), self.party.identity()?);
        let journal = self.party.journal();
        let helped = match self.parts.get() {
            None => help::run(&folder, &identity, &journal, &machine),
            Some((parts, Some(shard))) => {
                parts::help::shard(&folder, &identity, &journal, (parts, shard), &machine)
            }
            Some((parts, None)) => parts::help::join(&folder, &identity, &journal, parts, &machine),
        };
        match helped.map_err(Failure::of)? {
            Helped::Answered(path) => {
                print_path(&path);
                Ok(Outcome::Done)
            }
            Helped::Waits { found, expected } => Ok(Outcome::Waiting(format!(
                "{found} helpers signed the set, expected {expected}: run help again once they did"
            ))),
        }
    }
}
