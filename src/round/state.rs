//! What a rule keeps between rounds: the centre of centred clipping, as a delta in a file of its own.
//!
//! The file has the model's tensors, floats in F32 (F64 for F64) and integers in F64, so that the centre is not rounded
//! to what the model holds. It is published right behind the model. A run that dies in between leaves the new
//! model and the old state, and running the round again gives the same model and brings the state along.

use crate::io::model_file::{ModelFile, OpenFault, TablePool};
use crate::io::source::{OpenFiles, identity_of};
use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::{Layout, TensorSpec};
use crate::round::fault::Fault;
use crate::round::roster::{Placement, placement};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A centre that an earlier round left.
#[derive(Debug)]
pub struct Centre {
    /// Its file.
    pub model: ModelFile,
    /// Where its tensors are, in the order of the round's layout.
    pub placement: Placement,
}

/// Why a state file cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum StateError {
    #[error("{}: the state cannot be used: {}", .path.display(), list(.faults))]
    Unreadable { path: PathBuf, faults: Vec<OpenFault> },
    #[error("{}: is not the state of this rule: metadata `{KEY}` is {found}, expected `{expected}`", .path.display())]
    OtherRule { path: PathBuf, found: String, expected: &'static str },
    #[error("{}: is the state of another model: {}", .path.display(), list(.faults))]
    OtherModel { path: PathBuf, faults: Vec<Fault> },
}

fn list<T: ToString>(faults: &[T]) -> String {
    faults.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

/// The metadata key that says what a state is of.
const KEY: &str = "fedmill.state";

/// What the state of centred clipping is called.
const CENTRE: &str = "centered-clipping";

/// The centre in a file; none if there is no such file yet.
///
/// # Errors
///
/// When the file holds something else, or the state of another model.
pub fn open(path: &Path, layout: &Layout) -> Result<Option<Centre>, StateError> {
    if identity_of(path).is_none() {
        return Ok(None);
    }
    let at = || path.to_owned();
    let model = ModelFile::open(path, &OpenFiles::raise_limit(), &TablePool::default())
        .map_err(|faults| StateError::Unreadable { path: at(), faults })?;
    let found = model.metadata.get(KEY);
    if found.is_none_or(|found| found != CENTRE) {
        let found = found.map_or_else(|| "missing".to_owned(), |found| format!("`{found}`"));
        return Err(StateError::OtherRule { path: at(), found, expected: CENTRE });
    }
    let placement = placement(&model.table, stored(layout).tensors(), "model")
        .map_err(|faults| StateError::OtherModel { path: at(), faults })?;
    Ok(Some(Centre { model, placement }))
}

/// How the state of a model is stored.
pub fn stored(layout: &Layout) -> Layout {
    let stored = |spec: &TensorSpec| TensorSpec { dtype: stored_dtype(spec.dtype), ..spec.clone() };
    Layout::new(layout.tensors().iter().map(stored).collect())
}

/// What values of a dtype are kept in.
pub fn stored_dtype(dtype: Dtype) -> Dtype {
    match dtype.kind() {
        Kind::Float if dtype != Dtype::F64 => Dtype::F32,
        _ => Dtype::F64,
    }
}

/// What a state file says about itself.
pub fn metadata() -> BTreeMap<String, String> {
    let entries = [(KEY, CENTRE), ("fedmill.version", env!("CARGO_PKG_VERSION")), ("kind", "delta")];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
