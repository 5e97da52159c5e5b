//! `fedmill plan export`: what runs did, for other programs.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, is_stdout};
use crate::io::collision::{self, target::is_stream};
use crate::settings::numbers;
use crate::watch::export::{Export, during};
use clap::{ArgGroup, Args};
use std::path::{Path, PathBuf};

/// Write what runs did for Prometheus, OpenTelemetry or a message broker.
///
/// Takes the directory of a run, or a folder that holds such directories. docs/monitoring.md has the figures. Exit
/// status: 0, or 2 if the directory is neither or cannot be read.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["prometheus", "trace", "events"]))]
pub(in crate::cli) struct Arguments {
    /// The directory of a run, or a folder that holds such directories.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    dir: PathBuf,
    #[command(flatten)]
    exports: Exports,
    /// Write the events as CloudEvents 1.0, one JSON object per line; `-` is standard output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    events: Option<PathBuf>,
}

/// What of a run is written for other programs.
#[derive(Args, Debug)]
pub(super) struct Exports {
    /// Write figures of runs as a textfile, which Prometheus reads by way of node_exporter; `-` is standard output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    prometheus: Option<PathBuf>,
    /// Write a trace for OpenTelemetry: OTLP in JSON, one line for each run; `-` is standard output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    trace: Option<PathBuf>,
    /// The share of runs that are traced, from 0 to 1; the id of a run decides.
    #[arg(long, value_name = "P", value_parser = numbers::share, default_value_t = 1.0, requires = "trace", help_heading = OUTPUT)]
    trace_sample: f64,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let events = self.events.as_deref().map(|path| (Export::Events, path));
        self.exports.all().chain(events).try_for_each(|(export, path)| put(export, &self.dir, path))?;
        Ok(Outcome::Done)
    }
}

/// Writes an export into a file, or prints it.
fn put(export: Export, dir: &Path, path: &Path) -> Result<(), Failure> {
    match is_stdout(path) {
        true => Ok(collision::write_output(path, export.text(dir).map_err(Failure::of)?.as_bytes())?),
        false => export.write(dir, path).map_err(Failure::of),
    }
}

impl Exports {
    fn all(&self) -> impl Iterator<Item = (Export, &Path)> {
        let figures = self.prometheus.as_deref().map(|path| (Export::Figures, path));
        let trace = self.trace.as_deref().map(|path| (Export::Trace { sample: self.trace_sample }, path));
        figures.into_iter().chain(trace)
    }

    /// The exports that become files.
    pub(super) fn files(&self) -> Vec<(Export, &Path)> {
        self.all().filter(|(_, path)| !is_stdout(path)).collect()
    }

    /// Does the work of a run, and exports it meanwhile and in the end.
    pub(super) fn of<T>(&self, root: &Path, work: impl FnOnce() -> T) -> Result<T, Failure> {
        // A stream gets the last state alone.
        let textfile = self.prometheus.as_deref().filter(|path| !is_stream(path));
        let done = during(root, textfile, work);
        self.all().try_for_each(|(export, path)| put(export, root, path))?;
        Ok(done)
    }
}
