//! The end of a command line that clap refuses: its message, and the report if one is asked for.

use crate::engine::aggregate::publish::publish_failure;
use crate::engine::aggregate::request::{Outputs, Readers};
use crate::io::collision::destination;
use crate::io::source::identity_of;
use crate::telemetry::console::{self, LogFormat};
use crate::telemetry::explain::plain;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing::Level;

/// Prints the message of clap. Writes the report that the arguments ask for.
pub(super) fn tell(why: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if why.use_stderr()
        && value(arguments, &["--log-format"]).is_some_and(|format| format.as_os_str() == "json")
    {
        console::install(Level::ERROR, LogFormat::Json);
        match tips(why) {
            Some(hint) => tracing::error!(hint, "{}", message(why)),
            None => tracing::error!("{}", message(why)),
        }
    } else {
        let text = plain(why.render().ansi().to_string());
        // Nothing is left to do where a stream is closed.
        let _ = match why.use_stderr() {
            true => write!(anstream::stderr(), "{text}"),
            false => write!(anstream::stdout(), "{text}"),
        };
    }
    if !why.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if why.kind() != ErrorKind::UnknownArgument || !why.to_string().contains("'--report'") {
        write_report(arguments, message(why));
    }
    ExitCode::from(2)
}

/// Writes the report of a command that begins no run, if the arguments ask for one.
pub(super) fn write_report(arguments: &[OsString], why: String) {
    let Some(outputs) = outputs(arguments) else { return };
    let is_named_once = outputs.report.as_ref().is_none_or(|report| places_of(arguments, report) < 2);
    let written = match is_named_once {
        true => publish_failure(&outputs, None, (why, false)).map_err(|why| why.to_string()),
        false => Err("its file stands twice on the command line".to_owned()),
    };
    if let Err(why) = written {
        console::tell(&format!("warning: no report was written: {why}"));
    }
}

/// The number of arguments that name a file, by itself or behind `=`.
fn places_of(arguments: &[OsString], file: &Path) -> usize {
    let (whole, own) = (destination(file), identity_of(file));
    let is_it = |path: &Path| {
        let is_same = own.is_some() && identity_of(path) == own;
        is_same || destination(path) == whole
    };
    let names_it = |argument: &&OsString| {
        let text = argument.to_string_lossy();
        is_it(Path::new(argument)) || text.split_once('=').is_some_and(|(_, value)| is_it(Path::new(value)))
    };
    arguments.iter().filter(names_it).count()
}

/// The outputs that the arguments name; `None` without `--report`. clap reads nothing behind the first error.
fn outputs(arguments: &[OsString]) -> Option<Outputs> {
    let report = value(arguments, &["--report"])?;
    let is_private = value(arguments, &["--dp"]).is_some();
    Some(Outputs {
        model: value(arguments, &["--output", "-o"]).unwrap_or_default(),
        max_shard_bytes: None,
        report: Some(report),
        plot: None,
        readers: if is_private { Readers::Owner { of_clients: false } } else { Readers::All },
        state: value(arguments, &["--state"]),
    })
}

/// The value of an option: the next argument, or the text behind `=`.
fn value(arguments: &[OsString], names: &[&str]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        match text.split_once('=') {
            Some((name, value)) if names.contains(&name) => return Some(value.into()),
            None if names.contains(&&*text) => {
                let is_value = |next: &&OsString| !next.to_string_lossy().starts_with("--");
                return arguments.next().filter(is_value).map(PathBuf::from);
            }
            _ => {}
        }
    }
    None
}

/// The first paragraph of clap's message as one line, without its label.
fn message(why: &clap::Error) -> String {
    let text = plain(why.render().to_string());
    let paragraph = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = paragraph.collect::<Vec<&str>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// What clap proposes instead.
fn tips(why: &clap::Error) -> Option<String> {
    let text = plain(why.render().to_string());
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    Some(tips.collect::<Vec<&str>>().join("; ")).filter(|tips| !tips.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_behind_their_option() {
        let arguments = ["fedmill", "aggregate", "-o", "m", "--report=r.json", "--", "--state", "s"];
        let arguments = arguments.map(OsString::from);
        assert_eq!(value(&arguments, &["--output", "-o"]), Some("m".into()));
        assert_eq!(value(&arguments, &["--report"]), Some("r.json".into()));
        assert_eq!(value(&arguments, &["--state"]), None);
        let arguments = ["fedmill", "aggregate", "--report", "--bogus"].map(OsString::from);
        assert_eq!(value(&arguments, &["--report"]), None, "an option is no value");
    }
}
