//! `fedmill secagg mask`: a client masks its update.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::party::{PARTY, PartyOptions, SessionOption, machine};
use crate::engine::intake::policy::Policy;
use crate::modes::secure::mask::{self, MaskOptions, Masked};
use crate::parties::identity::read_identities;
use crate::parties::journal::seconds_now;
use clap::Args;
use std::path::PathBuf;

/// Mask an update, as a client, once in a session.
///
/// Prints the path of the masked update. The same update gives the same file again; another one is refused.
// `--trust` takes all that follows it up to the next option.
#[derive(Args, Debug)]
#[command(
    next_help_heading = PARTY,
    override_usage = "fedmill secagg mask [OPTIONS] --base <BASE> --key <FILE> <SESSION> <UPDATE> --trust <PUB>..."
)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    session: SessionOption,
    /// The update: a .safetensors file, or the index of a sharded one.
    #[arg(value_name = "UPDATE", help_heading = INPUTS)]
    update: PathBuf,
    /// Your own copy of the model that you started from. Its digest must be that of the manifest.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: PathBuf,
    #[command(flatten)]
    party: PartyOptions,
    /// Public keys that you got from the parties themselves, not from the session's folder: files, or folders of files
    /// that end in .pub. The server's and all helpers' must be among them.
    #[arg(long, value_name = "PUB", num_args = 1.., required = true)]
    trust: Vec<PathBuf>,
    /// Refuse if sums of fewer clients may be published.
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_cohort: usize,
    /// Refuse if fewer of the clients that may take part have keys that you trust: a server can invent clients.
    #[arg(long, value_name = "N", default_value_t = 0)]
    require_known: usize,
    /// Mask an update that you masked in another session already.
    #[arg(long)]
    allow_again: bool,
    /// Write the integers of your update to this path too, before they are masked, as I64 tensors. Keep them secret.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    integers: Option<PathBuf>,
    /// Write the masked update to this path [default: SESSION/masked/ID.safetensors].
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let options = MaskOptions {
            update: self.update.clone(),
            base: self.base.clone(),
            policy: Policy::default(),
            trusted: read_identities(&self.trust).map_err(Failure::of)?,
            min_cohort: self.min_cohort,
            require_known: self.require_known,
            allow_again: self.allow_again,
            now: seconds_now(),
            output: self.output.clone(),
            integers: self.integers.clone(),
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = machine(common, &pool, &progress)?;
        let (folder, identity) = (self.session.folder(), self.party.identity()?);
        let masked = mask::run(&folder, &options, &identity, &self.party.journal(), machine);
        let masked = masked.map_err(Failure::of)?;
        tell(&masked);
        print_path(&masked.path);
        Ok(Outcome::Done)
    }
}

/// Warns of what the grid took from the update.
fn tell(masked: &Masked) {
    if masked.clipped > 0 {
        let share = 100.0 * masked.clipped as f64 / masked.sent as f64;
        tracing::warn!("{} of {} values ({share:.2} %) were clipped", masked.clipped, masked.sent);
    }
    if let Some((norm, true)) = masked.norm {
        tracing::warn!(
            "your update has the norm {norm:.6}: it was scaled to the largest norm of the session"
        );
    }
    if masked.is_unchanged {
        tracing::warn!("your update has the values of the base: the mean takes it for a change of 0");
    }
    if let Some(other) = &masked.other_id {
        tracing::warn!(
            "the metadata of the update says that it is of client `{other}`, and you are `{}`",
            masked.client
        );
    }
    if masked.is_over_steps {
        tracing::warn!(
            "your update has more local steps than the cap of the session, which counts in their place"
        );
    }
    match masked.weight {
        Some((weight, true)) => tracing::warn!("your weight is {weight}, the cap of the session"),
        Some((0, _)) => tracing::warn!("your weight is 0: your update does not change the mean"),
        _ => {}
    }
}
