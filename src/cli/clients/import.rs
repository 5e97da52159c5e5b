//! `fedmill clients import`: registers the clients of a file.

use super::super::{Common, Failure, INPUTS, Outcome, print_account};
use super::state::{StateDirectory, failure};
use crate::fleet::error::FleetError;
use crate::fleet::import::{self, Format, ImportRequest};
use crate::fleet::tables;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// Register the clients of a file.
///
/// Makes the registry if there is none. All rows go into the registry together. Every bad row is reported with its line;
/// then no client is registered, unless --skip-bad leaves the bad rows out. `clients list --json` prints such a file; its
/// keys registered_at and history are ignored.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The file: a JSON array, JSON lines, or CSV with a first row of names. `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The format of the file [default: by its name].
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatOption>,
    /// Give clients that are registered the new values. They keep their history; retired ones come back.
    #[arg(long)]
    update: bool,
    /// Leave bad rows out and register the others.
    #[arg(long)]
    skip_bad: bool,
}

/// The format of a file of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FormatOption {
    Json,
    Jsonl,
    Csv,
}

impl From<FormatOption> for Format {
    fn from(option: FormatOption) -> Self {
        match option {
            FormatOption::Json => Self::Json,
            FormatOption::Jsonl => Self::Lines,
            FormatOption::Csv => Self::Csv,
        }
    }
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let path = self.file.as_path();
        let format = self.format.map(Format::from).or_else(|| Format::of(path));
        let format = format.ok_or_else(|| failure(FleetError::NoFormat { path: path.to_owned() }))?;
        let (update, skip_bad) = (self.update, self.skip_bad);
        let request = ImportRequest { path, format, update, skip_bad, now: Timestamp::now(), key: None };
        register(&self.state, &request, false)
    }
}

/// Registers the clients of a file, and says how many. With `needs_one`, a file without a client is an error.
pub(super) fn register(
    state: &StateDirectory,
    request: &ImportRequest,
    needs_one: bool,
) -> Result<Outcome, Failure> {
    check_readable(request.path)?;
    let mut registry = state.create()?;
    let imported = import::import(&mut registry, request, &mut |line, why| {
        let text = format!("{}: line {line}: {why}", request.path.display());
        match request.skip_bad {
            true => tracing::warn!("{text}"),
            false => tracing::error!("{text}"),
        }
    });
    let imported = imported.map_err(failure)?;
    if needs_one && imported.rows == 0 {
        return Err(failure(FleetError::NoClient { path: request.path.to_owned() }));
    }
    let active = registry.active().map_err(failure)?;
    print_account(&format!("{}\n", tables::imported(imported, active)));
    Ok(Outcome::Done)
}

/// A file that is not there makes no registry.
fn check_readable(path: &Path) -> Result<(), Failure> {
    if path.as_os_str() != "-" {
        let open = crate::io::source::open_regular(path);
        open.map_err(|source| failure(FleetError::Io { path: path.to_owned(), source }))?;
    }
    Ok(())
}
