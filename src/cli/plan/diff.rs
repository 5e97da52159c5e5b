//! `fedmill plan diff`: what differs between two plans.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::plan::read;
use crate::review::diff::{Change, Difference, diff_with_inner};
use crate::telemetry::cells::{Listing, wrapped};
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

/// Compare two plans.
///
/// Stages, loops and inputs are compared by their names, and so are the plans that stages run. Layout, the order of keys
/// and `x-` fields are no difference. The exit status is 0, whether the plans differ or not.
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
        let (from, to) = (read(&self.from)?, read(&self.to)?);
        let found = diff_with_inner((&from, &self.from), (&to, &self.to));
        let text = if self.json { serde_json::to_string(&found)? } else { table(&found) };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

fn table(found: &Difference) -> String {
    let mut table = Listing::with_header(["change", "path", "from", "to"]);
    let text = |value: &Option<Value>| value.as_ref().map_or(String::new(), Value::to_string);
    let line = |change: &Change, prefix: &str| {
        let path = format!("{prefix}{}", change.path);
        [change.kind.word().to_owned(), path, text(&change.from), text(&change.to)]
    };
    found.changes.iter().for_each(|change| table.add(line(change, "")));
    for inner in &found.inner {
        let [from, to] =
            [&inner.from, &inner.to].map(|file| file.as_ref().map(|file| file.display().to_string()));
        let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
        table.add([inner.kind.word().to_owned(), format!("the plan of {}", inner.stage), from, to]);
        inner.changes.iter().for_each(|change| table.add(line(change, &format!("{}: ", inner.stage))));
    }
    let mut lines = Vec::new();
    match (found.changes.is_empty() && found.inner.is_empty(), found.not_compared.is_empty()) {
        (true, true) => lines.push("no difference".to_owned()),
        (true, false) => lines.push("no difference, the plans inside of them left out".to_owned()),
        _ => lines.push(table.text(&[1, 2, 3])),
    }
    let left_out = found.not_compared.iter().map(|why| format!("the plans inside were not compared: {why}"));
    lines.extend(left_out.map(|line| wrapped(&line, 0).trim_end().to_owned()));
    lines.join("\n")
}
