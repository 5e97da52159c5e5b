//! `fedmill plan lint`: findings about a plan.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::run::base_of;
use crate::io::folder;
use crate::plan::error::of;
use crate::plan::read;
use crate::review::lint::programs::missing;
use crate::review::lint::{Finding, Level, lint_with_nested};
use crate::schema::Plan;
use crate::settings::places::{Place, places};
use crate::telemetry::cells::wrapped;
use crate::telemetry::escape::escaped;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
        let (plan, source) = read::with_text(&self.plan).map_err(Failure::of)?;
        let findings = found(&plan, &self.plan);
        let places = places(&source, findings.iter().map(|finding| finding.at.as_str()));
        let text = match self.json {
            true => {
                let findings = findings.iter().map(|finding| {
                    let mut found = json!(finding);
                    if let Some(place) = places.get(finding.at.as_str()) {
                        (found["line"], found["column"]) = (json!(place.line), json!(place.column));
                    }
                    found
                });
                let findings: Vec<Value> = findings.collect();
                format!("{}\n", json!({"plan": plan.id, "digest": read::digest(&plan), "findings": findings}))
            }
            false => text_of(&findings, &self.plan, &places),
        };
        print(&text)?;
        match errors(&findings).count() {
            0 => Ok(Outcome::Done),
            count => Err(anyhow::anyhow!("{}: {}", self.plan.display(), counted(count)).into()),
        }
    }
}

/// The findings about a plan, with the programs that are not there.
fn found(plan: &Plan, path: &Path) -> Vec<Finding> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let mut findings = lint_with_nested(plan, path);
    findings.extend(missing(plan, &base_of(path), &folders, &|path: &Path| folder::exists(path)));
    findings.sort_by_key(|finding| finding.level);
    findings
}

fn errors(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.level == Level::Error)
}

fn counted(errors: usize) -> String {
    if errors == 1 { "1 error in the plan".to_owned() } else { format!("{errors} errors in the plan") }
}

/// The place of a finding in its file, as compilers write it.
fn place_of(finding: &Finding, path: &Path, places: &BTreeMap<&str, Place>) -> String {
    format!("{}{}", path.display(), of(places.get(finding.at.as_str()).copied()))
}

fn text_of(findings: &[Finding], path: &Path, places: &BTreeMap<&str, Place>) -> String {
    if findings.is_empty() {
        return "no finding\n".to_owned();
    }
    let block = |finding: &Finding| {
        let place = place_of(finding, path, places);
        let head = format!("{place}: {}: {} ({})", finding.level, finding.at, finding.rule);
        // Editors find the place in a line that is not wrapped.
        format!("{}\n{}", escaped(&head), wrapped(&finding.explanation(), 2))
    };
    findings.iter().map(block).collect()
}

/// The most errors that a refused plan lists.
const MOST_LISTED: usize = 20;

/// Refuses a plan with errors.
pub(super) fn refuse_errors(plan: &Plan, source: &str, path: &Path) -> Result<(), Failure> {
    let findings = found(plan, path);
    let count = errors(&findings).count();
    if count == 0 {
        return Ok(());
    }
    let shown: Vec<&Finding> = errors(&findings).take(MOST_LISTED).collect();
    let places = places(source, shown.iter().map(|finding| finding.at.as_str()));
    let line = |finding: &&Finding| {
        format!("{}: {}: {}", place_of(finding, path, &places), finding.at, finding.explanation())
    };
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    lines.push(format!("{}: {}, so nothing was run", path.display(), counted(count)));
    let hint = Some("`fedmill plan lint` lists all findings".to_owned());
    Err(Failure { hint, lines, ..Failure::from(anyhow::anyhow!("{}", counted(count))) })
}
