//! Opens an update or the base: reads its header, and lists its faults.

use crate::engine::intake::fault::Fault;
use crate::io::discover::stem;
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, OpenFault, TablePool};
use crate::io::source::OpenFiles;
use crate::model::client_id::IdSource;
use crate::model::faults::Faults;
use crate::updates;
use crate::updates::metadata::{OtherPurpose, UpdateKind, UpdateMetadata};
use crate::updates::set::{Base, Client};
use crate::updates::source::Place;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The role that the operator gives to an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputRole {
    /// The update of one client.
    Update,
    /// A partial of a tree, with sums of clients.
    Partial,
}

/// An opened update, and its faults.
#[derive(Debug)]
pub struct Update {
    /// Its role. Nothing in the file changes it.
    pub role: InputRole,
    /// The file, or the index of a sharded update.
    pub path: PathBuf,
    /// The id of its client.
    pub id: String,
    /// What named its client.
    pub named_by: IdSource,
    /// Its metadata.
    pub metadata: UpdateMetadata,
    /// Its files; `None` if they cannot be opened.
    pub model: Option<Arc<ModelFile>>,
    /// Its faults.
    pub faults: Faults<Fault>,
}

impl Update {
    pub(super) fn read(
        path: &Path,
        role: InputRole,
        files: &OpenFiles,
        tables: &TablePool,
        base: Option<&Base>,
    ) -> Self {
        let base = base.map(|base| &*base.model.table);
        let limits = match role {
            InputRole::Update => updates::limits(base),
            InputRole::Partial => Limits::PARTIAL,
        };
        let (mut model, mut faults) = match updates::open_to_merge(path, files, tables, base, &limits) {
            Ok(model) => (Some(Arc::new(model)), Faults::default()),
            Err(faults) => (None, faults.map(Fault::from)),
        };
        let (metadata, bad) = UpdateMetadata::parse(model.as_ref().map_or(&BTreeMap::new(), |m| &m.metadata));
        faults.extend(bad.into_iter().map(Fault::from));
        if model.as_ref().is_some_and(|model| model.table.is_empty()) {
            faults.push(Fault::NoTensor);
        }
        let other = model.as_ref().filter(|_| role == InputRole::Update);
        if let Some(other) = other.and_then(|model| OtherPurpose::of(&model.metadata)) {
            // Its tensors are no faults of an update.
            faults.push(Fault::from(other));
            model = None;
        }
        Self {
            role,
            path: path.to_owned(),
            id: stem(path),
            named_by: IdSource::Stem,
            metadata,
            model,
            faults,
        }
    }

    /// Takes the kind that the operator states, if any. Metadata that contradicts it is a fault.
    pub(super) fn take_kind(&mut self, kind: Option<UpdateKind>) {
        let Some(expected) = kind else { return };
        let UpdateMetadata { kind: found, states_kind, .. } = self.metadata;
        if states_kind && found != expected {
            self.faults.push(Fault::ForcedKind { found, expected });
        }
        (self.metadata.kind, self.metadata.states_kind) = (expected, true);
    }

    /// Turns a client back into an update, with these faults.
    pub fn of_client(client: Client, faults: Vec<Fault>) -> Self {
        let Client { id, named_by, model, metadata, .. } = client;
        Self {
            role: InputRole::Update,
            path: model.path.clone(),
            id,
            named_by,
            metadata,
            model: Some(model),
            faults: faults.into(),
        }
    }
}

/// Why the base cannot be used.
#[derive(thiserror::Error, Debug)]
#[error("{}: the base cannot be used: {}", .path.display(), .faults)]
pub struct BadBase {
    /// Its path.
    pub path: PathBuf,
    /// Its faults.
    pub faults: Faults<OpenFault>,
}

impl BadBase {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        self.faults.iter().find_map(OpenFault::hint)
    }
}

/// Opens a base.
///
/// # Errors
///
/// When the base cannot be read, or is not a model.
pub fn open_base(path: &Path, files: &OpenFiles, tables: &TablePool) -> Result<Base, BadBase> {
    let model = updates::open_plain(path, files, tables)
        .map_err(|faults| BadBase { path: path.to_owned(), faults })?;
    let placement = model.table.iter().map(Place::from).collect();
    Ok(Base::new(Arc::new(model), placement))
}
