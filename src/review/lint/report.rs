//! The findings about a plan for people and programs, and the refusal of a plan with errors.

use super::programs::missing;
use super::{Finding, Level, lint_with_nested};
use crate::io::folder;
use crate::io::publish::directory_of;
use crate::plan::error::{PlanError, of};
use crate::plan::read;
use crate::schema::Plan;
use crate::schema::faults::Fault;
use crate::settings::places::{Place, places};
use crate::telemetry::cells::wrapped;
use crate::telemetry::escape::escaped;
use crate::telemetry::explain::Explain;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The findings about a plan file.
pub struct Report<'f> {
    path: &'f Path,
    /// `None` for a file that is no plan.
    plan: Option<Plan>,
    findings: Vec<Finding>,
    /// The places of findings in the text of the file.
    places: BTreeMap<String, Place>,
}

/// The most errors that a refused plan lists.
const MOST_LISTED: usize = 20;

/// A plan with errors, which is not run.
#[derive(thiserror::Error, Debug)]
#[error("{summary}")]
pub struct Faulty {
    summary: String,
    lines: Vec<String>,
}

impl Explain for Faulty {
    fn hint(&self) -> Option<String> {
        Some("`fedmill plan lint` lists all findings".to_owned())
    }

    fn lines(&self) -> Vec<String> {
        self.lines.clone()
    }
}

impl<'f> Report<'f> {
    /// The findings about the plan in a file, about the plans that its stages run, and the programs that are not there.
    /// A text that is no plan is a finding too.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or its schema is another.
    pub fn of_file(path: &'f Path) -> Result<Self, PlanError> {
        match read::with_text(path) {
            Ok((plan, source)) => Ok(Self::of(plan, &source, path)),
            Err(why) => {
                let (findings, places): (Vec<Finding>, Vec<Option<Place>>) =
                    unreadable(why)?.into_iter().unzip();
                let placed = findings.iter().zip(places);
                let places =
                    placed.filter_map(|(finding, place)| Some((finding.at.clone(), place?))).collect();
                Ok(Self { path, plan: None, findings, places })
            }
        }
    }

    /// The findings about a plan, whose file has the text `source`.
    fn of(plan: Plan, source: &str, path: &'f Path) -> Self {
        let findings = found(&plan, path);
        let places = places(source, findings.iter().map(|finding| finding.at.as_str()));
        let places = places.into_iter().map(|(at, place)| (at.to_owned(), place)).collect();
        Self { path, plan: Some(plan), findings, places }
    }

    fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.level == Level::Error)
    }

    /// How many errors there are, in words; `None` without an error.
    pub fn count(&self) -> Option<String> {
        match self.errors().count() {
            0 => None,
            1 => Some("1 error in the plan".to_owned()),
            errors => Some(format!("{errors} errors in the plan")),
        }
    }

    /// The findings as one JSON object. A plan that cannot be read has no name and no digest.
    pub fn json(&self) -> Value {
        let of_finding = |finding: &Finding| {
            let mut found = json!(finding);
            if let Some(place) = self.places.get(&finding.at) {
                (found["line"], found["column"]) = (json!(place.line), json!(place.column));
            }
            found
        };
        let listed: Vec<Value> = self.findings.iter().map(of_finding).collect();
        let (id, digest) = (self.plan.as_ref().map(|plan| &plan.id), self.plan.as_ref().map(read::digest));
        json!({"plan": id, "digest": digest, "findings": listed})
    }

    /// The place of a finding in its file, as compilers write it.
    fn place_of(&self, finding: &Finding) -> String {
        format!("{}{}", self.path.display(), of(self.places.get(&finding.at).copied()))
    }

    /// The findings for people.
    pub fn text(&self) -> String {
        if self.findings.is_empty() {
            return "no finding\n".to_owned();
        }
        let block = |finding: &Finding| {
            let place = self.place_of(finding);
            let head = format!("{place}: {}: {} ({})", finding.level, finding.at, finding.rule);
            // Editors find the place in a line that is not wrapped.
            format!("{}\n{}", escaped(&head), wrapped(&finding.explanation(), 2))
        };
        self.findings.iter().map(block).collect()
    }

    /// A finding in a line.
    fn line(&self, finding: &Finding) -> String {
        format!("{}: {}: {}", self.place_of(finding), finding.at, finding.explanation())
    }

    /// The refusal of the plan, if it has an error.
    fn refusal(&self) -> Option<Faulty> {
        let summary = self.count()?;
        let mut lines: Vec<String> =
            self.errors().take(MOST_LISTED).map(|finding| self.line(finding)).collect();
        lines.push(format!("{}: {summary}, so nothing was run", self.path.display()));
        Some(Faulty { summary, lines })
    }
}

/// Refuses a plan with errors, whose file has the text `source`. Returns a line for each warning.
///
/// # Errors
///
/// When the plan has an error.
pub fn refuse_errors(plan: &Plan, source: &str, path: &Path) -> Result<Vec<String>, Faulty> {
    let report = Report::of(plan.clone(), source, path);
    let warnings = report.findings.iter().filter(|finding| finding.level == Level::Warning);
    match report.refusal() {
        Some(refusal) => Err(refusal),
        None => Ok(warnings.map(|finding| report.line(finding)).collect()),
    }
}

/// What is wrong with a text that is no plan, and the places.
fn unreadable(why: PlanError) -> Result<Vec<(Finding, Option<Place>)>, PlanError> {
    let faults = match why {
        PlanError::NoJson { at, why, place, .. } => {
            vec![(place, Fault { at, why: format!("is no JSON: {why}") })]
        }
        PlanError::Malformed { faults, .. } => faults,
        other => return Err(other),
    };
    let finding = |(place, Fault { at, why })| {
        (Finding { level: Level::Error, rule: "schema", at, why, nearest: None }, place)
    };
    Ok(faults.into_iter().map(finding).collect())
}

/// The findings about a plan, with the programs that are not there.
fn found(plan: &Plan, path: &Path) -> Vec<Finding> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let mut findings = lint_with_nested(plan, path);
    findings.extend(missing(plan, directory_of(path), &folders, &|path: &Path| folder::exists(path)));
    findings.sort_by_key(|finding| finding.level);
    findings
}
