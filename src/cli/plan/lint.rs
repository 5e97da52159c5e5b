//! `fedmill plan lint`: findings about a plan.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::cli::cells::wrapped;
use crate::plan::read;
use crate::plan::schema::Plan;
use crate::review::lint::{Finding, Level, lint_with_nested};
use clap::Args;
use std::path::{Path, PathBuf};

/// Check a plan, and the plans that its stages run, without running them.
///
/// Prints each finding with its place in the file, what was found and what was expected. Exit status: 0 if no finding is
/// an error, else 2.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The plan; `-` is standard input.
    #[arg(value_name = "PLAN", help_heading = INPUTS)]
    plan: PathBuf,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let plan = read::plan(&self.plan).map_err(Failure::of)?;
        let findings = lint_with_nested(&plan, &self.plan);
        let text = match self.json {
            true => {
                let found =
                    serde_json::json!({"plan": plan.id, "digest": read::digest(&plan), "findings": findings});
                format!("{found}\n")
            }
            false => text_of(&findings),
        };
        print(&text)?;
        match errors(&findings).count() {
            0 => Ok(Outcome::Done),
            count => Err(anyhow::anyhow!("{}: {}", self.plan.display(), counted(count)).into()),
        }
    }
}

fn errors(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.level == Level::Error)
}

fn counted(errors: usize) -> String {
    if errors == 1 { "1 error in the plan".to_owned() } else { format!("{errors} errors in the plan") }
}

fn text_of(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "no finding\n".to_owned();
    }
    let block = |finding: &Finding| {
        let head = wrapped(&format!("{}: {} ({})", finding.level, finding.at, finding.rule), 0);
        format!("{head}{}", wrapped(&finding.explanation(), 2))
    };
    findings.iter().map(block).collect()
}

/// The most errors that a refused plan lists.
const MOST_LISTED: usize = 20;

/// Refuses a plan with errors.
pub(super) fn refuse_errors(plan: &Plan, path: &Path) -> Result<(), Failure> {
    let findings = lint_with_nested(plan, path);
    let count = errors(&findings).count();
    if count == 0 {
        return Ok(());
    }
    let shown = errors(&findings).take(MOST_LISTED);
    let mut lines: Vec<String> = shown
        .map(|finding| format!("{}: {}: {}", path.display(), finding.at, finding.explanation()))
        .collect();
    lines.push(format!("{}: {}, so nothing was run", path.display(), counted(count)));
    let hint = Some("`fedmill plan lint` lists all findings".to_owned());
    Err(Failure { hint, lines, ..Failure::from(anyhow::anyhow!("{}", counted(count))) })
}
