//! Finds the first value of a model that is NaN or infinite, before any run merges onto it.

use crate::engine::aggregate::error::Error;
use crate::engine::intake::admit;
use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::survey::measure;
use crate::model::client_id::IdSource;
use crate::updates::fault::{BadValue, NonFinite};
use crate::updates::metadata::UpdateMetadata;
use crate::updates::set::{Base, Client};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The first float of a model that is NaN or infinite, in one read; `None` if all floats are finite. Integers and opaque
/// tensors hold no such value.
///
/// # Errors
///
/// When the file cannot be read.
pub fn first_non_finite(machine: &Machine, model: Base, path: &Path) -> Result<Option<NonFinite>, Error> {
    let admitted = admit::admit(Vec::new(), Some(Arc::new(model)), &Policy::default());
    let (mut set, _) = admitted.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let Some(model) = set.base.take().filter(|_| set.layout.parameters() > 0) else { return Ok(None) };
    // The survey measures clients.
    set.clients.push(Client {
        id: path.display().to_string(),
        named_by: IdSource::Stem,
        model: Arc::clone(&model.model),
        metadata: UpdateMetadata::parse(&BTreeMap::new()).0,
        placement: Arc::new(model.placement.clone()),
        control: None,
        opaque: Arc::default(),
    });
    let measured = measure(machine, &set)?;
    let bad = measured.first().and_then(|values| values.bad_value_in(&set, 0));
    Ok(bad.and_then(|bad| if let BadValue::NonFinite(found) = bad { Some(found) } else { None }))
}
