//! `fedmill plan lint`: findings about a plan.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::run::base_of;
use crate::io::folder;
use crate::plan::error::{PlanError, of};
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
/// Prints each finding with its place in the file, what was found and what was expected. A file that is no plan has one
/// finding of the rule `schema`. Exit status: 0 if no finding is
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
        let (plan, source) = match read::with_text(&self.plan) {
            Ok(read) => read,
            Err(why) => {
                let (finding, place) = unreadable(why)?;
                let places = place.map(|place| (finding.at.as_str(), place)).into_iter().collect();
                return self.tell(None, std::slice::from_ref(&finding), &places);
            }
        };
        let findings = found(&plan, &self.plan);
        let places = places(&source, findings.iter().map(|finding| finding.at.as_str()));
        self.tell(Some(&plan), &findings, &places)
    }

    /// Prints findings. A plan that cannot be read has no name and no digest.
    fn tell(
        &self,
        plan: Option<&Plan>,
        findings: &[Finding],
        places: &BTreeMap<&str, Place>,
    ) -> Result<Outcome, Failure> {
        let text = match self.json {
            true => {
                let of_finding = |finding: &Finding| {
                    let mut found = json!(finding);
                    if let Some(place) = places.get(finding.at.as_str()) {
                        (found["line"], found["column"]) = (json!(place.line), json!(place.column));
                    }
                    found
                };
                let listed: Vec<Value> = findings.iter().map(of_finding).collect();
                let (id, digest) = (plan.map(|plan| &plan.id), plan.map(read::digest));
                format!("{}\n", json!({"plan": id, "digest": digest, "findings": listed}))
            }
            false => text_of(findings, &self.plan, places),
        };
        print(&text)?;
        match errors(findings).count() {
            0 => Ok(Outcome::Done),
            count => Err(anyhow::anyhow!("{}: {}", self.plan.display(), counted(count)).into()),
        }
    }
}

/// What is wrong with a text that is no plan, and its place.
fn unreadable(why: PlanError) -> Result<(Finding, Option<Place>), Failure> {
    let (at, why, place) = match why {
        PlanError::NoJson { at, why, place, .. } => (at, format!("is no JSON: {why}"), place),
        PlanError::Malformed { at, why, place, .. } => (at, why, place),
        other => return Err(Failure::of(other)),
    };
    Ok((Finding { level: Level::Error, rule: "schema", at, why, nearest: None }, place))
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
