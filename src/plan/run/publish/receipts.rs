//! Receipts, and the results of an earlier run that a run of an edited plan takes over.
//!
//! A result is taken over if the key of the work is equal: see [`fill`](crate::plan::run::fill). The journal of the
//! earlier run has the keys, its receipts prove the results, and its store has the files.

use super::reads::SEEN;
use super::{is_output, outputs_of, store_of};
use crate::io::digest::known::Known;
use crate::io::digest::store::Stored;
use crate::io::{folder, text};
use crate::plan::run::claim::{self, Holds};
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Artifact, Event, Made};
use crate::plan::run::key::Key;
use crate::plan::run::world::{Job, Receipt, Task};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most bytes of a receipt.
const MOST_BYTES: u64 = 256 << 20;

/// Reads the receipt in a file of a run's directory, of the instance with this name where one is stated. `None` if the
/// file proves nothing: the store has not what it says.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read(
    root: &Path,
    path: &Path,
    instance: Option<&str>,
    known: &Known,
) -> Result<Option<Receipt>, RunError> {
    if !folder::exists(path) {
        return Ok(None);
    }
    let text = text::read_at_most(path, MOST_BYTES)
        .map_err(|source| RunError::Read { path: path.to_owned(), source })?;
    // A receipt that is no receipt proves nothing: the work is done again.
    let Ok(receipt) = serde_json::from_str::<Receipt>(&text) else { return Ok(None) };
    let is_its_own = instance.is_none_or(|instance| receipt.instance == instance);
    let store = store_of(root);
    let holds = receipt.made.outputs.values().all(|artifact| {
        let is_whole = |found: Stored| found == stored(artifact);
        is_output(artifact, &receipt.instance)
            && known.identify(&store.path(&artifact.blake3)).is_ok_and(is_whole)
    });
    Ok((is_its_own && holds).then_some(receipt))
}

/// Where the receipt of an instance lies.
pub fn path_of(root: &Path, name: &str) -> PathBuf {
    root.join("receipts").join(format!("{name}.json"))
}

fn stored(artifact: &Artifact) -> Stored {
    Stored { blake3: artifact.blake3.clone(), bytes: artifact.bytes }
}

/// Gives the outputs of equal work, whose bytes the store of a run has, their names as outputs of a job.
///
/// # Errors
///
/// When a name cannot be made.
pub fn adopt(mut made: Made, job: &Job, root: &Path, known: &Known) -> Result<Made, RunError> {
    let store = store_of(root);
    for artifact in made.outputs.values_mut() {
        let file = artifact.path.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
        let name = outputs_of(&job.name).join(file);
        let path = root.join(&name);
        let named = store.name(&stored(artifact), &path, known);
        named.map_err(|source| RunError::Write { path, source })?;
        artifact.path = name.to_string_lossy().into_owned();
    }
    Ok(made)
}

/// A run whose results another one may take over.
#[derive(Clone, Debug)]
pub struct Earlier {
    root: PathBuf,
    /// The instances that succeeded, with the times of that in milliseconds since 1970, by the keys of their work.
    done: BTreeMap<String, Vec<(String, u64)>>,
}

impl Earlier {
    /// The run in a directory; `holder` says which process works on it.
    ///
    /// # Errors
    ///
    /// When it holds no run, a runner works on it, or it cannot be read.
    pub fn open(
        root: &Path,
        holder: impl Fn(&Path) -> Result<Option<String>, RunError>,
    ) -> Result<Self, RunError> {
        if let Holds::Task(above) = claim::of(root) {
            return Err(RunError::OfRendered { path: root.to_owned(), above });
        }
        if let Some(holder) = holder(root)? {
            return Err(RunError::Locked { path: root.to_owned(), holder });
        }
        let (plan, _, journal) = claim::read_run(root)?;
        let root = folder::real(root).map_err(|source| RunError::Read { path: root.to_owned(), source })?;
        let mut begun: BTreeMap<Key, String> = BTreeMap::new();
        let mut done: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for line in journal.lines {
            match line.entry.data {
                Event::Begin { key, work, .. } => drop(begun.insert(key, work)),
                Event::Made { key, .. } if key.shadow.is_none() => {
                    let time = line.entry.time.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond);
                    let (name, time) = (key.name(&plan), u64::try_from(time).unwrap_or(0));
                    let work = begun.get(&key).cloned().unwrap_or_default();
                    done.entry(work).or_default().push((name, time));
                }
                _ => {}
            }
        }
        Ok(Self { root, done })
    }

    /// The file with the digests that its runner knew.
    pub fn seen(&self) -> PathBuf {
        self.root.join(SEEN)
    }

    /// The result of equal work, with its files among the outputs of a job; of the instance with the name of the job, or
    /// of another one outside of loops.
    ///
    /// # Errors
    ///
    /// When a receipt cannot be read, or a file cannot be taken over.
    pub fn take(&self, job: &Job, root: &Path, known: &Known) -> Result<Option<Made>, RunError> {
        let is_own = |(name, _): &&(String, u64)| *name == job.name;
        let equal = self.done.get(&job.work).map_or(&[][..], Vec::as_slice);
        let own = equal.iter().rev().find(is_own);
        // The iterations of a loop may differ in what no key has.
        let other = equal.last().filter(|_| job.key.iteration == 0);
        let Some((name, time)) = own.or(other) else { return Ok(None) };
        if changed_since(job, *time) {
            return Ok(None);
        }
        let receipt = read(&self.root, &path_of(&self.root, name), Some(name), known)?;
        let measures_all = |made: &Made| job.metrics.iter().all(|metric| made.metrics.contains_key(metric));
        let fits = |receipt: &Receipt| receipt.work == job.work && measures_all(&receipt.made);
        let Some(Receipt { made, .. }) = receipt.filter(fits) else { return Ok(None) };
        let (from, to) = (store_of(&self.root), store_of(root));
        for artifact in made.outputs.values().map(stored).filter(|artifact| !to.holds(artifact)) {
            let path = to.path(&artifact.blake3);
            from.name(&artifact, &path, known).map_err(|source| RunError::Write { path, source })?;
        }
        let made = Made { from: format!("{}: {name}", self.root.display()), ..made };
        adopt(made, job, root, known).map(Some)
    }
}

/// Whether a program or another file that a command line names changed since a time. The key has the content of inputs
/// and outputs alone.
fn changed_since(job: &Job, time: u64) -> bool {
    let Task::Command { argv, .. } = &job.task else { return false };
    let is_read = |path: &Path| job.reads.iter().any(|(read, _)| Path::new(read) == path);
    let paths = argv.iter().filter(|argument| argument.contains('/'));
    let files = paths.map(|argument| Path::new(&job.base).join(argument)).filter(|path| !is_read(path));
    let mut files =
        files.filter_map(|path| folder::resolved(&path).ok()).filter(|path| folder::is_plain_file(path));
    files.any(|path| folder::changed_ms(&path).is_ok_and(|changed| changed > time))
}
