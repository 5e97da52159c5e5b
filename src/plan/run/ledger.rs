//! The privacy budgets that the commands of a run charge, and what their ledgers say.

use super::world::{Account, Task};
use crate::io::folder;

use std::path::Path;
use std::process::Command;

/// The directory of the ledger that a job charges: that of `fedmill aggregate --dp DIR`, `fedmill privacy noise DIR`,
/// `fedmill privacy spend DIR`, or the budget of `fedmill round run DIR`. Commands of other programs show none.
/// Commands that are spelled otherwise note their charges in the allowance of the run.
pub fn of(task: &Task) -> Option<String> {
    let directory = named(task)?;
    let found = folder::resolved(Path::new(&directory)).ok().filter(|_| directory.starts_with('/'));
    Some(found.map_or(directory, |path| path.to_string_lossy().into_owned()))
}

fn named(task: &Task) -> Option<String> {
    let Task::Command { argv, .. } = task else { return None };
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    match argv.as_slice() {
        ["fedmill", "aggregate", rest @ ..] => rest.iter().enumerate().find_map(|(place, argument)| {
            let behind = (*argument == "--dp").then(|| rest.get(place + 1).copied()).flatten();
            behind.or_else(|| argument.strip_prefix("--dp=")).map(str::to_owned)
        }),
        ["fedmill", "privacy", "noise" | "spend", directory, ..] if !is_option(directory) => {
            Some((*directory).to_owned())
        }
        ["fedmill", "round", "run", directory, ..] if !is_option(directory) => {
            Some(format!("{directory}/{BUDGET}"))
        }
        _ => None,
    }
}

/// Whether an argument is an option. Where the directory stands behind options, the allowance of the run sees the charge.
fn is_option(argument: &str) -> bool {
    argument.starts_with('-')
}

/// The folder of the budget in the directory of a federation.
const BUDGET: &str = "privacy";

/// What a ledger says, by `fedmill privacy status`; `None` if there is no such directory.
///
/// # Errors
///
/// Why it cannot be read.
pub fn account(ledger: &str) -> Result<Option<Account>, String> {
    if !ledger.starts_with('/') {
        let found = "found a relative path, which is in the folder of one attempt; expected an absolute path";
        return Err(found.to_owned());
    }
    if !folder::exists(Path::new(ledger)) {
        return Ok(None);
    }
    let run = Command::new(std::env::current_exe().map_err(|why| why.to_string())?)
        .args(["privacy", "status", "--json", "--quiet", ledger])
        .output()
        .map_err(|why| format!("`fedmill privacy status` cannot be started: {why}"))?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        return Err(said.lines().next().unwrap_or("`fedmill privacy status` failed").to_owned());
    }
    serde_json::from_slice(&run.stdout).map(Some).map_err(|why| format!("`fedmill privacy status`: {why}"))
}
