//! Commands that this program runs: their pipes and logs, and those of a killed run.
//!
//! [`group`] starts a command in a process group, and ends it. [`capped`] is a log file with a limit. [`measure`] runs a
//! command that measures something. [`jobserver`] shares places for jobs with GNU make.
//! [`allowance`] says what commands may charge to privacy budgets.

pub mod allowance;
pub mod capped;
pub mod group;
pub mod jobserver;
pub mod measure;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Makes reads and writes of a pipe return at once.
///
/// # Errors
///
/// When the system refuses.
pub fn never_wait(pipe: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(pipe)?;
    Ok(fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?)
}

/// A process, as the system shows it.
#[derive(Debug)]
pub struct Process {
    id: i32,
    environment: Vec<u8>,
}

impl Process {
    /// The value of a variable in the environment that it began with.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let mut variables = self.environment.split(|byte| *byte == 0);
        let value = variables.find_map(|variable| {
            variable.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        });
        value.map(OsStr::from_bytes)
    }

    /// The folder in which it works, by the present name of that folder.
    pub fn folder(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.id)).ok()
    }

    /// When it began, in ticks since the machine started.
    pub fn began(&self) -> Option<u64> {
        began(self.id)
    }
}

/// The ids of the processes for which `matches` holds, without this process and those that it descends from. Processes
/// of other users, whose environment cannot be read, are no part.
pub fn processes(matches: impl Fn(&Process) -> bool) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ancestors = ancestors();
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = ids.filter(|id| !ancestors.contains(id)).filter(|id| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        matches(&Process { id: *id, environment })
    });
    found.collect()
}

/// This process and those that it descends from.
fn ancestors() -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(id) = next.filter(|id| *id > 0 && found.insert(*id)) {
        next = parent(id);
    }
    found
}

/// The parent of a process; `None` if the process is over.
pub fn parent(id: i32) -> Option<i32> {
    field(id, PARENT).and_then(|parent| i32::try_from(parent).ok())
}

/// The process that runs this program, as text: its id, and when it began in ticks since the machine started.
pub fn this_process() -> String {
    let id = std::process::id();
    let began = i32::try_from(id).ok().and_then(began).unwrap_or(0);
    format!("{id}-{began}")
}

/// Whether the process of a text of [`this_process`] still runs.
pub fn is_running(process: &str) -> bool {
    let named = process.split_once('-').and_then(|(id, began)| Some((id.parse().ok()?, began.parse().ok()?)));
    named.is_some_and(|(id, at): (i32, u64)| began(id) == Some(at))
}

fn began(id: i32) -> Option<u64> {
    field(id, BEGAN)
}

/// The place of the parent among the fields of `/proc/ID/stat` behind the name of the program.
const PARENT: usize = 1;

/// The place of the time at which a process began.
const BEGAN: usize = 19;

fn field(id: i32, place: usize) -> Option<u64> {
    let stat = fs::read(format!("/proc/{id}/stat")).ok()?;
    // The name of the program may have any bytes.
    let behind = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(&stat[behind..]).ok()?;
    fields.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// The processes whose environment has these variables with these values.
pub fn with_variables(variables: &[(&str, &str)]) -> Vec<i32> {
    processes(|process| {
        variables.iter().all(|(name, value)| process.variable(name) == Some(OsStr::new(value)))
    })
}
