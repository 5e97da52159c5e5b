//! A command in a process group: the processes that it starts end with it.

use super::with_variables;
use crate::io::interrupt;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a command that was asked to end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The most scans of all processes for those of one command.
const MOST_SCANS: usize = 10;

/// A command and the processes that it started. All of them are killed when the value is dropped.
#[derive(Debug)]
pub struct Group {
    child: Child,
    /// The time from which on a group that was asked to end is killed.
    deadline: Option<Instant>,
    is_over: bool,
    /// Variables that only the processes of this command have.
    marks: Vec<(String, String)>,
    /// Whether the processes were asked to end.
    is_asked: bool,
}

impl Group {
    /// Starts a command in a process group.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // Its processes end before this one.
        interrupt::ends_itself();
        let child = command.process_group(0).spawn()?;
        Ok(Self { child, deadline: None, is_over: false, marks: Vec::new(), is_asked: false })
    }

    /// Names variables with values that only the processes of this command have. A process may leave its group, and keeps
    /// its variables: if the command does not end by itself, such processes end with it.
    pub fn mark(&mut self, marks: Vec<(String, String)>) {
        self.marks = marks;
    }

    /// The command, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How the command ended; `None` while it runs.
    ///
    /// # Errors
    ///
    /// When the system cannot say.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks all processes to end (SIGTERM). [`Group::kill_if_late`] kills those that are left after `grace`.
    pub fn ask_to_end(&mut self, grace: Duration) {
        self.is_asked = true;
        self.signal(Signal::TERM);
        self.deadline = Some(Instant::now() + grace);
    }

    /// Kills all processes, once, if they were asked to end and their time is over.
    pub fn kill_if_late(&mut self) {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.signal(Signal::KILL);
            self.deadline = None;
        }
    }

    /// Asks all processes to end, and waits until the command ended, at most for `grace`.
    pub fn end(&mut self, grace: Duration) {
        self.ask_to_end(grace);
        while self.deadline.is_some() && matches!(self.status(), Ok(None)) {
            thread::sleep(LOOK_EVERY);
            self.kill_if_late();
        }
    }

    /// Kills the processes that are left, and returns how the command ended.
    ///
    /// # Errors
    ///
    /// When the system cannot say.
    pub fn finish(mut self) -> io::Result<ExitStatus> {
        self.kill()
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        if !self.is_over {
            self.is_over = true;
            self.signal(Signal::KILL);
        }
        self.child.wait()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // A group that ended needs no signal.
            let _ = kill_process_group(group, signal);
        }
        if self.is_asked && !self.marks.is_empty() {
            self.signal_strays(signal);
        }
    }

    /// Sends a signal to the processes in other groups.
    fn signal_strays(&self, signal: Signal) {
        let marks: Vec<(&str, &str)> =
            self.marks.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // A process may start another one before its signal comes.
        for _ in 0..if signal == Signal::KILL { MOST_SCANS } else { 1 } {
            let found = with_variables(&marks);
            if found.is_empty() {
                return;
            }
            for pid in found.into_iter().filter_map(Pid::from_raw) {
                // A process that ended needs no signal.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A dropped group has no reader of its status.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    fn shell(script: &str) -> Group {
        Group::start(Command::new("sh").args(["-c", script]).stdout(Stdio::piped())).unwrap()
    }

    /// What a group printed, once no process of it has its standard output open.
    fn printed(group: &mut Group) -> String {
        let mut text = String::new();
        group.child().stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_children_of_a_command_end_with_it() {
        let began = Instant::now();
        let mut group = shell("sleep 30 & echo started");
        while group.status().unwrap().is_none() {
            thread::sleep(LOOK_EVERY);
        }
        let mut pipe = group.child().stdout.take().unwrap();
        assert!(group.finish().unwrap().success());
        pipe.read_to_string(&mut String::new()).unwrap();
        let mut pipe = shell("sleep 30 & sleep 30").child().stdout.take().unwrap();
        pipe.read_to_string(&mut String::new()).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "a child kept its pipe open");
    }

    #[test]
    fn a_command_that_ignores_the_request_is_killed_after_its_time() {
        let mut group = shell("trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done");
        let mut first = [0; 6];
        group.child().stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        let began = Instant::now();
        group.end(Duration::from_millis(300));
        assert!((300..5000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert_eq!(printed(&mut group), "asked\n");
        let mut group = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        group.child().stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        group.end(Duration::from_secs(20));
        assert_eq!(group.finish().unwrap().code(), Some(7));
    }
}
