//! What a directory holds: a run, a rendered plan, a task of one, or files of others.

use super::error::RunError;
use super::given::GIVEN;
use super::journal::{JOURNAL, Journal, LOCK, PLAN};
use crate::io::{folder, text};
use crate::plan::read;
use crate::schema::Plan;
use std::path::{Path, PathBuf};

/// The file that names the folder of the inputs, in the directory of a run and of a rendered plan.
pub const BASE: &str = "inputs";

/// The file with the digests of the inputs, in the directory of a rendered plan.
pub const START: &str = "start.json";

/// The folder of the answers of people.
const GATES: &str = "gates";

/// The most bytes of a path.
const MOST_OF_A_PATH: u64 = 64 << 10;

/// Bytes of the first line of a journal within which its attributes stand.
const BEGINNING: u64 = 4 << 10;

/// What a directory holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holds {
    /// A run.
    Run,
    /// A rendered plan.
    Rendered,
    /// A task of the rendered plan in this directory.
    Task(PathBuf),
    /// Neither.
    Nothing,
}

/// What a directory holds, by the files that only fedmill makes, and by the first line of the journal.
pub fn of(root: &Path) -> Holds {
    let has = |root: &Path, name: &str| folder::is_plain_file(&root.join(name));
    match (has(root, PLAN), has(root, START)) {
        (true, true) => return Holds::Rendered,
        (true, false) if has_begun(root) => return Holds::Run,
        _ => {}
    }
    let real = folder::real(root).unwrap_or_else(|_| root.to_owned());
    match real.parent().filter(|tasks| tasks.ends_with("tasks")).and_then(Path::parent) {
        Some(above) if has(above, START) && has(above, PLAN) => Holds::Task(above.to_owned()),
        _ => Holds::Nothing,
    }
}

/// Whether a directory holds a run, or a task of a rendered plan. A folder with a plan alone is none: its runs may lie
/// beside the plan.
pub fn is_run(root: &Path) -> bool {
    matches!(of(root), Holds::Run | Holds::Task(_))
}

/// Whether a run began in a directory: its journal begins with a line of a run, or has no line yet and a runner left
/// another file.
fn has_begun(root: &Path) -> bool {
    let path = root.join(JOURNAL);
    match text::first_line(&path, BEGINNING).ok().flatten() {
        Some(line) => line.starts_with("{\"seq\":0,") && line.contains("\"type\":\"fedmill.plan."),
        None => [LOCK, GIVEN].iter().any(|name| folder::is_plain_file(&root.join(name))),
    }
}

/// The plan that a directory keeps, and the folder of its inputs.
///
/// # Errors
///
/// When the directory keeps no plan, or it cannot be read.
pub fn kept(root: &Path) -> Result<(Plan, PathBuf), RunError> {
    let above = match of(root) {
        Holds::Run | Holds::Rendered => root.to_owned(),
        Holds::Task(above) => above,
        Holds::Nothing => return Err(RunError::NoRun { path: root.to_owned() }),
    };
    let path = above.join(PLAN);
    let unreadable = |why: crate::plan::error::PlanError| RunError::Plan {
        at: path.display().to_string(),
        why: why.to_string(),
    };
    let plan = read::plan(&path).map_err(unreadable)?;
    let path = above.join(BASE);
    let base = text::read_at_most(&path, MOST_OF_A_PATH).map_err(|source| RunError::Read { path, source })?;
    Ok((plan, PathBuf::from(base.trim_end_matches('\n'))))
}

/// The run, or the task, in a directory: its plan, the folder of its inputs, and its journal, which belong together.
///
/// # Errors
///
/// When the directory holds no run, a file cannot be read, or the plan is not the one with which the run began.
pub fn read_run(root: &Path) -> Result<(Plan, PathBuf, Journal), RunError> {
    let holds = of(root);
    if holds == Holds::Rendered {
        return Err(RunError::Rendered { path: root.to_owned() });
    }
    let (plan, base) = kept(root)?;
    let journal = Journal::read(root)?;
    let above = if let Holds::Task(above) = &holds { above } else { root };
    if let Some(found) = journal.plan().filter(|found| *found != read::digest(&plan)) {
        return Err(RunError::Edited { path: above.join(PLAN), found: read::digest(&plan), expected: found });
    }
    Ok((plan, base, journal))
}

/// Checks that a directory may take a new run: it is empty, or holds what an earlier runner of this plan left.
///
/// # Errors
///
/// When it holds a file of others; the error names it.
pub fn check_free_for_run(root: &Path, plan: &Plan, digest: &str) -> Result<(), RunError> {
    // A runner takes the lock, and writes the folder of the inputs and the plan, in this order. That of an outer plan writes
    // first what it gives.
    let is_locked = [LOCK, GIVEN].iter().any(|name| folder::is_plain_file(&root.join(name)));
    let began = is_locked && is_plan(root, digest);
    let ours = [LOCK, GATES, GIVEN, plan.safety.kill_file.as_str()];
    // A file system without locks has a file beside the lock instead.
    let is_held = |name: &str| name.strip_prefix(LOCK).is_some_and(|rest| rest.starts_with(".held"));
    check_free(root, |name| {
        ours.contains(&name) || is_held(name) || is_locked && name == BASE || began && name != START
    })
}

/// Checks that a directory may take a rendered plan: it is empty, or holds what an earlier `render` of this plan left.
///
/// # Errors
///
/// When it holds a file of others; the error names it.
pub fn check_free_for_tasks(root: &Path, digest: &str) -> Result<(), RunError> {
    let began = is_plan(root, digest) && folder::is_plain_file(&root.join(BASE));
    check_free(root, |name| name == BASE && folder::is_plain_file(&root.join(name)) || began && name == PLAN)
}

fn check_free(root: &Path, is_ours: impl Fn(&str) -> bool) -> Result<(), RunError> {
    let fault = |source| RunError::Read { path: root.to_owned(), source };
    match folder::entries(root).map_err(fault)?.into_iter().find(|(name, _)| !is_ours(name)) {
        Some((name, _)) => Err(RunError::Foreign { path: root.join(name) }),
        None => Ok(()),
    }
}

/// Whether a directory keeps the plan with this digest.
fn is_plan(root: &Path, digest: &str) -> bool {
    let path = root.join(PLAN);
    folder::is_plain_file(&path) && read::plan(&path).is_ok_and(|plan| read::digest(&plan) == digest)
}
