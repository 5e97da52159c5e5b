//! `fedmill round check`: findings about the settings of a federation.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::reader;
use crate::lint::{Finding, Level};
use crate::telemetry::cells::wrapped;
use clap::Args;
use std::path::PathBuf;

/// Check the settings of a federation, and the files that they need.
///
/// Prints each finding with its reason and what mends it. The exit status is 1 if a finding is an error.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The number of clients that could take part [default: those in the registry].
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    population: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (_, mut server) = reader(&self.directory, common)?;
        let findings = server.check(self.population);
        let text = match self.json {
            true => format!("{}\n", serde_json::json!({ "findings": findings })),
            false => text_of(&findings),
        };
        print(&text)?;
        let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
        Ok(match errors {
            0 => Outcome::Done,
            1 => Outcome::Refused("1 error in the settings".to_owned()),
            errors => Outcome::Refused(format!("{errors} errors in the settings")),
        })
    }
}

fn text_of(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "no finding\n".to_owned();
    }
    let block = |Finding { level, key, found, why, remedy }: &Finding| {
        let remedy = if remedy.is_empty() { String::new() } else { wrapped(&format!("remedy: {remedy}"), 2) };
        format!("{}{}{remedy}", wrapped(&format!("{level}: {key} is {found}"), 0), wrapped(why, 2))
    };
    findings.iter().map(block).collect::<Vec<_>>().join("\n")
}
