//! Opens updates and the base: reads their headers, and lists the faults of each.

use crate::engine::intake::fault::Fault;
use crate::io::discover::stem;
use crate::io::model_file::{ModelFile, OpenFault, TablePool, list};
use crate::io::source::OpenFiles;
use crate::updates;
use crate::updates::metadata::{OtherPurpose, UpdateMetadata};
use crate::updates::set::{Base, Client};
use crate::updates::source::Place;
use rayon::prelude::*;
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
    /// The id of its client: from its metadata, or the file's stem.
    pub id: String,
    /// Its metadata.
    pub metadata: UpdateMetadata,
    /// Its files; `None` if they cannot be opened.
    pub model: Option<Arc<ModelFile>>,
    /// Its faults.
    pub faults: Vec<Fault>,
}

impl Update {
    fn read(
        path: &Path,
        role: InputRole,
        files: &OpenFiles,
        tables: &TablePool,
        base: Option<&Base>,
    ) -> Self {
        let base = base.map(|base| &*base.model.table);
        let (model, mut faults) = match updates::open_to_merge(path, files, tables, base) {
            Ok(model) => (Some(Arc::new(model)), Vec::new()),
            Err(faults) => (None, faults.into_iter().map(Fault::from).collect()),
        };
        let (metadata, bad) = UpdateMetadata::parse(model.as_ref().map_or(&BTreeMap::new(), |m| &m.metadata));
        faults.extend(bad.into_iter().map(Fault::from));
        if role == InputRole::Update {
            let other = model.as_ref().and_then(|model| OtherPurpose::of(&model.metadata));
            faults.extend(other.map(Fault::from));
        }
        let id = metadata.client_id.clone().unwrap_or_else(|| stem(path));
        Self { role, path: path.to_owned(), id, metadata, model, faults }
    }

    /// Turns a client back into an update, with these faults.
    pub fn of_client(client: Client, faults: Vec<Fault>) -> Self {
        let Client { id, model, metadata, .. } = client;
        Self { role: InputRole::Update, path: model.path.clone(), id, metadata, model: Some(model), faults }
    }
}

/// Why the base cannot be used.
#[derive(thiserror::Error, Debug)]
#[error("{}: the base cannot be used: {}", .path.display(), list(.faults))]
pub struct BadBase {
    /// Its path.
    pub path: PathBuf,
    /// Its faults.
    pub faults: Vec<OpenFault>,
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

/// Reads the headers of all updates, in parallel. An encoded update without tensor names takes those of the base.
pub fn open(paths: &[PathBuf], files: &OpenFiles, tables: &TablePool, base: Option<&Base>) -> Vec<Update> {
    paths.par_iter().map(|path| Update::read(path, InputRole::Update, files, tables, base)).collect()
}

/// Reads the headers of partials, in parallel.
pub fn open_partials(paths: &[PathBuf], files: &OpenFiles, tables: &TablePool) -> Vec<Update> {
    paths.par_iter().map(|path| Update::read(path, InputRole::Partial, files, tables, None)).collect()
}
