//! Commands that this program runs: their pipes and logs, and those of a killed run.
//!
//! [`group`] starts a command in a process group, and ends it. [`capped`] is a log file with a limit. [`measure`] runs a
//! command that measures something. [`jobserver`] shares places for jobs with GNU make.

pub mod capped;
pub mod group;
pub mod jobserver;
pub mod measure;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs;
use std::io;
use std::os::fd::AsFd;

/// Makes reads and writes of a pipe return at once.
///
/// # Errors
///
/// When the system refuses.
pub fn never_wait(pipe: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(pipe)?;
    Ok(fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?)
}

/// The processes whose environment has this variable with this value, this process left out. Those of other users, whose
/// environment cannot be read, are no part.
pub fn with_variable(name: &str, value: &str) -> Vec<i32> {
    let wanted = format!("{name}={value}").into_bytes();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let carries = |id: &i32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| {
            // A folder below stands for a run inside of the run.
            let rest = variable.strip_prefix(wanted.as_slice());
            rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
        })
    };
    ids.filter(|id| u32::try_from(*id) != Ok(std::process::id())).filter(carries).collect()
}
