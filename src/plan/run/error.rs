//! Why a run cannot start, or cannot go on.

use super::journal::JOURNAL;
use crate::io::collision::Collision;
use crate::io::interrupt::Interrupted;
use crate::io::model_writer::WriteError;
use crate::language::graph::Cycle;
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
    #[error("{why}")]
    Result { why: String },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Output(#[from] WriteError),
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error("{}: is inside of {}, which a runner keeps, expected an output path outside it", .path.display(), .directory.display())]
    Kept { path: PathBuf, directory: PathBuf },
    #[error("{}: line {line}: {why}", .path.display())]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("{}: holds a run of another plan: found {found}, expected {expected}", .path.display())]
    OtherPlan { path: PathBuf, found: String, expected: String },
    #[error("{}: is not the plan with which the run began: found digest {found}, expected {expected}", .path.display())]
    Edited { path: PathBuf, found: String, expected: String },
    #[error("{}: holds a rendered plan, expected a run", .path.display())]
    Rendered { path: PathBuf },
    #[error("{}: holds a task of the rendered plan {}, expected a run", .path.display(), .above.display())]
    OfRendered { path: PathBuf, above: PathBuf },
    #[error("{}: is no part of an earlier run of this plan, expected that or an empty directory", .path.display())]
    Foreign { path: PathBuf },
    #[error("{}: the run finished at {time} with other inputs: {why}", .path.display())]
    Finished { path: PathBuf, time: String, why: String },
    #[error("--input {input}: found {found}, and the run in {} began with {began}", .path.display())]
    OtherInput { input: String, path: PathBuf, found: String, began: String },
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
    #[error(
        "stage `{stage}` may have done its work: an attempt began and has no receipt, and it must not happen twice"
    )]
    Ambiguous { stage: String, run: PathBuf, is_task: bool },
    #[error("--settle {stage}: {why}")]
    Settled { stage: String, why: String },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Explain for RunError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::OtherPlan { path, .. } if path.ends_with(JOURNAL) => {
                let dir = path.parent().unwrap_or(path).display();
                Some(format!(
                    "`--reuse {dir}` takes the results of that run over where the work is the same, in another directory; \
                     --dir names one"
                ))
            }
            Self::OtherPlan { .. } => Some("--dir names another directory for a run of this plan".to_owned()),
            Self::Edited { .. } => Some("restore the file; --dir names a directory for a run of an edited plan".to_owned()),
            Self::Rendered { path } => {
                let dir = path.display();
                Some(format!(
                    "`bash {dir}/submit.sh` goes on with it on Slurm, `bash {dir}/run.sh` with its Snakefile; `fedmill plan \
                     status {dir}` shows its tasks"
                ))
            }
            Self::OfRendered { above, .. } => Some(format!(
                "`fedmill plan task` goes on with the task, and the kill file in {} ends all tasks",
                above.display()
            )),
            Self::Result { .. } => Some(
                "put the file back as it was, or begin again in another directory".to_owned(),
            ),
            Self::Foreign { .. } => Some("name a directory that does not exist yet".to_owned()),
            Self::Finished { .. } | Self::OtherInput { .. } => {
                Some("--dir names another directory for a new run".to_owned())
            }
            Self::NoRun { .. } => Some(
                "`fedmill plan run PLAN --dir DIR` starts one, and `fedmill plan history FOLDER` lists the runs in a folder"
                    .to_owned(),
            ),
            Self::NoTasks { .. } => Some("`fedmill plan render PLAN -o DIR` makes one".to_owned()),
            Self::Ambiguous { stage, run, is_task } => {
                // A task's run lies in RENDERED/tasks/TASK.
                let rendered = run.ancestors().nth(2).filter(|_| *is_task);
                let goes_on = match (rendered, run.file_name()) {
                    (Some(rendered), Some(task)) => {
                        format!("fedmill plan task {} {}", rendered.display(), task.display())
                    }
                    _ => format!("fedmill plan resume {}", run.display()),
                };
                let settle = format!("--settle {stage}=done or --settle {stage}=again");
                Some(format!("look whether it happened, and pass {settle} to `{goes_on}`"))
            }
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
