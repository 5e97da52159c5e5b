//! Writes what runs did into files for other programs, once or while a run goes on.

use super::history::runs;
use super::search::Filter;
use super::status::Watched;
use super::{cloud, figures, trace};
use crate::io::folder;
use crate::plan::run::claim::is_run;
use crate::plan::run::error::RunError;
use crate::plan::run::journal::JOURNAL;
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

    /// Writes the text as a whole file.
    ///
    /// # Errors
    ///
    /// When a run cannot be read, or the file cannot be written.
    pub fn write(self, dir: &Path, path: &Path) -> Result<(), RunError> {
        let written = folder::write_file_on_disk(path, self.text(dir)?.as_bytes());
        written.map_err(|source| RunError::Write { path: path.to_owned(), source })
    }
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
