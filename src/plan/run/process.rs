//! Runs the command of an attempt, in a process group that the runner can end.
//!
//! The command gets a clean environment, and prints into log files. Its processes carry [`MARK`] and the name of the
//! runner, so that a later runner finds those that a killed one left behind.

use super::event::Failure;
use super::world::AttemptLimits;
use crate::io::child::capped::CappedLog;
use crate::io::child::group::Group;
use crate::io::child::{self, Process, never_wait};
use crate::io::source::identity_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The variable that names the directory of the run.
pub const MARK: &str = "FEDMILL_RUN_DIR";

/// The variable that names the runner that started a command: its id, and when it began.
const RUNNER: &str = "FEDMILL_RUNNER";
/// The variable that names the instance.
pub const STAGE: &str = "FEDMILL_STAGE";
/// The variable with the number of the attempt.
pub const ATTEMPT: &str = "FEDMILL_ATTEMPT";

/// Variables that every command inherits.
pub const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// The longest time between two looks at whether the runner wants the attempt to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for which a command that ended may leave its output open.
const DRAIN: Duration = Duration::from_millis(500);

/// The most reads of a pipe in one look.
const MOST_READS: usize = 64;

/// A command, and where it runs.
pub struct Invocation<'a> {
    /// The program and its arguments.
    pub argv: &'a [String],
    /// The folder of the plan, below which programs with a relative path lie.
    pub base: &'a Path,
    /// Its variables, beside those that it inherits.
    pub env: BTreeMap<String, String>,
    /// The variables that it inherits, beside those of every command.
    pub inherit: &'a [String],
    /// Standard input.
    pub stdin: Option<&'a str>,
    /// Its working directory.
    pub folder: &'a Path,
    /// The log of standard output.
    pub stdout: &'a Path,
    /// The log of standard error.
    pub stderr: &'a Path,
    /// How long it may take.
    pub limits: AttemptLimits,
    /// Whether it must end.
    pub stop: &'a AtomicBool,
}

/// Runs a command to its end.
///
/// # Errors
///
/// Why it failed.
pub fn run(invocation: &Invocation<'_>) -> Result<(), Failure> {
    let started = |why: io::Error| {
        let program = invocation.argv.first().map_or("", String::as_str);
        // A script without the right to run it.
        let advice = match why.kind() {
            io::ErrorKind::PermissionDenied if program.contains('/') => {
                format!("; `chmod +x {program}` makes a script a program")
            }
            _ => String::new(),
        };
        Failure::Start(format!("`{program}` cannot be started: {why}{advice}"))
    };
    let mut group = start(invocation).map_err(started)?;
    // Only all together name the processes of one attempt; the runner of an inner plan has no stage.
    let marks = [MARK, STAGE, ATTEMPT].map(|name| Some((name.to_owned(), invocation.env.get(name)?.clone())));
    if let Some(marks) = marks.into_iter().collect() {
        group.mark(marks);
    }
    let watched =
        Watch::new(group.child(), invocation).and_then(|watch| watch.until_end(&mut group, invocation));
    let status = group.finish().map_err(|why| Failure::Outputs(why.to_string()))?;
    if let Some(failure) =
        watched.map_err(|why| Failure::Outputs(format!("its output cannot be kept: {why}")))?
    {
        return Err(failure);
    }
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Exit(code)),
        (None, signal) => Err(Failure::Signal(signal.unwrap_or(0))),
    }
}

/// The processes of commands that runners of this run started, however the directory was named then. A process that only
/// carries the name of the directory, such as a shell of the operator, is none.
pub fn commands_of(root: &Path) -> Vec<i32> {
    left_by_runners(root, |_| true)
}

/// Those of them that run a plan inside of the run: no stage gave them its name.
pub fn runners_inside(root: &Path) -> Vec<i32> {
    left_by_runners(root, |process| process.variable(STAGE).is_none())
}

fn left_by_runners(root: &Path, matches: impl Fn(&Process) -> bool) -> Vec<i32> {
    let place = identity_of(root);
    child::processes(|process| {
        let runner_began = process.variable(RUNNER).and_then(OsStr::to_str);
        let runner_began = runner_began.and_then(|runner| runner.split_once('-')?.1.parse::<u64>().ok());
        let follows = runner_began.is_some() && process.began() >= runner_began;
        let named = process.variable(MARK).map(Path::new);
        // A folder below is the directory of a run inside of the run.
        let is_ours = |named: &Path| named.starts_with(root) || identity_of(named) == place;
        let works_inside = || process.folder().is_some_and(|folder| folder.starts_with(root));
        follows && matches(process) && named.is_some_and(|named| is_ours(named) || works_inside())
    })
}

/// The folder of attempts, in the directory of a run.
pub const ATTEMPTS: &str = "attempts";

/// The folder in which an attempt works, in its own.
pub const WORK: &str = "work";

/// The program of a name: `fedmill` is this one, and a relative path with a slash is below the folder of the plan.
///
/// # Errors
///
/// When the path leaves that folder, or the system does not say where this program is.
pub fn program(name: &str, base: &Path) -> io::Result<PathBuf> {
    let path = Path::new(name);
    if name == "fedmill" {
        return std::env::current_exe();
    }
    if path.is_absolute() || !name.contains('/') {
        return Ok(path.to_owned());
    }
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(base.join(path.strip_prefix(".").unwrap_or(path)));
    }
    Err(io::Error::other("found a path that leaves the folder of the plan, expected one below it"))
}

fn start(invocation: &Invocation<'_>) -> io::Result<Group> {
    let name = invocation.argv.first().ok_or_else(|| io::Error::other("it has no program"))?;
    let mut command = Command::new(program(name, invocation.base)?);
    command.args(&invocation.argv[1..]).current_dir(invocation.folder).env_clear();
    let inherited = INHERITED.iter().copied().chain(invocation.inherit.iter().map(String::as_str));
    for name in inherited {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(&invocation.env).env(RUNNER, child::this_process());
    let stdin = if invocation.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
    Group::start(command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// What the runner reads of a command, and its times.
struct Watch {
    out: Option<(ChildStdout, CappedLog)>,
    err: Option<(ChildStderr, CappedLog)>,
    stdin: Option<(ChildStdin, Vec<u8>)>,
    started: Instant,
    heard: Instant,
    /// Why the attempt was asked to end.
    ending: Option<Failure>,
}

impl Watch {
    fn new(child: &mut Child, invocation: &Invocation<'_>) -> io::Result<Self> {
        let log = |path| CappedLog::create(path, invocation.limits.log_bytes);
        let (out, err) = (log(invocation.stdout)?, log(invocation.stderr)?);
        let out = child.stdout.take().map(|pipe| (pipe, out));
        let err = child.stderr.take().map(|pipe| (pipe, err));
        let text = invocation.stdin.unwrap_or_default().as_bytes().to_vec();
        let stdin = child.stdin.take().map(|pipe| (pipe, text));
        out.iter().try_for_each(|(pipe, _)| never_wait(pipe))?;
        err.iter().try_for_each(|(pipe, _)| never_wait(pipe))?;
        stdin.iter().try_for_each(|(pipe, _)| never_wait(pipe))?;
        let now = Instant::now();
        Ok(Self { out, err, stdin, started: now, heard: now, ending: None })
    }

    /// Reads what a command prints until it ends. Returns why the runner ended it, if it did.
    fn until_end(mut self, group: &mut Group, invocation: &Invocation<'_>) -> io::Result<Option<Failure>> {
        let process = pidfd_open(Pid::from_child(group.child()), PidfdFlags::empty())?;
        let mut ended: Option<Instant> = None;
        loop {
            let mut polled = vec![PollFd::new(&process, PollFlags::IN)];
            polled.extend(self.out.iter().map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN)));
            polled.extend(self.err.iter().map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN)));
            polled.extend(self.stdin.iter().map(|(pipe, _)| PollFd::new(pipe, PollFlags::OUT)));
            if ended.is_some() {
                polled.remove(0);
            }
            let wait = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
            match poll(&mut polled, Some(&wait)) {
                Err(rustix::io::Errno::INTR) => {}
                polled => drop(polled?),
            }
            self.write();
            self.read()?;
            if ended.is_none() && group.status()?.is_some() {
                ended = Some(Instant::now());
            }
            let drained = self.out.is_none() && self.err.is_none();
            if ended.is_some_and(|at| drained || at.elapsed() > DRAIN) {
                return self.finish();
            }
            if ended.is_none() {
                self.check(group, invocation);
            }
        }
    }

    fn finish(self) -> io::Result<Option<Failure>> {
        self.out.map_or(Ok(()), |(_, log)| log.finish())?;
        self.err.map_or(Ok(()), |(_, log)| log.finish())?;
        Ok(self.ending)
    }

    /// Ends the command if its time is over, or the runner wants it to.
    fn check(&mut self, group: &mut Group, invocation: &Invocation<'_>) {
        let limits = invocation.limits;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if self.ending.is_some() {
            return group.kill_if_late();
        }
        let why = if invocation.stop.load(Ordering::Relaxed) {
            Failure::Cancelled
        } else if let Some(most) = limits.run.filter(|most| self.started.elapsed() > *most) {
            Failure::Timeout(millis(most))
        } else if let Some(most) = limits.idle.filter(|most| self.heard.elapsed() > *most) {
            Failure::Idle(millis(most))
        } else {
            return;
        };
        group.ask_to_end(limits.kill_after);
        self.ending = Some(why);
    }

    fn write(&mut self) {
        let Some((pipe, text)) = &mut self.stdin else { return };
        match pipe.write(text) {
            Ok(written) => drop(text.drain(..written)),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
            // A command need not read its input.
            Err(_) => text.clear(),
        }
        if text.is_empty() {
            self.stdin = None;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let heard = read_from(&mut self.out)? | read_from(&mut self.err)?;
        if heard {
            self.heard = Instant::now();
        }
        Ok(())
    }
}

/// Reads what a pipe holds into its log; `None` once it is closed. Returns whether it held anything.
fn read_from(source: &mut Option<(impl Read, CappedLog)>) -> io::Result<bool> {
    let mut heard = false;
    let mut buffer = [0; 16 << 10];
    let mut is_closed = false;
    // A command that never stops printing must not keep the runner from its times.
    for _ in 0..MOST_READS {
        let Some((pipe, log)) = source else { return Ok(heard) };
        match pipe.read(&mut buffer) {
            Ok(0) => {
                is_closed = true;
                break;
            }
            Ok(count) => {
                heard = true;
                log.write(&buffer[..count])?;
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    if is_closed && let Some((_, log)) = source.take() {
        log.finish()?;
    }
    Ok(heard)
}
