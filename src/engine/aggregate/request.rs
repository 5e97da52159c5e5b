//! A merge as it is asked for, and which files it may write.

use crate::engine::aggregate::error::MergeError;
use crate::engine::backend::choose::Backend;
use crate::engine::decide::judge::Aggregation;
use crate::engine::intake::admit::{Expectations, Update, UpdateSet};
use crate::engine::intake::weights::Weighting;
use crate::io::model_file::ModelFile;
use crate::io::model_writer::{self, WriteError};
use crate::io::publish;
use crate::io::source::{SourceFile, identity_of};
use crate::kernels::lanes::Isa;
use crate::modes::dp::release::Private;
use crate::modes::tiers::file::Tiers;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What to do about an update that cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBadUpdate {
    /// End the run with an error.
    Fail,
    /// Go on without it.
    Skip,
}

/// A merge to be done.
#[derive(Debug)]
pub struct Job {
    /// Update files and directories of them.
    pub updates: Vec<PathBuf>,
    /// The model the updates started from.
    pub base: Option<PathBuf>,
    /// How to judge and combine them.
    pub aggregation: Aggregation,
    /// Tiers of clients that are merged by rules of their own, and then by weight; none for one rule for all.
    pub tiers: Option<Tiers>,
    /// How much each client counts.
    pub weighting: Weighting,
    /// The fewest clients that make a round.
    pub min_clients: usize,
    /// What to do about bad updates.
    pub on_bad_update: OnBadUpdate,
    /// What an update must say to take part.
    pub expected: Expectations,
    /// Where the merged model goes.
    pub output: PathBuf,
    /// The most bytes of data in one file of it.
    pub max_shard_bytes: Option<u64>,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// Where what the rule and the strategy keep between rounds is read from and goes to.
    pub state: Option<PathBuf>,
    /// Whether a partial is published, for a node above to merge.
    pub partial: bool,
    /// The budget that the round is released under, if it is.
    pub private: Option<Private>,
    /// How many clients there are in all, if the run says.
    pub population: Option<usize>,
    /// Other files that are read, which no output may replace.
    pub other_inputs: Vec<PathBuf>,
    /// Instruction set to run on.
    pub isa: Isa,
    /// Where to compute.
    pub backend: Backend,
}

impl Job {
    pub(crate) fn check_targets(&self) -> Result<(), WriteError> {
        model_writer::check_target(&self.output)?;
        self.state.as_deref().map_or(Ok(()), model_writer::check_file_target)?;
        self.report.as_deref().map_or(Ok(()), model_writer::check_file_target)
    }

    pub(crate) fn check_outputs(&self, set: &UpdateSet, rejected: &[Update]) -> Result<(), MergeError> {
        let clients = set.clients.iter().map(|client| &client.model);
        let models = clients.chain(rejected.iter().filter_map(|update| update.model.as_ref()));
        let models = models.chain(set.partials.iter().map(|partial| &partial.model));
        let models: Vec<&Arc<ModelFile>> = models.chain(set.base.iter().map(|base| &base.model)).collect();
        let files = models.iter().flat_map(|model| &model.files).map(SourceFile::identity);
        let named = models.iter().map(|model| &model.path).chain(&self.other_inputs);
        let named = named.chain(rejected.iter().map(|update| &update.path));
        let inputs: Vec<(u64, u64)> = files.chain(named.filter_map(|path| identity_of(path))).collect();

        let beside = self.state.as_deref().map(publish::previous);
        let family = model_writer::family(&self.output).map_err(WriteError::at(&self.output))?;
        let mut outputs: BTreeSet<PathBuf> = family.iter().map(|path| publish::resolved(path)).collect();
        for other in self.state.iter().chain(&beside).chain(&self.report) {
            if !outputs.insert(publish::resolved(other)) {
                return Err(MergeError::SameOutput { path: other.clone() });
            }
        }
        let is_input = |path: &PathBuf| identity_of(path).is_some_and(|id| inputs.contains(&id));
        match family
            .into_iter()
            .chain(self.report.clone())
            .chain(self.state.clone())
            .chain(beside)
            .find(is_input)
        {
            Some(path) => Err(MergeError::OutputIsInput { path }),
            None => Ok(()),
        }
    }
}
