//! What the plan of the next round repeats of this command line.

use super::super::{Failure, command};
use crate::templates::next::{Repeated, RepeatedOption};
use anyhow::Context;
use clap::parser::ValueSource;
use std::path::PathBuf;

/// Options of `aggregate` that belong to one run: the plan has its own, or none.
const OF_ONE_RUN: [&str; 11] = [
    "updates",
    "output",
    "report",
    "plot",
    "plan_out",
    "quiet",
    "verbose",
    "log_format",
    "explain",
    "resumable",
    "release_again",
];

/// The `aggregate` command of this process, as far as the next round repeats it.
pub(in crate::cli) fn repeated() -> Result<Repeated, Failure> {
    let command = command();
    let matches = command.clone().try_get_matches_from(std::env::args_os())?;
    let matches = matches.subcommand_matches("aggregate").context("found another command")?;
    let mut given: Vec<&str> = matches.ids().map(clap::Id::as_str).collect();
    given.retain(|id| matches.value_source(id) == Some(ValueSource::CommandLine) && !OF_ONE_RUN.contains(id));
    given.sort_unstable();
    let command = command.find_subcommand("aggregate").context("found another command")?;
    let mut options = Vec::new();
    for id in given {
        // Groups of options have no name on the command line.
        let Some(known) = command.get_arguments().find(|argument| argument.get_id() == id) else { continue };
        let Some(long) = known.get_long() else { continue };
        let values = matches.get_raw(id).into_iter().flatten().filter(|_| known.get_action().takes_values());
        let values = values.map(ToOwned::to_owned).collect();
        options.push(RepeatedOption { id: id.to_owned(), long: long.to_owned(), values });
    }
    let updates = matches.get_many::<PathBuf>("updates").into_iter().flatten().cloned().collect();
    Ok(Repeated { updates, options })
}
