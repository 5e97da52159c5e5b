//! Names the client of each update: by its metadata, or by its path.
//!
//! A client writes the metadata, and the collector of the updates chooses the path.
//! Two updates of one client never decide between them by their order: both are at fault ([`admit`]), and the same file
//! given twice counts once.
//!
//! [`admit`]: crate::engine::intake::admit

use crate::engine::intake::claims::ClientIdFrom;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::update::{InputRole, Update};
use crate::io::discover::{parent_name, stem};
use crate::io::source::identity_of;
use crate::io::text::of_name;
use crate::model::client_id::{IdSource, is_sound, nfc};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names the clients of updates. An update that cannot be named so is at fault. Of several paths of one file, the first
/// stays, with a warning.
pub(super) fn identify(updates: Vec<Update>, from: ClientIdFrom) -> Vec<Update> {
    let shared = shared_stems(&updates);
    let mut known: BTreeMap<(String, Vec<(u64, u64)>), PathBuf> = BTreeMap::new();
    let mut named = Vec::new();
    for mut update in updates {
        if update.role == InputRole::Update {
            name(&mut update, from, &shared);
        }
        match known.get(&(update.id.clone(), files_of(&update))) {
            Some(first) => tracing::warn!(
                client = update.id,
                "{}: is the same file as {}: it counts once",
                update.path.display(),
                first.display()
            ),
            None => {
                known.insert((update.id.clone(), files_of(&update)), update.path.clone());
                named.push(update);
            }
        }
    }
    named
}

/// The stems that updates without an id in their metadata have in several folders.
fn shared_stems(updates: &[Update]) -> BTreeSet<String> {
    let mut folders: BTreeMap<String, BTreeSet<&Path>> = BTreeMap::new();
    for update in updates.iter().filter(|update| update.metadata.client_id.is_none()) {
        let folder = update.path.parent().unwrap_or(Path::new(""));
        folders.entry(stem(&update.path)).or_default().insert(folder);
    }
    folders.into_iter().filter(|(_, folders)| folders.len() > 1).map(|(stem, _)| stem).collect()
}

/// Device and inode of every file of an update.
pub(super) fn files_of(update: &Update) -> Vec<(u64, u64)> {
    match &update.model {
        Some(model) => model.files.iter().map(|file| file.identity()).collect(),
        None => identity_of(&update.path).into_iter().collect(),
    }
}

fn name(update: &mut Update, from: ClientIdFrom, shared: &BTreeSet<String>) {
    let claimed = update.metadata.client_id.as_deref();
    let named = ClientName::of(&update.path, claimed, from, shared.contains(&stem(&update.path)));
    update.named_by = named.by;
    // A malformed id is a fault of the metadata already.
    let is_malformed = named.id.is_none()
        && update.model.as_ref().is_none_or(|model| model.metadata.contains_key("client_id"));
    if !is_malformed {
        update.faults.extend(named.faults);
    }
    if let Some(id) = named.id {
        update.id = id;
    }
}

/// The name of a client.
#[derive(Debug)]
pub struct ClientName {
    /// Its id; `None` if nothing names it.
    pub id: Option<String>,
    /// What named it.
    pub by: IdSource,
    /// Why the name cannot be used.
    pub faults: Vec<Fault>,
}

impl ClientName {
    /// The name of the client whose update is at `path`. `claimed` is the id in its metadata, and `is_shared` says
    /// whether updates of other folders have its stem.
    pub fn of(path: &Path, claimed: Option<&str>, from: ClientIdFrom, is_shared: bool) -> Self {
        let by = match from {
            ClientIdFrom::Only(source) => source,
            ClientIdFrom::Auto if claimed.is_some() => IdSource::Metadata,
            ClientIdFrom::Auto if is_shared => IdSource::Parent,
            ClientIdFrom::Auto => IdSource::Stem,
        };
        let found = match by {
            IdSource::Metadata => claimed.map(str::to_owned),
            IdSource::Stem => Some(stem(path)),
            IdSource::Parent => Some(parent_name(path)),
            IdSource::Path => Some(of_name(path.as_os_str())),
        };
        let Some(id) = found.map(|id| nfc(&id)) else {
            return Self { id: None, by, faults: vec![Fault::NoClientId] };
        };
        let mut faults = Vec::new();
        if !is_sound(&id) {
            faults.push(Fault::BadClientId { id: id.clone(), by: by.name() });
        }
        if let Some(claimed) = claimed.filter(|claimed| *claimed != id) {
            faults.push(Fault::OtherClientId {
                found: claimed.to_owned(),
                expected: id.clone(),
                by: by.name(),
            });
        }
        Self { id: Some(id), by, faults }
    }
}
