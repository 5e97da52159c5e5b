//! Sum files: sums of clipped updates, for rounds that several servers collect.
//!
//! They are not private: they have no noise.
//!
//! A sum file holds the sums of the integers of some clients: one I64 tensor for each tensor of the model, of the same
//! shape. The values for tensors outside the clipped vector are zero. The metadata names the grid, the plan, the base
//! and the clients. Integers add up exactly, so a sum of sums is the sum of all clients, and one round needs its noise
//! only once.

use crate::io::digest::seal;
use crate::io::model_file::{ModelFile, OpenFault, TablePool};
use crate::io::source::OpenFiles;
use crate::kernels::discrete_gaussian::Level;
use crate::model::dtype::Dtype;
use crate::model::faults::Faults;
use crate::model::layout::{Layout, TensorSpec};
use crate::modes::dp::statistics::DpStatistics;
use crate::record::sha256::Sha256;
use crate::updates;
use crate::updates::metadata::SUM_KEY;
use crate::updates::source::Placement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The metadata key of the description.
pub const KEY: &str = SUM_KEY;

/// The terms that two sums must share to be added.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SumTerms {
    /// SHA-256 of the plan.
    pub plan_sha256: Sha256,
    /// The digest of the base.
    pub base: String,
    /// The number of the round; `None` without `--round`.
    pub round: Option<u64>,
    /// The clip norm S.
    pub clip: f64,
    /// The largest norm of a client's integers.
    pub bound: u64,
    /// The scale of the noise.
    pub level: Level,
    /// Whether the sum holds float statistics.
    pub statistics: DpStatistics,
}

impl SumTerms {
    /// How these terms differ from the expected ones, in words.
    fn differences(&self, expected: &Self) -> String {
        let round = |terms: &Self| terms.round.map_or_else(|| "none".to_owned(), |round| round.to_string());
        let all = |terms: &Self| {
            [
                ("plan", terms.plan_sha256.to_string()),
                ("base", terms.base.clone()),
                ("round", round(terms)),
                ("clip norm", terms.clip.to_string()),
                ("bound of the integers", terms.bound.to_string()),
                ("noise level", format!("{:?}", terms.level)),
                ("statistics", terms.statistics.to_string()),
            ]
        };
        let pairs = all(self).into_iter().zip(all(expected)).filter(|(found, expected)| found != expected);
        let texts =
            pairs.map(|((name, found), (_, expected))| format!("{name} is {found}, expected {expected}"));
        texts.collect::<Vec<String>>().join("; ")
    }
}

/// The metadata of a sum file.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SumDescription {
    /// Whether the sum is private: always false.
    pub private: bool,
    /// The terms of the sum.
    pub terms: SumTerms,
    /// The clients of the sum, without those that count as zero.
    pub clients: Vec<String>,
    /// The number of clients within the clip bound, minus the number above it.
    pub below: i64,
}

/// Why a sum file cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SumFileError {
    #[error("{}: cannot be used: {}", .path.display(), .faults)]
    Unusable { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: has no metadata `{KEY}`, expected a sum of clipped updates", .path.display())]
    NoSum { path: PathBuf },
    #[error("{}: metadata `{KEY}` is not understood: {why}", .path.display())]
    Bad { path: PathBuf, why: String },
    #[error("{}: was made for another plan, base or round: {differences}", .path.display())]
    OtherTerms { path: PathBuf, differences: String },
    #[error("{}: tensor `{tensor}`: found {found}, expected {expected}", .path.display())]
    Tensor { path: PathBuf, tensor: String, found: String, expected: String },
    #[error("{}: client `{id}` is in another sum too", .path.display())]
    Twice { path: PathBuf, id: String },
    #[error("{}: its integers exceed the clip bounds of its {clients} clients", .path.display())]
    Longer { path: PathBuf, clients: usize },
}

impl SumFileError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unusable { faults, .. } => faults.iter().find_map(OpenFault::hint),
            Self::OtherTerms { .. } => Some(
                "give every step of a round the same state directory, --base, --round and --dp-statistics",
            ),
            _ => None,
        }
    }
}

/// An opened sum file.
#[derive(Debug)]
pub struct SumFile {
    /// Its file.
    pub model: ModelFile,
    /// Its metadata.
    pub description: SumDescription,
    placement: Placement,
    /// Whether the file carries a digest.
    is_sealed: bool,
}

impl SumFile {
    /// The ids of the clients in the sum.
    pub fn clients(&self) -> &[String] {
        &self.description.clients
    }

    /// Opens sum files with these terms and this layout.
    ///
    /// # Errors
    ///
    /// The fault of the first sum file that cannot be used.
    pub fn open_all(paths: &[PathBuf], layout: &Layout, terms: &SumTerms) -> Result<Vec<Self>, SumFileError> {
        let mut edges: Vec<Self> = Vec::new();
        for path in paths {
            let edge = Self::open(path, layout, terms)?;
            let known = |id: &&String| edges.iter().any(|other| other.description.clients.contains(id));
            if let Some(id) = edge.description.clients.iter().find(known) {
                return Err(SumFileError::Twice { path: path.clone(), id: id.clone() });
            }
            edges.push(edge);
        }
        let unsealed = edges.iter().filter(|edge| !edge.is_sealed).map(|edge| edge.model.path.as_path());
        seal::warn_of_unsealed(&unsealed.collect::<Vec<_>>());
        Ok(edges)
    }

    fn open(path: &Path, layout: &Layout, terms: &SumTerms) -> Result<Self, SumFileError> {
        let unusable = |faults| SumFileError::Unusable { path: path.to_owned(), faults };
        let model = updates::open_plain(path, &OpenFiles::raise_limit(), &TablePool::default());
        let model = model.map_err(unusable)?;
        let is_sealed = seal::check(&model).map_err(|fault| unusable(fault.into()))?;
        let text = model.metadata.get(KEY).ok_or_else(|| SumFileError::NoSum { path: path.to_owned() })?;
        let description: SumDescription = serde_json::from_str(text)
            .map_err(|why| SumFileError::Bad { path: path.to_owned(), why: why.to_string() })?;
        if description.terms != *terms {
            let differences = description.terms.differences(terms);
            return Err(SumFileError::OtherTerms { path: path.to_owned(), differences });
        }
        let placement = layout.tensors().iter().map(|spec| {
            let found = model.table.iter().find(|place| place.spec.name == spec.name);
            let shape_of = |spec: &TensorSpec| format!("{} {:?}", spec.dtype, spec.shape);
            match found {
                Some(place) if place.spec.dtype == Dtype::I64 && place.spec.shape == spec.shape => {
                    Ok(place.into())
                }
                other => Err(SumFileError::Tensor {
                    path: path.to_owned(),
                    tensor: spec.name.clone(),
                    found: other.map_or_else(|| "none".to_owned(), |place| shape_of(&place.spec)),
                    expected: shape_of(&TensorSpec { dtype: Dtype::I64, ..spec.clone() }),
                }),
            }
        });
        let placement = placement.collect::<Result<_, _>>()?;
        Ok(Self { model, description, placement, is_sealed })
    }

    /// Reads the integers of some coordinates.
    ///
    /// # Errors
    ///
    /// When its file cannot be read, or changed since it was opened.
    pub fn read(&self, layout: &Layout, coordinates: Range<usize>, integers: &mut [i64]) -> io::Result<()> {
        let mut rest = integers;
        for piece in layout.pieces(coordinates) {
            let (values, behind) = rest.split_at_mut(piece.len);
            let place = &self.placement[piece.tensor];
            let offset = place.offset + (piece.start * size_of::<i64>()) as u64;
            self.model.files[place.file].read_values_at(bytemuck::cast_slice_mut(values), offset)?;
            values.iter_mut().for_each(|value| *value = i64::from_le(*value));
            rest = behind;
        }
        Ok(())
    }

    /// Checks the sum of its squares against the clip bounds of its clients.
    ///
    /// # Errors
    ///
    /// When the sum exceeds the bounds.
    pub fn check(&self, squares: u128) -> Result<(), SumFileError> {
        let clients = self.description.clients.len();
        let most = u128::from(self.description.terms.bound).saturating_mul(clients as u128);
        if squares <= most.saturating_mul(most) {
            return Ok(());
        }
        Err(SumFileError::Longer { path: self.model.path.clone(), clients })
    }
}

/// The layout of a sum for a model.
pub fn layout_of(model: &Layout) -> Layout {
    let specs = model.tensors().iter().map(|spec| TensorSpec { dtype: Dtype::I64, ..spec.clone() });
    Layout::new(specs.collect())
}

impl SumDescription {
    /// The metadata as text, with room for the digest of the file.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let json = serde_json::to_string(self).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        seal::with_room([(KEY.to_owned(), json), ("fedmill.version".to_owned(), version)].into())
    }
}
