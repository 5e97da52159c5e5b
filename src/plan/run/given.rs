//! What an outer run gives to the run of an inner plan, and the pins of the inner files.

use super::error::RunError;
use super::event::{Artifact, Event};
use crate::io::digest::store::identify;
use crate::io::{folder, text};
use crate::plan::nested;
use crate::schema::Plan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most bytes of the file with the inputs.
const MOST_BYTES: u64 = 64 << 20;

/// The file with the inputs that the outer run gives, in the directory of the inner one.
pub const GIVEN: &str = "given.json";

/// The name among the inputs of a run under which the file of a nested plan is pinned. No input has a space in its name.
pub fn pin_of(file: &str) -> String {
    format!("plan {file}")
}

/// The files of all plans that a plan runs, with their digests.
pub fn pins(plan: &Plan, base: &Path) -> Vec<Result<(String, Vec<Artifact>), RunError>> {
    let found = match nested::all(plan, base, None) {
        Ok(found) => found,
        Err((at, why)) => return vec![Err(RunError::Plan { at, why })],
    };
    let pinned = found.into_iter().map(|inner| {
        let path = inner.file.to_string_lossy().into_owned();
        let stored = identify(&base.join(&inner.file))
            .map_err(|source| RunError::Read { path: base.join(&inner.file), source })?;
        Ok((pin_of(&path), vec![Artifact { path, blake3: stored.blake3, bytes: stored.bytes }]))
    });
    pinned.collect()
}

/// The events of a run. The inputs of an inner run get their present paths, where the outer run got another name since:
/// their digests tell whether they are the same files.
pub fn at_present(mut events: Vec<Event>, root: &Path, given: &BTreeMap<String, Vec<PathBuf>>) -> Vec<Event> {
    for event in events.iter_mut().filter(|_| folder::exists(&root.join(GIVEN))) {
        let Event::Start { inputs, .. } = event else { continue };
        for (name, files) in given {
            let began = inputs.get_mut(name).filter(|began| began.len() == files.len());
            let moved = began.into_iter().flatten().zip(files);
            for (file, path) in moved.filter(|(file, _)| !folder::exists(Path::new(&file.path))) {
                file.path = path.to_string_lossy().into_owned();
            }
        }
    }
    events
}

/// The files that an outer run gave for the inputs of the run in a directory; none if it is no inner run.
pub fn given(root: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let path = root.join(GIVEN);
    let text = if folder::exists(&path) {
        text::read_at_most(&path, MOST_BYTES).unwrap_or_default()
    } else {
        String::new()
    };
    serde_json::from_str(&text).unwrap_or_default()
}
