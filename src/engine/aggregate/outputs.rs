//! Checks that the outputs of a run can be written, and that they replace none of its inputs.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::request::{Inputs, Outputs};
use crate::engine::intake::taken::Taken;
use crate::io::collision;
use crate::io::model_file::ModelFile;
use crate::io::model_files;
use crate::io::model_writer::{self, WriteError};
use crate::io::publish;
use crate::io::source::{SourceFile, identity_of};
use std::path::{Path, PathBuf};

/// Checks that the outputs can be written to their paths.
///
/// # Errors
///
/// When a directory is missing or a target is not a file.
pub(super) fn check_targets(outputs: &Outputs) -> Result<(), WriteError> {
    model_writer::check_target(&outputs.model)?;
    outputs.state.as_deref().map_or(Ok(()), model_writer::check_file_target)?;
    let plot = outputs.plot.as_ref().map(|plot| &*plot.path);
    outputs.report.as_deref().into_iter().chain(plot).try_for_each(collision::check_target)
}

/// Checks that the outputs differ from each other and from everything that the run reads.
///
/// # Errors
///
/// The first output that is an input or another output too.
pub(super) fn check_collisions(outputs: &Outputs, inputs: &Inputs, taken: &Taken) -> Result<(), Error> {
    Ok(collision::check(&written(outputs)?, &identities(inputs, taken))?)
}

/// Checks that no output is in a directory that fedmill keeps for itself.
///
/// # Errors
///
/// The first output there.
pub fn check_outside(outputs: &Outputs, directory: &Path) -> Result<(), Error> {
    Ok(collision::check_outside(&written(outputs)?, directory)?)
}

/// The paths that a run may write to.
///
/// # Errors
///
/// When the folder of the model cannot be read.
pub(super) fn written(outputs: &Outputs) -> Result<Vec<PathBuf>, Error> {
    let beside = outputs.state.as_deref().map(publish::previous);
    let family = model_files::family(&outputs.model).map_err(WriteError::at(&outputs.model))?;
    let others = outputs.state.clone().into_iter().chain(beside).chain(outputs.report.clone());
    let others = others.chain(outputs.plot.as_ref().map(|plot| plot.path.clone()));
    Ok(family.into_iter().chain(others).collect())
}

/// Device and inode of every file that the run reads.
fn identities(inputs: &Inputs, taken: &Taken) -> Vec<(u64, u64)> {
    let beside = taken.rejected.iter().chain(&taken.others);
    let models = taken.set.clients.iter().map(|client| &client.model);
    let models = models.chain(beside.clone().filter_map(|update| update.model.as_ref()));
    let models = models.chain(taken.set.base.iter().map(|base| &base.model));
    let models: Vec<&ModelFile> = models.map(|model| &**model).collect();
    let files = models.iter().flat_map(|model| &model.files).map(SourceFile::identity);
    let named = models.iter().map(|model| &model.path).chain(&inputs.others);
    let named = named.chain(beside.map(|update| &update.path));
    files.chain(named.filter_map(|path| identity_of(path))).collect()
}
