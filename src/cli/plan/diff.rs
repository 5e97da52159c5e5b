//! `fedmill plan diff`: what differs between two plans.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::plan::read;
use crate::review::diff::{Difference, diff};
use crate::telemetry::cells::Listing;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

/// Compare two plans.
///
/// Stages, loops and inputs are compared by their names. Layout, the order of keys and `x-` fields are no difference. The
/// exit status is 0, whether the plans differ or not.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The first plan.
    #[arg(value_name = "FROM", help_heading = INPUTS)]
    from: PathBuf,
    /// The second plan; one of the two may be `-`, standard input.
    #[arg(value_name = "TO", help_heading = INPUTS)]
    to: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        if self.from.as_os_str() == "-" && self.to.as_os_str() == "-" {
            return Err(anyhow::anyhow!("found `-` twice, expected one plan from standard input").into());
        }
        let read = |path| read::plan(path).map_err(Failure::of);
        let found = diff(&read(&self.from)?, &read(&self.to)?);
        let text = if self.json { serde_json::to_string(&found)? } else { table(&found) };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

fn table(found: &Difference) -> String {
    if found.changes.is_empty() {
        return "no difference".to_owned();
    }
    let mut table = Listing::with_header(["change", "path", "from", "to"]);
    for change in &found.changes {
        let text = |value: &Option<Value>| value.as_ref().map_or(String::new(), Value::to_string);
        table.add([change.kind.word().to_owned(), change.path.clone(), text(&change.from), text(&change.to)]);
    }
    table.text(&[1, 2, 3])
}
