//! The files that attempts read: pinned inputs, and outputs as other stages made them.
//!
//! Each is looked at before and after each attempt that reads it, and all results when a run is taken up again. A look
//! reads the bytes of a file only if its size, inode or times changed.

use super::receipts::Earlier;
use super::store_of;
use crate::io::digest::known::Known;
use crate::io::digest::store::Stored;
use crate::io::folder;
use crate::plan::run::error::RunError;
use crate::plan::run::event::{Artifact, Event, Failure, Made};
use crate::plan::run::world::Job;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file with the digests that a runner knew at its end, in the directory of a run.
pub const SEEN: &str = "seen.json";

/// The files that a run knows.
#[derive(Default, Debug)]
pub struct Files {
    /// Their digests.
    pub known: Known,
    /// The files of the inputs, by name.
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    /// The run whose results this one may take over.
    pub earlier: Option<Earlier>,
    /// The file that has the digests later.
    seen: Option<PathBuf>,
    restoring: Mutex<()>,
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(path) = &self.seen {
            // Without it the next runner reads the files once more.
            let _ = self.known.write(path);
        }
    }
}

impl Files {
    /// These digests, and the files of these inputs. At the end the run in `root` keeps the digests.
    pub fn new(known: Known, inputs: BTreeMap<String, Vec<Artifact>>, root: &Path) -> Self {
        let (seen, restoring) = (Some(root.join(SEEN)), Mutex::default());
        Self { known, inputs, earlier: None, seen, restoring }
    }

    /// The same files, in a run that may take over results of an earlier one.
    #[must_use]
    pub fn reusing(mut self, earlier: Option<Earlier>) -> Self {
        earlier.iter().for_each(|earlier| self.known.add(&earlier.seen()));
        self.earlier = earlier;
        self
    }

    /// Checks the files that an attempt is about to read. An output that is gone gets its name back if the store has it.
    ///
    /// # Errors
    ///
    /// When a file changed, or is missing.
    pub fn check(&self, job: &Job, root: &Path) -> Result<(), Failure> {
        let mut reads = job.reads.iter();
        reads.try_for_each(|(path, file)| {
            let path = Path::new(path);
            let of_input = self.input(job, path, file);
            let checked = match &of_input {
                Some(_) => unchanged(path, file, &self.known, "the run started"),
                None => self.output(path, file, home(path, file, root).as_deref()),
            };
            checked.map_err(|why| Failure::Start(of_input.unwrap_or_default() + &why))
        })
    }

    /// Checks that the files that an attempt read did not change meanwhile.
    ///
    /// # Errors
    ///
    /// When one did.
    pub fn check_again(&self, job: &Job) -> Result<(), Failure> {
        let mut reads = job.reads.iter();
        reads.try_for_each(|(path, file)| {
            let path = Path::new(path);
            let name = || self.input(job, path, file).unwrap_or_default();
            let checked = unchanged(path, file, &self.known, "the attempt began");
            checked.map_err(|why| Failure::Outputs(name() + &why))
        })
    }

    /// Checks the results that a journal counts. An output that is gone gets its name back if the store has it.
    ///
    /// # Errors
    ///
    /// When a file changed, or is missing.
    pub fn check_results<'e>(
        &self,
        events: impl Iterator<Item = &'e Event>,
        root: &Path,
    ) -> Result<(), RunError> {
        let made = events.filter_map(|event| match event {
            Event::Made { made, .. } => Some(made.outputs.values()),
            _ => None,
        });
        let results: BTreeMap<&str, &Artifact> =
            made.flatten().map(|file| (file.path.as_str(), file)).collect();
        let homes = results.into_values().filter_map(|file| {
            let path = root.join(&file.path);
            Some((home(&path, file, root)?, path, file))
        });
        let homes: Vec<(PathBuf, PathBuf, &Artifact)> = homes.collect();
        // All threads share the work on those that changed or are new; each is judged below.
        let objects = homes.iter().map(|(home, _, file)| store_of(home).path(&file.blake3));
        let paths = homes.iter().map(|(_, path, _)| path.clone()).chain(objects);
        self.known.identify_all(&paths.collect::<Vec<_>>());
        for (home, path, file) in homes {
            self.output(&path, file, Some(&home)).map_err(|why| RunError::Result { why })?;
            let object = store_of(&home).path(&file.blake3);
            if folder::exists(&object) {
                let checked = unchanged(&object, file, &self.known, "the stage made it");
                checked.map_err(|why| RunError::Result { why })?;
            }
        }
        Ok(())
    }

    /// Checks the outputs of a result, as [`check_results`](Self::check_results) does.
    ///
    /// # Errors
    ///
    /// When a file changed, or is missing.
    pub fn check_outputs(&self, made: &Made, root: &Path) -> Result<(), RunError> {
        made.outputs.values().try_for_each(|file| {
            let path = root.join(&file.path);
            let home = home(&path, file, root);
            self.output(&path, file, home.as_deref()).map_err(|why| RunError::Result { why })
        })
    }

    /// Checks an output; `home` is the directory of the run or task whose store has it.
    fn output(&self, path: &Path, file: &Artifact, home: Option<&Path>) -> Result<(), String> {
        let since = "the stage made it";
        let Some(home) = home else { return unchanged(path, file, &self.known, since) };
        let (store, stored) = (store_of(home), stored(file));
        let object = store.path(&stored.blake3);
        if !folder::exists(path) {
            let _one = self.restoring.lock().unwrap_or_else(PoisonError::into_inner);
            if !folder::exists(path) && folder::exists(&object) {
                unchanged(&object, file, &self.known, since)?;
                let restored = store.name(&stored, path, &self.known);
                restored.map_err(|why| format!("{}: cannot be restored: {why}", path.display()))?;
            }
        }
        unchanged(path, file, &self.known, since).map_err(|why| {
            let is_whole = self.known.identify(&object).is_ok_and(|found| found == stored);
            let hint = "; remove the file, and the next runner restores it from the store";
            if is_whole { why + hint } else { why }
        })
    }

    /// The name of the input that a file belongs to, as the beginning of a message.
    fn input(&self, job: &Job, path: &Path, file: &Artifact) -> Option<String> {
        let is_ours = |files: &Vec<Artifact>| {
            path == Path::new(&job.base).join(&file.path) && files.iter().any(|other| other == file)
        };
        self.inputs.iter().find(|(_, files)| is_ours(files)).map(|(name, _)| format!("input `{name}`: "))
    }
}

/// Checks that a file has the digest and size of an artifact.
///
/// # Errors
///
/// What was found, in words.
pub fn unchanged(path: &Path, file: &Artifact, known: &Known, since: &str) -> Result<(), String> {
    let shown = path.display();
    match known.identify(path) {
        Ok(found) if found == stored(file) => Ok(()),
        Ok(found) => Err(differs(path, &found, file, since)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            Err(format!("{shown}: is missing, and was there when {since}: expected BLAKE3 {}", file.blake3))
        }
        Err(why) => Err(format!("{shown}: {why}")),
    }
}

/// What is wrong with a file that has another content than the run knows, in words.
pub fn differs(path: &Path, found: &Stored, file: &Artifact, since: &str) -> String {
    format!(
        "{}: changed since {since}: found {} bytes with BLAKE3 {}, expected {} bytes with BLAKE3 {}",
        path.display(),
        found.bytes,
        found.blake3,
        file.bytes,
        file.blake3
    )
}

fn stored(file: &Artifact) -> Stored {
    Stored { blake3: file.blake3.clone(), bytes: file.bytes }
}

/// The directory of the run, or of the task, whose output a path is; `None` for an input.
fn home(path: &Path, file: &Artifact, root: &Path) -> Option<PathBuf> {
    let relative = Path::new(&file.path);
    if path != root.join(relative) {
        return None;
    }
    let mut parts = relative.components();
    match parts.next()? {
        Component::ParentDir => Some(root.join("..").join(parts.next()?)),
        Component::Normal(_) => Some(root.to_owned()),
        _ => None,
    }
}
