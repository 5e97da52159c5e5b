//! What a merge leaves: model, state and report, brought to disk, and then each its name.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::session::Run;
use crate::engine::aggregate::state::StateWriter;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::publish::{self, Staged};
use rayon::ThreadPool;
use serde::Serialize;
use std::path::{Path, PathBuf};

impl Run {
    pub(crate) fn state_writer(&self, round: &Round) -> Result<Option<StateWriter>, MergeError> {
        let (Some(path), Some(keeping)) = (&self.job.state, &round.keeping) else { return Ok(None) };
        let (layout, last) = (&round.set.layout, round.set.state.as_ref());
        Ok(Some(StateWriter::create(path, keeping, layout, last, self.base_digest()?)?))
    }

    /// Brings model and state to disk.
    pub(crate) fn finish_writing(
        &mut self,
        writer: &ModelWriter,
        state: &mut Option<StateWriter>,
        pool: &ThreadPool,
    ) -> Result<(), MergeError> {
        let synced = match state {
            Some(state) => state.finish(writer, pool)?,
            None => writer.sync()?,
        };
        self.timings.sync_s = synced.as_secs_f64();
        self.bytes.written = writer.bytes() + state.as_ref().map_or(0, StateWriter::bytes);
        Ok(())
    }

    /// Gives model, state and report their names. The report is on disk before: what can fail, fails before.
    pub(crate) fn publish(
        &self,
        model: ModelWriter,
        state: Option<StateWriter>,
        report: &impl Serialize,
    ) -> Result<(), MergeError> {
        let staged = self.stage_report(report)?;
        Ok(publish_all(state, model, staged)?)
    }

    pub(crate) fn stage_report(
        &self,
        report: &impl Serialize,
    ) -> Result<Option<(PathBuf, Staged)>, MergeError> {
        let Some(path) = &self.job.report else { return Ok(None) };
        let json = format!("{}\n", serde_json::to_string_pretty(report).map_err(MergeError::Report)?);
        let staged = publish::stage(path, json.as_bytes()).map_err(WriteError::at(path))?;
        Ok(Some((path.clone(), staged)))
    }
}

/// Gives everything its name: the state before its model, so that there is no model without one.
fn publish_all(
    state: Option<StateWriter>,
    model: ModelWriter,
    report: Option<(PathBuf, Staged)>,
) -> Result<(), WriteError> {
    if let Some(state) = state {
        state.publish()?;
    }
    model.publish()?;
    if let Some((path, staged)) = report {
        publish_report(&path, staged)?;
    }
    Ok(())
}

pub(crate) fn publish_report(path: &Path, staged: Staged) -> Result<(), WriteError> {
    staged.publish(path).map_err(WriteError::at(path))?;
    publish::sync_directory_of(path).map_err(WriteError::at(path))
}
