//! Programs of agents that are not there.

use super::finding::{Finding, finding};
use super::rules;
use crate::schema::Plan;
use crate::schema::agent::Agent;
use std::path::{Path, PathBuf};

/// The programs of a plan in this folder that are not there, as the runner looks for them; `exists` says whether a file
/// is there, and `path` has the folders of the variable PATH.
pub fn missing(plan: &Plan, folder: &Path, path: &[PathBuf], exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, agent) in &plan.agents {
        let Agent::Command(agent) = agent else { continue };
        let Some(program) = agent.argv.first().filter(|program| *program != "fedmill") else { continue };
        let at = format!("$.agents.{name}.argv[0]");
        if program.contains('/') {
            let whole = folder.join(program.strip_prefix("./").unwrap_or(program));
            if !program.starts_with('/') && program.split('/').any(|part| part == "..") {
                let why = format!(
                    "found `{program}`, expected a program below the plan's folder, or an absolute path"
                );
                findings.push(finding(&rules::PROGRAM, at, why));
            } else if !exists(&whole) {
                let why = format!("found `{program}`, expected a program: {} is not there", whole.display());
                findings.push(finding(&rules::PROGRAM, at, why));
            }
        } else if let Some((first, _)) = program.split_once(' ') {
            let why = format!(
                "found `{program}`, expected a program: each argument is an element, as in `[\"{first}\", ...]`"
            );
            findings.push(finding(&rules::INSTALLED, at, why));
        } else if !path.iter().any(|folder| exists(&folder.join(program))) {
            let why = format!(
                "found `{program}`, which no folder of PATH has; a program beside the plan is `./{program}`"
            );
            findings.push(finding(&rules::INSTALLED, at, why));
        }
    }
    findings
}
