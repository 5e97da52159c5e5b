//! Why a run cannot start, or cannot go on.

use crate::io::interrupt::Interrupted;
use crate::plan::graph::Cycle;
use crate::telemetry::explain::Explain;
use std::io;
use std::path::PathBuf;

/// An error that ends a runner.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum RunError {
    #[error("the plan cannot be run: {0}")]
    Cycle(#[from] Cycle),
    #[error("the plan cannot be run: {at}: {why}")]
    Plan { at: String, why: String },
    #[error("input `{input}`: {why}")]
    Input { input: String, why: String },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: line {line}: {why}", .path.display())]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("{}: holds a run of another plan: found {found}, expected {expected}", .path.display())]
    OtherPlan { path: PathBuf, found: String, expected: String },
    #[error("{}: holds no run", .path.display())]
    NoRun { path: PathBuf },
    #[error("{}: found no run, expected the directory of a run or a folder of runs", .path.display())]
    NoRuns { path: PathBuf },
    #[error("{}: holds no rendered plan", .path.display())]
    NoTasks { path: PathBuf },
    #[error("the plan has no task `{task}`; it has {known}")]
    UnknownTask { task: String, known: String },
    #[error("task `{task}`: {why}")]
    Task { task: String, why: String },
    #[error("{}: {holder} works on this run", .path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("{}: {} runs are at work, and limits.max_parallel_workflows is {most}: {}", .folder.display(), .live.len(), .live.join(", "))]
    TooMany { folder: PathBuf, live: Vec<String>, most: u32 },
    #[error("stage `{stage}` may have done its work before the runner ended: it must not happen twice")]
    Ambiguous { stage: String },
    #[error("--settle {stage}: no attempt of that name began without an end")]
    Settled { stage: String },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Explain for RunError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::OtherPlan { .. } => Some("--dir names another directory for a run of this plan".to_owned()),
            Self::NoRun { .. } => Some("`fedmill plan run PLAN --dir DIR` starts one".to_owned()),
            Self::NoTasks { .. } => Some("`fedmill plan render PLAN -o DIR` makes one".to_owned()),
            Self::Ambiguous { stage } => Some(format!(
                "look whether it happened, and pass --settle {stage}=done or --settle {stage}=again to `plan resume`"
            )),
            Self::Damaged { .. } => {
                Some("restore the file from a backup, or start the plan anew in another directory".to_owned())
            }
            _ => None,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Locked { .. } | Self::TooMany { .. } | Self::Ambiguous { .. } | Self::Task { .. }
        )
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Interrupted(interrupted) => Some(interrupted.signal),
            _ => None,
        }
    }
}
