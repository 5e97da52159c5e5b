//! Writes what runs did into files for other programs, once or while a run goes on.

use super::history::runs;
use super::search::Filter;
use super::status::Watched;
use super::{cloud, figures, trace};
use crate::io::source::identity_of;
use crate::io::{collision, folder};
use crate::plan::run::claim::{self, Holds, is_run};
use crate::plan::run::error::RunError;
use crate::plan::run::journal::JOURNAL;
use crate::plan::run::process::{ATTEMPTS, WORK};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two textfiles of a run.
const EVERY: Duration = Duration::from_secs(1);

/// A textfile is not written more often than this many times the time that it takes.
const SHARE: u32 = 20;

/// The text of what a run, or the runs in a folder, did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Export {
    /// Figures for Prometheus.
    Figures,
    /// A trace for OpenTelemetry, a line for each run.
    Trace {
        /// The share of runs that are traced, from 0 to 1.
        sample: f64,
    },
    /// Events for message brokers, a line for each.
    Events,
}

impl Export {
    /// The text for the run in a directory, or for the runs in a folder, the last first. Runs of a folder that cannot be
    /// read are left out.
    ///
    /// # Errors
    ///
    /// When the directory is neither, or cannot be read.
    pub fn text(self, dir: &Path) -> Result<String, RunError> {
        if self == Self::Figures {
            return figures::textfile(dir);
        }
        let mut text = String::new();
        for root in named(dir)? {
            let watched = Watched::read(&root)?;
            match self {
                Self::Trace { sample } if trace::is_sampled(&watched.id(), sample) => {
                    let name = root.file_name().unwrap_or_default().to_string_lossy();
                    text.extend(trace::message(&watched, &name).map(|message| format!("{message}\n")));
                }
                Self::Events => text.extend(cloud::events(&watched).map(|event| format!("{event}\n"))),
                Self::Trace { .. } | Self::Figures => {}
            }
        }
        Ok(text)
    }

    /// Writes the text as a whole file, which may replace an earlier export of its kind.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), when a run cannot be read, or the file cannot be written.
    pub fn write(self, dir: &Path, path: &Path) -> Result<(), RunError> {
        let text = self.text(dir)?;
        self.check(path)?;
        Ok(collision::write_output(path, text.as_bytes())?)
    }

    /// Checks that a file is an earlier export of this kind, or there is none, and that no runner keeps it.
    ///
    /// # Errors
    ///
    /// When the path is that of another file, or lies in the directory of a run.
    pub fn check(self, path: &Path) -> Result<(), RunError> {
        let (start, what) = match self {
            Self::Figures => ("# HELP fedmill_", "an earlier textfile of fedmill"),
            Self::Trace { .. } => ("{\"resourceSpans\":", "an earlier trace of fedmill"),
            Self::Events => ("{\"specversion\":", "earlier events of fedmill"),
        };
        check_outside(path)?;
        Ok(collision::check_earlier(path, start, what)?)
    }
}

/// Checks that an output of a command replaces no file that a runner keeps: one in the directory of a run, a rendered
/// plan or a task. An attempt may write into the folder in which it works.
///
/// # Errors
///
/// When the output is in such a directory; the error names it.
pub fn check_outside(output: &Path) -> Result<(), RunError> {
    let whole = collision::destination(output);
    let Some(kept) = whole.ancestors().skip(1).find(|above| claim::of(above) != Holds::Nothing) else {
        return Ok(());
    };
    let inside: Vec<_> = whole.strip_prefix(kept).into_iter().flat_map(Path::components).collect();
    match inside.as_slice() {
        [attempts, _, work, _, ..] if attempts.as_os_str() == ATTEMPTS && work.as_os_str() == WORK => Ok(()),
        _ => Err(RunError::Kept { path: output.to_owned(), directory: kept.to_owned() }),
    }
}

/// Checks before a run that it may write its exports: outside of its directory, and over nothing but earlier exports.
///
/// # Errors
///
/// The first export that it may not write.
pub fn check_all(exports: &[(Export, &Path)], root: &Path) -> Result<(), RunError> {
    for (export, path) in exports {
        export.check(path)?;
        if collision::destination(path).starts_with(collision::destination(root)) {
            return Err(RunError::Kept { path: (*path).to_owned(), directory: root.to_owned() });
        }
    }
    check_inputs(exports, std::iter::empty())
}

/// Checks that no export is another one, or a file that the run reads.
///
/// # Errors
///
/// The first export that is one.
pub fn check_inputs(
    exports: &[(Export, &Path)],
    read: impl Iterator<Item = PathBuf>,
) -> Result<(), RunError> {
    let paths: Vec<PathBuf> = exports.iter().map(|(_, path)| (*path).to_owned()).collect();
    let may_replace = paths.iter().any(|path| identity_of(path).is_some());
    let read: Vec<(u64, u64)> = match may_replace {
        true => read.filter_map(|path| identity_of(&path)).collect(),
        false => Vec::new(),
    };
    Ok(collision::check(&paths, &read)?)
}

/// The directories of runs: this one, or those in this folder that can be read, the last first.
fn named(dir: &Path) -> Result<Vec<PathBuf>, RunError> {
    if is_run(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let readable = runs(dir, &Filter::default())?.into_iter().filter(|run| run.state != "unreadable");
    Ok(readable.map(|run| dir.join(run.run)).collect())
}

/// Does the work of a run, and meanwhile writes its textfile, if there is to be one, whenever its journal grew.
pub fn during<T>(root: &Path, textfile: Option<&Path>, work: impl FnOnce() -> T) -> T {
    let Some(path) = textfile else { return work() };
    let (sender, receiver) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut pause, mut written, mut has_warned) = (EVERY, 0, false);
            while receiver.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let bytes = folder::bytes(&root.join(JOURNAL)).unwrap_or(0);
                if bytes == written {
                    continue;
                }
                let began = Instant::now();
                match Export::Figures.write(root, path) {
                    Ok(()) => written = bytes,
                    Err(why) if !has_warned => {
                        tracing::warn!("--prometheus: {why}");
                        has_warned = true;
                    }
                    Err(_) => {}
                }
                pause = EVERY.max(began.elapsed() * SHARE);
            }
        });
        let done = work();
        drop(sender);
        done
    })
}
