//! Runs a command that measures something.
//!
//! The command runs in a process group that ends at a timeout or a signal. It prints one JSON object of numbers.

use super::group::Group;
use super::never_wait;
use crate::io::interrupt::{self, Interrupted};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The most bytes that a command may print.
const MOST_BYTES: usize = 1 << 20;

/// Pause between two looks at the command.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Time between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(2);

/// The same when the run itself is asked to end, which an operator or systemd waits for.
const GRACE_AT_SIGNAL: Duration = Duration::from_millis(500);

/// Why a command measured nothing.
#[derive(thiserror::Error, Debug)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum MeasureError {
    #[error("`{program}` cannot be started: {source}")]
    Start { program: String, source: io::Error },
    #[error("`{program}` ended with {status}")]
    Failed { program: String, status: ExitStatus },
    #[error("`{program}` took longer than {seconds} s, and was ended")]
    TooLong { program: String, seconds: f64 },
    #[error("`{program}` printed no JSON object of numbers: {why}")]
    NoNumbers { program: String, why: String },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Runs a command in a directory with these variables, and returns the numbers that it prints.
///
/// # Errors
///
/// When the command cannot be started, fails, takes too long, or prints something else.
pub fn measure(
    command: &[String],
    directory: &Path,
    variables: &[(&str, String)],
    timeout: Duration,
) -> Result<BTreeMap<String, f64>, MeasureError> {
    let program = command.first().cloned().unwrap_or_default();
    let mut started = Command::new(&program);
    started.args(command.get(1..).unwrap_or_default()).current_dir(directory);
    started.envs(variables.iter().map(|(name, value)| (*name, value)));
    started.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = |source| MeasureError::Start { program: program.clone(), source };
    let mut group = Group::start(&mut started).map_err(start)?;
    let mut out = Output { pipe: group.child().stdout.take(), text: Vec::new() };
    out.pipe.iter().try_for_each(never_wait).map_err(start)?;
    wait(&mut group, &mut out, &program, timeout)?;
    let status = group.finish().map_err(start)?;
    // What it printed is in the pipe, which a child in another group may keep open.
    out.read();
    if !status.success() {
        return Err(MeasureError::Failed { program, status });
    }
    numbers(&out.text).map_err(|why| MeasureError::NoNumbers { program, why })
}

/// What a command printed so far.
struct Output {
    pipe: Option<ChildStdout>,
    text: Vec<u8>,
}

impl Output {
    /// Reads what the pipe holds, and waits for nothing.
    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 && self.text.len() < MOST_BYTES => {
                    self.text.extend_from_slice(&buffer[..count]);
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                _ => self.pipe = None,
            }
        }
    }
}

/// Waits until a command ended.
fn wait(group: &mut Group, out: &mut Output, program: &str, timeout: Duration) -> Result<(), MeasureError> {
    let started = Instant::now();
    loop {
        out.read();
        if let Ok(Some(_)) = group.status() {
            return Ok(());
        }
        if let Err(interrupted) = interrupt::check() {
            group.end(GRACE_AT_SIGNAL);
            return Err(interrupted.into());
        }
        if started.elapsed() > timeout {
            group.end(GRACE);
            let seconds = timeout.as_secs_f64();
            return Err(MeasureError::TooLong { program: program.to_owned(), seconds });
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The numbers of a JSON object. NaN and infinity, which JSON lacks and Python writes, are numbers too.
fn numbers(text: &[u8]) -> Result<BTreeMap<String, f64>, String> {
    let text = std::str::from_utf8(text).map_err(|why| why.to_string())?;
    let object: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&without_nan(text)).map_err(|why| why.to_string())?;
    let number = |(name, value): (String, serde_json::Value)| match value.as_f64() {
        Some(number) => Ok((name, number)),
        None if value.is_null() => Ok((name, f64::NAN)),
        None => Err(format!("{name} is {value}")),
    };
    object.into_iter().map(number).collect()
}

/// The text with `null` in place of NaN and infinity outside of strings.
fn without_nan(text: &str) -> String {
    let parts = text.split('"').enumerate().map(|(place, part)| match place % 2 {
        0 => part.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_no_number() {
        let found = numbers(br#"{"loss": NaN, "NaN": 2, "a": -Infinity, "b": null}"#).unwrap();
        assert_eq!(found["NaN"], 2.0);
        assert!(["loss", "a", "b"].iter().all(|name| found[*name].is_nan()));
        assert!(numbers(b"[1]").is_err() && numbers(br#"{"a": "x"}"#).is_err() && numbers(b"").is_err());
    }
}
