//! Syncs model, state and report to disk, then renames each to its final path.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::state::StateWriter;
use crate::engine::intake::taken::Taken;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::publish::{self, Staged};
use crate::updates::set::UpdateSet;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The writer of the run's state; `None` without `--state`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn state_writer(session: &Session, taken: &Taken) -> Result<Option<StateWriter>, Error> {
    let (Some(path), Some(spec)) = (&session.request.outputs.state, session.state_spec()) else {
        return Ok(None);
    };
    let (layout, carried) = (&taken.set.layout, &taken.set.carried);
    Ok(Some(StateWriter::create(path, &spec, layout, carried, session.base_digest()?)?))
}

/// Copies the base's personal tensors into the merged model. Returns the number of bytes copied.
///
/// # Errors
///
/// When the base cannot be read or the model cannot be written.
pub fn keep_personal(set: &UpdateSet, writer: &ModelWriter) -> Result<u64, WriteError> {
    let Some(base) = &set.base else { return Ok(0) };
    let mut copied = 0;
    for (tensor, place) in set.merged.kept() {
        let bytes = place.spec.bytes() as u64;
        writer.copy(tensor, &base.model.files[place.file], place.offset, bytes)?;
        copied += bytes;
    }
    Ok(copied)
}

/// Syncs model and state to disk.
///
/// # Errors
///
/// When the disk reports an error.
pub fn sync(
    session: &mut Session,
    model: &ModelWriter,
    state: &mut Option<StateWriter>,
) -> Result<(), Error> {
    let synced = match state {
        Some(state) => state.finish(model, session.machine.pool)?,
        None => model.sync()?,
    };
    session.timings.sync_s = synced.as_secs_f64();
    session.bytes.written = model.bytes() + state.as_ref().map_or(0, StateWriter::bytes);
    Ok(())
}

/// Renames model, state and report to their final paths. The report is on disk before the first rename, so that an
/// error of the disk leaves no half-published run.
///
/// # Errors
///
/// When the report cannot be written, or a file cannot be renamed.
pub fn publish(
    session: &Session,
    model: ModelWriter,
    state: Option<StateWriter>,
    report: &impl Serialize,
) -> Result<(), Error> {
    let staged = stage_report(session, report)?;
    // The state first, so that no model is published without its state.
    if let Some(state) = state {
        state.publish()?;
    }
    model.publish()?;
    publish_report(staged)?;
    Ok(())
}

/// A report that is on disk under a temporary name.
pub type StagedReport = Option<(PathBuf, Staged)>;

/// Writes a report to disk under a temporary name; `None` without `--report`.
///
/// # Errors
///
/// When it cannot be written.
pub fn stage_report(session: &Session, report: &impl Serialize) -> Result<StagedReport, Error> {
    let Some(path) = &session.request.outputs.report else { return Ok(None) };
    let json = format!("{}\n", serde_json::to_string_pretty(report).map_err(Error::Report)?);
    let staged = publish::stage(path, json.as_bytes()).map_err(WriteError::at(path))?;
    Ok(Some((path.clone(), staged)))
}

/// Renames a report to its final path.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn publish_report(report: StagedReport) -> Result<(), WriteError> {
    let Some((path, staged)) = report else { return Ok(()) };
    staged.publish(&path).map_err(WriteError::at(&path))?;
    sync_directory(&path)
}

fn sync_directory(path: &Path) -> Result<(), WriteError> {
    publish::sync_directory_of(path).map_err(WriteError::at(path))
}
