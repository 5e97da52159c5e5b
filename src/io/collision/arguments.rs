//! The outputs among the arguments of a command.
//!
//! Their paths lead where links lead. They replace nothing that the command reads or writes elsewhere.
//!
//! An output is an option under the heading [`HEADING`] that takes a path of a file. So a new command has the checks
//! without further work.

use super::target::{Target, is_standard_output, is_stream};
use super::{Collision, check};
use crate::io::publish::resolved;
use crate::io::shards;
use crate::io::source::identity_of;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Command, parser::ValueSource};
use std::any::TypeId;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The heading of options that say what a command writes.
pub const HEADING: &str = "Output";

/// Options whose file a command reads and then replaces.
const KEPT: [&str; 2] = ["state", "residual"];

/// Commands whose `--output` is text; of all others it is a model or a file for other commands.
const OF_TEXT: [&str; 3] = ["export", "new", "tiers"];

/// Whether an argument is the path of a file that the command writes.
pub fn is_output(arg: &Arg) -> bool {
    let is_folder = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "DIR"));
    let is_kept = KEPT.iter().any(|id| arg.get_id() == *id);
    is_path(arg) && !is_folder && (arg.get_help_heading() == Some(HEADING) || is_kept)
}

fn is_path(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
}

/// Whether a command writes this output from its beginning to its end, so that it may be a stream.
fn is_text(command: &str, arg: &Arg) -> bool {
    match arg.get_id().as_str() {
        "output" => OF_TEXT.contains(&command),
        id => !KEPT.contains(&id),
    }
}

/// The argument of a command, with a parser that follows links if it is an output.
#[must_use]
pub fn with_target(command: &str, arg: Arg) -> Arg {
    if !is_output(&arg) {
        return arg;
    }
    let is_text = is_text(command, &arg);
    let parser = OsStringValueParser::new().try_map(move |value: OsString| target_of(value.into(), is_text));
    arg.value_parser(ValueParser::new(parser))
}

/// The path that an output is written to.
fn target_of(path: PathBuf, is_text: bool) -> Result<PathBuf, String> {
    if path.as_os_str().is_empty() {
        return Err("the path is empty, expected that of a file".to_owned());
    }
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") && !path.is_dir() {
        return Err(format!("{}: ends with `/`, expected the path of a file", path.display()));
    }
    match Target::of(&path).map_err(|why| format!("{}: {why}", path.display()))? {
        Target::StandardOutput if !is_text => Err(format!(
            "{}: is standard output, expected the path of a file: fedmill writes the parts of this output out of order, \
             and gives it its name once it is whole",
            path.display()
        )),
        Target::Stream(stream) if !is_text && !stream.is_dir() => {
            Err(format!("{}: is no regular file, expected one or none", path.display()))
        }
        // The error about a folder names what the operator wrote.
        Target::File(file) if !file.is_dir() => Ok(file),
        _ => Ok(path),
    }
}

/// Checks that no output of a command line is one of its inputs, or another output, or lies in a state directory of a
/// privacy budget. Files are compared by device and inode, and files that do not exist by their paths.
///
/// # Errors
///
/// The first output that is.
pub fn check_line(command: &Command, matches: &ArgMatches) -> Result<(), Collision> {
    let (command, matches) = innermost(command, matches);
    let given: Vec<&Arg> = given(command, matches).collect();
    let outputs = given.iter().filter(|arg| is_output(arg)).flat_map(|arg| written(arg, matches));
    // A folder is no output: the error about it says so.
    let outputs: Vec<PathBuf> = outputs.filter(|path| !path.is_dir()).collect();
    let inputs = given.iter().filter(|arg| !is_output(arg)).flat_map(|arg| inputs(arg, matches));
    let inputs: Vec<PathBuf> = inputs.filter(|path| path.as_os_str() != "-").collect();
    let read: Vec<(u64, u64)> = inputs.iter().filter_map(|path| identity_of(path)).collect();
    let named = |path: &PathBuf| inputs.iter().any(|input| whole(input) == whole(path));
    if let Some(path) = outputs.iter().find(|path| named(path)) {
        return Err(Collision::Input { path: path.clone() });
    }
    let mut files = BTreeSet::new();
    let is_another =
        |path: &&PathBuf| !is_stream(path) && identity_of(path).is_some_and(|id| !files.insert(id));
    let beside = |path: &PathBuf| {
        let resolved = whole(path);
        let of = outputs.iter().find(|of| belongs_to(&resolved, &whole(of)))?;
        Some(Collision::Beside { path: path.clone(), of: of.clone() })
    };
    if let Some(collision) = outputs.iter().find_map(beside) {
        return Err(collision);
    }
    match outputs.iter().find(is_another) {
        Some(path) => Err(Collision::Output { path: path.clone() }),
        None => check(&outputs, &read),
    }
}

/// The subcommand that a command line runs, with its arguments.
pub fn innermost<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let below = matches.subcommand().and_then(|(name, below)| Some((command.find_subcommand(name)?, below)));
    below.map_or((command, matches), |(command, below)| innermost(command, below))
}

/// The option of a subcommand that sends an output to standard output.
pub fn on_standard_output<'a>(command: &'a Command, matches: &ArgMatches) -> Option<&'a str> {
    let mut outputs = given(command, matches).filter(|arg| is_output(arg));
    let streamed = outputs.find(|arg| written(arg, matches).iter().any(|path| is_standard_output(path)));
    streamed.and_then(Arg::get_long)
}

/// The arguments that stand on the command line.
fn given<'a>(command: &'a Command, matches: &ArgMatches) -> impl Iterator<Item = &'a Arg> {
    let is_given = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    command.get_arguments().filter(is_given)
}

/// The paths that an output names.
fn written(arg: &Arg, matches: &ArgMatches) -> Vec<PathBuf> {
    matches.get_raw(arg.get_id().as_str()).into_iter().flatten().map(PathBuf::from).collect()
}

/// Names that fedmill puts beside a file while it replaces it.
const BESIDE: [&str; 2] = [".previous", ".next"];

/// Whether a file is one that fedmill may write or remove with another one: a shard or the index of that model, or an
/// earlier or later content of it.
fn belongs_to(path: &Path, of: &Path) -> bool {
    let (Some(name), Some(of_name)) = (path.file_name(), of.file_name()) else { return false };
    let (name, of_name) = (name.to_string_lossy(), of_name.to_string_lossy());
    let is_shard = shards::model_stem(&of_name).is_some_and(|stem| {
        shards::is_shard_of(stem, &name) || shards::index_stem(&name).is_some_and(|index| index == stem)
    });
    let is_beside = BESIDE.iter().any(|end| name.strip_suffix(end) == Some(&of_name));
    path.parent() == of.parent() && (is_shard || is_beside)
}

/// The paths that an argument names: one, or that behind the name in `NAME=PATH`.
fn inputs(arg: &Arg, matches: &ArgMatches) -> Vec<PathBuf> {
    let id = arg.get_id().as_str();
    if is_path(arg) {
        return matches.get_many::<PathBuf>(id).into_iter().flatten().cloned().collect();
    }
    match arg.get_value_parser().type_id() == TypeId::of::<(String, PathBuf)>() {
        true => matches
            .get_many::<(String, PathBuf)>(id)
            .into_iter()
            .flatten()
            .map(|(_, path)| path.clone())
            .collect(),
        false => Vec::new(),
    }
}

/// The one path of a file that need not exist.
fn whole(path: &Path) -> PathBuf {
    match Target::of(path) {
        Ok(Target::File(file)) => resolved(&file),
        _ => path.to_owned(),
    }
}
