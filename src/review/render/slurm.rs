//! Batch scripts for Slurm, and the script that submits them.

use super::File;
use super::needs::{at_a_time, mebibytes, minutes};
use crate::schema::Plan;
use crate::schema::policy::SideEffects;
use crate::tasks::units::{How, Unit, Units};

/// What each script that submits says; the jobs of the plan follow.
const SUBMIT: &str = include_str!("submit.sh");

/// The files: a batch script for each unit, and `submit.sh`, which comes last.
pub fn files(plan: &Plan, units: &Units) -> Vec<File> {
    let mut files: Vec<File> = units.all.iter().map(|unit| batch(plan, unit)).collect();
    let jobs: String = units.all.iter().map(|unit| job(plan, units, unit)).collect();
    let text = SUBMIT.replace("@PLAN@", plan.id.as_str()).replace("@JOBS@\n", &jobs);
    files.push(File { path: "submit.sh".to_owned(), text });
    files
}

/// A batch script: it runs one task, or those of an array that fall to it.
fn batch(plan: &Plan, unit: &Unit) -> File {
    let mut text = String::from("#!/usr/bin/env bash\n");
    let mut option = |option: String| text += &format!("#SBATCH {option}\n");
    option("--kill-on-invalid-dep=yes".to_owned());
    option("--open-mode=append".to_owned());
    let once = unit.stages.iter().any(|stage| plan.stages[*stage].side_effects == SideEffects::Once);
    option(if once { "--no-requeue" } else { "--requeue" }.to_owned());
    if let Some(minutes) = minutes(plan, unit) {
        option(format!("--time={minutes}"));
    }
    if let Some(mebibytes) = mebibytes(plan, unit) {
        option(format!("--mem={mebibytes}M"));
    }
    // A task that Slurm ends has time to end its commands.
    option("--signal=B:TERM@30".to_owned());
    text += "# Runs tasks of the plan in the directory $1: `submit.sh` submits this script.\nset -u\ncd \"$1\" || exit 2\n";
    text += &match unit.count {
        None => format!("exec \"${{FEDMILL:-fedmill}}\" plan task . {}\n", unit.name),
        Some(count) => format!(
            "# Each job of the array does $2 tasks, so that an array may be smaller than a fan-out.\nended=0\n\
             for ((task = SLURM_ARRAY_TASK_ID * $2; task < (SLURM_ARRAY_TASK_ID + 1) * $2 && task < {count}; task++)); do\n    \
             \"${{FEDMILL:-fedmill}}\" plan task . {}.$task || ended=$?\ndone\nexit $ended\n",
            unit.name
        ),
    };
    File { path: format!("jobs/{}.sh", unit.name), text }
}

/// The line of `submit.sh` for a unit: its name, tasks, tasks at a time, kind, and what it waits for.
fn job(plan: &Plan, units: &Units, unit: &Unit) -> String {
    let count = unit.count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let most = at_a_time(plan, unit).map_or_else(|| "-".to_owned(), |most| most.to_string());
    let kind = if unit.handler.is_some() { "end" } else { "work" };
    let after = unit.after.iter().map(|after| {
        let how = match after.how {
            How::Done => "afterok",
            How::Each => "aftercorr",
            How::Over => "afterany",
        };
        format!(" {how}:{}", units.all[after.unit].name)
    });
    format!("    job {} {count} {most} {kind}{}\n", unit.name, after.collect::<String>())
}
