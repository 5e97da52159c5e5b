//! A residual in its file, and the update that it belongs to.

use crate::compress::residual::error::ResidualError;
use crate::io::digest::seal;
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, OpenFault, TablePool, TensorPlace};
use crate::io::source::{OpenFiles, identity_of};
use crate::model::dtype::Kind;
use crate::model::layout::TensorSpec;
use std::collections::HashMap;
use std::path::Path;

/// Metadata keys of a residual.
pub(crate) mod key {
    pub(crate) const CLIENT: &str = "client_id";
    pub(crate) const ROUND: &str = "round";
    pub(crate) const LOCAL_LR: &str = "local_lr";
    pub(crate) const BASE: &str = "fedmill.base_sha256";
    pub(crate) const STEPS: &str = "fedmill.residual";
    pub(crate) const CODEC: &str = "fedmill.codec_of";
    pub(crate) const DECAY: &str = "fedmill.decay";
    pub(crate) const INPUT: &str = "fedmill.input_sha256";
    pub(crate) const OUTPUT: &str = "fedmill.update_name";
    pub(crate) const UPDATE: &str = "fedmill.update_sha256";
    pub(crate) const NORMS: &str = "fedmill.residual_norms";
    pub(crate) const FOLLOWS: &str = "fedmill.follows";
}

/// Takes the place of a digest: of an update that is not written yet, or of none.
pub(crate) const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The identity of an update for a residual.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The client that made it.
    pub(crate) client: String,
    /// Its round.
    pub(crate) round: Option<u64>,
    /// The learning rate of the client.
    pub(crate) local_lr: Option<f64>,
    /// SHA-256 of its files.
    pub(crate) input_sha256: String,
    /// SHA-256 of its base; `None` without a base.
    pub(crate) base_sha256: Option<String>,
}

/// The content of a residual's file.
#[derive(Debug)]
pub(crate) struct StoredResidual {
    pub(crate) model: ModelFile,
    pub(crate) client: String,
    pub(crate) round: Option<u64>,
    pub(crate) local_lr: Option<f64>,
    /// SHA-256 of the update that left it, before compression.
    input: String,
    /// SHA-256 of the compressed update.
    pub(crate) update: String,
    /// SHA-256 of the base of the update.
    base: Option<String>,
    /// File name of the compressed update.
    pub(crate) output: String,
    /// The field `update` of the residual before it.
    pub(crate) follows: String,
    /// Updates that it includes, one a residual in the chain.
    pub(crate) steps: u64,
    /// The norms of the last residuals up to this one, the oldest first; none in files of fedmill 0.1.
    pub(crate) norms: Vec<f64>,
}

/// The norms of residuals as metadata. Every norm has the same width, so that the header keeps its length.
pub(crate) fn norms_as_text(norms: &[f64]) -> String {
    norms.iter().map(|norm| format!("{norm:<24e}")).collect::<Vec<_>>().join(" ")
}

fn parse_norms(path: &Path, text: Option<&String>) -> Result<Vec<f64>, ResidualError> {
    let norm = |word: &str| word.parse().ok().filter(|norm: &f64| norm.is_finite() && *norm >= 0.0);
    let norms: Option<Vec<f64>> = text.map_or("", String::as_str).split_whitespace().map(norm).collect();
    norms.ok_or_else(|| ResidualError::Metadata {
        path: path.to_owned(),
        key: key::NORMS,
        found: format!("`{}`", text.map_or("", String::as_str)),
        expected: "norms of residuals",
    })
}

fn open(path: &Path) -> Result<Option<ModelFile>, ResidualError> {
    if identity_of(path).is_none() {
        return Ok(None);
    }
    ModelFile::open(path, &OpenFiles::raise_limit(), &TablePool::default(), &Limits::TRUSTED)
        .map(Some)
        .map_err(|faults| ResidualError::Unreadable { path: path.to_owned(), faults })
}

impl StoredResidual {
    /// Reads a residual and compares its file with its digest; `None` if there is no file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ResidualError> {
        let Some(model) = open(path)? else { return Ok(None) };
        let unreadable =
            |fault: OpenFault| ResidualError::Unreadable { path: path.to_owned(), faults: fault.into() };
        seal::check_or_warn(&model).map_err(unreadable)?;
        Self::of(model).map(Some)
    }

    /// Reads the header of a residual that this run has read or written; `None` if there is no file.
    pub(crate) fn read_again(path: &Path) -> Result<Option<Self>, ResidualError> {
        open(path)?.map(Self::of).transpose()
    }

    fn of(model: ModelFile) -> Result<Self, ResidualError> {
        let path = &model.path;
        let text = |key: &'static str| {
            model.metadata.get(key).cloned().ok_or_else(|| ResidualError::Metadata {
                path: path.to_owned(),
                key,
                found: "missing".to_owned(),
                expected: "what `fedmill compress --residual` writes",
            })
        };
        let steps = text(key::STEPS)?;
        let steps = steps.parse().map_err(|_| ResidualError::Metadata {
            path: path.to_owned(),
            key: key::STEPS,
            found: format!("`{steps}`"),
            expected: "a count",
        })?;
        Ok(Self {
            client: text(key::CLIENT)?,
            round: model.metadata.get(key::ROUND).and_then(|round| round.parse().ok()),
            local_lr: model.metadata.get(key::LOCAL_LR).and_then(|lr| lr.parse().ok()),
            input: text(key::INPUT)?,
            update: text(key::UPDATE)?,
            base: model.metadata.get(key::BASE).cloned(),
            output: text(key::OUTPUT)?,
            follows: text(key::FOLLOWS)?,
            steps,
            norms: parse_norms(path, model.metadata.get(key::NORMS))?,
            model,
        })
    }

    /// Whether a residual is the next one of the chain.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        (&next.follows, next.steps) == (&self.update, self.steps + 1)
    }

    /// Whether this update left it.
    pub(crate) fn is_of(&self, subject: &Subject) -> bool {
        self.input == subject.input_sha256 && self.base == subject.base_sha256
    }

    /// Whether it includes this update, or another update of the same round.
    pub(crate) fn accounts_for(&self, subject: &Subject) -> bool {
        let is_same = self.is_of(subject);
        is_same || (self.round.is_some() && self.round == subject.round)
    }

    /// The place of each tensor of the update, `None` for tensors that are not float. If the tensors differ, returns
    /// the difference.
    pub(crate) fn places(&self, tensors: &[TensorSpec]) -> Result<Vec<Option<TensorPlace>>, String> {
        let held: HashMap<&str, &TensorPlace> =
            self.model.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
        let place = |spec: &TensorSpec| match held.get(spec.name.as_str()) {
            Some(place) if place.spec.shape == spec.shape && place.spec.dtype.kind() == Kind::Float => {
                Ok(Some((*place).clone()))
            }
            Some(place) => Err(format!("`{}` was {:?} and is {:?}", spec.name, place.spec.shape, spec.shape)),
            None => Err(format!("`{}` is new", spec.name)),
        };
        let floats = tensors.iter().filter(|spec| spec.dtype.kind() == Kind::Float).count();
        if floats < held.len() {
            return Err(format!("it has {} tensors, the update {floats} of floats", held.len()));
        }
        let is_float = |spec: &TensorSpec| spec.dtype.kind() == Kind::Float;
        tensors.iter().map(|spec| if is_float(spec) { place(spec) } else { Ok(None) }).collect()
    }
}
