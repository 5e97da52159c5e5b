//! `fedmill secagg status`: how far a session is.

use super::super::{Common, Failure, OUTPUT, Outcome, print};
use super::party::SessionOption;
use crate::modes::secure::standing::Standing;
use clap::Args;

/// Print how far a session is: who masked, checked and answered.
///
/// Reads signatures alone; `verify` audits the lanes and sums too. Anyone who can read the folder may run it.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    session: SessionOption,
    /// Print JSON.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let folder = self.session.folder();
        let standing = Standing::of_all(&folder).map_err(Failure::of)?;
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&standing)?))?,
            false => print(&lines(&standing))?,
        }
        Ok(Outcome::Done)
    }
}

fn lines(standing: &Standing) -> String {
    let Standing { session, masked, bad, checked, frozen, is_summed, answered, helpers, threshold } =
        standing;
    let named = |ids: &[String]| match ids {
        [] => String::new(),
        ids => format!(": {}", ids.join(", ")),
    };
    let set = match frozen {
        None => "not frozen yet".to_owned(),
        Some(clients) => {
            format!("{clients} clients, {}", if *is_summed { "summed" } else { "not summed yet" })
        }
    };
    let rows = [
        ("session", session.to_string()),
        ("masked", format!("{masked} updates")),
        ("checked", format!("{} of {helpers} helpers saw them all{}", checked.len(), named(checked))),
        ("set", set),
        (
            "answered",
            format!("{} of {helpers} helpers, {threshold} suffice{}", answered.len(), named(answered)),
        ),
    ];
    let bad = bad.iter().map(|bad| format!("{:<10} {}: {}\n", "bad file", bad.client, bad.fault));
    rows.iter().map(|(name, text)| format!("{name:<10} {text}\n")).chain(bad).collect()
}
