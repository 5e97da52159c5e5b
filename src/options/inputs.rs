//! The options that say which updates to read, and what to believe of them.

use super::INPUTS;
use super::failure::Failure;
use crate::engine::intake::claims::{Claims, ClientIdFrom, OnDuplicateContent};
use crate::model::client_id::IdSource;
use crate::updates::metadata::UpdateKind;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The updates to read.
#[derive(Args, Debug)]
pub(crate) struct UpdatePaths {
    /// Update files (.safetensors), indexes of sharded updates (.safetensors.index.json), or directories of them.
    #[arg(value_name = "UPDATE", help_heading = INPUTS)]
    pub(crate) updates: Vec<PathBuf>,
    /// Read more update paths from FILE, one per line. `-` is standard input.
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub(crate) files_from: Option<PathBuf>,
    /// What names the client of an update: auto, metadata, stem, parent or path.
    ///
    /// metadata is `client_id`. stem is the name of the file without its ending, parent the name of its folder, and
    /// path the path as given. With those three, a `client_id` that differs is a fault. auto takes the metadata, else
    /// the stem; if updates of several folders have one stem, it takes the folder.
    #[arg(long, value_name = "SOURCE", default_value = "auto", hide_possible_values = true, help_heading = INPUTS)]
    pub(crate) client_id_from: IdOption,
    /// What the updates hold: auto takes the word of their metadata.
    ///
    /// With auto an update is weights unless its metadata says `delta`. One that says nothing and looks like a delta of
    /// the base is a bad update; if most are such, the run ends. With weights or delta, metadata that says otherwise is
    /// a fault.
    #[arg(long, value_name = "KIND", default_value = "auto", hide_possible_values = true, help_heading = INPUTS)]
    pub(crate) kind: KindOption,
    /// What to do with updates of several clients whose tensors hold the same bytes: keep warns, reject leaves all of
    /// them out as bad updates.
    #[arg(long, value_name = "ACTION", default_value = "keep", help_heading = INPUTS)]
    pub(crate) on_duplicate_content: CopyOption,
}

/// What names the client of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum IdOption {
    Auto,
    Metadata,
    Stem,
    Parent,
    Path,
}

/// What the updates hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum KindOption {
    Auto,
    Weights,
    Delta,
}

/// What to do with updates that hold the same tensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum CopyOption {
    Keep,
    Reject,
}

impl From<IdOption> for ClientIdFrom {
    fn from(option: IdOption) -> Self {
        match option {
            IdOption::Auto => Self::Auto,
            IdOption::Metadata => Self::Only(IdSource::Metadata),
            IdOption::Stem => Self::Only(IdSource::Stem),
            IdOption::Parent => Self::Only(IdSource::Parent),
            IdOption::Path => Self::Only(IdSource::Path),
        }
    }
}

impl UpdatePaths {
    /// What the run believes of what updates say of themselves.
    pub(crate) fn claims(&self) -> Claims {
        Claims {
            client_id_from: self.client_id_from.into(),
            kind: match self.kind {
                KindOption::Auto => None,
                KindOption::Weights => Some(UpdateKind::Weights),
                KindOption::Delta => Some(UpdateKind::Delta),
            },
            on_duplicate_content: match self.on_duplicate_content {
                CopyOption::Keep => OnDuplicateContent::Keep,
                CopyOption::Reject => OnDuplicateContent::Reject,
            },
            ..Claims::default()
        }
    }

    pub(crate) fn resolve(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = self.updates.clone();
        if let Some(list) = &self.files_from {
            paths.extend(crate::io::discover::paths_from(list)?);
        }
        Ok(paths)
    }
}
