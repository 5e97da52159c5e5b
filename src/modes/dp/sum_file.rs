//! Sums of clipped updates in files, for rounds that are gathered in several places. They are not private: there is no
//! noise in them.
//!
//! A file holds the integers of some clients, added up: a tensor of I64 for each of the model's, of the same shape. Those of
//! integer tensors are zero. Its metadata says on which grid, for which plan and base, and whose they are. Integers add
//! up exactly, so a sum of sums is the sum of all, and noise that is added at the end is that of one round.

use crate::io::model_file::{ModelFile, OpenFault, TablePool, list};
use crate::io::source::OpenFiles;
use crate::kernels::discrete_gaussian::Level;
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::record::sha256::Sha256;
use crate::updates;
use crate::updates::source::Placement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The metadata key that says what a sum is.
pub const KEY: &str = "fedmill.privacy.sum";

/// What is said of a sum: what two sums must have in common to be added.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SumTerms {
    /// The plan that it was clipped by.
    pub plan_sha256: Sha256,
    /// The digest of the model that clients started from.
    pub base: String,
    /// The round, if it was told.
    pub round: Option<u64>,
    /// The clip norm S.
    pub clip: f64,
    /// No client's integers have a larger norm.
    pub bound: u64,
    /// How wide the noise is to be.
    pub level: Level,
}

/// What a sum says of itself.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SumDescription {
    /// Whether it may be given away. It may not.
    pub private: bool,
    /// On which terms it was made.
    pub terms: SumTerms,
    /// Whose updates are in it, those that count as zero left out.
    pub clients: Vec<String>,
    /// How many of them were within the clip bound, less how many were not.
    pub below: i64,
}

/// Why a file is no sum that can be added.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SumFileError {
    #[error("{}: cannot be used: {}", .path.display(), list(.faults))]
    Unusable { path: PathBuf, faults: Vec<OpenFault> },
    #[error("{}: has no metadata `{KEY}`, expected a sum of clipped updates", .path.display())]
    NoSum { path: PathBuf },
    #[error("{}: metadata `{KEY}` is not understood: {why}", .path.display())]
    Bad { path: PathBuf, why: String },
    #[error("{}: was made on other terms: found {found}, expected {expected}", .path.display())]
    OtherTerms { path: PathBuf, found: String, expected: String },
    #[error("{}: tensor `{tensor}`: found {found}, expected {expected}", .path.display())]
    Tensor { path: PathBuf, tensor: String, found: String, expected: String },
    #[error("{}: client `{id}` is in another sum too", .path.display())]
    Twice { path: PathBuf, id: String },
    #[error("{}: its integers are longer than those of {clients} clients can be", .path.display())]
    Longer { path: PathBuf, clients: usize },
}

/// A sum in a file.
#[derive(Debug)]
pub struct SumFile {
    /// Its file.
    pub model: ModelFile,
    /// What it says of itself.
    pub description: SumDescription,
    placement: Placement,
}

impl SumFile {
    /// The ids of the clients in the sum.
    pub fn clients(&self) -> &[String] {
        &self.description.clients
    }

    /// Opens sums that were made on these terms, of models of this layout.
    ///
    /// # Errors
    ///
    /// What is wrong with the first that cannot be added.
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
        Ok(edges)
    }

    fn open(path: &Path, layout: &Layout, terms: &SumTerms) -> Result<Self, SumFileError> {
        let unusable = |faults| SumFileError::Unusable { path: path.to_owned(), faults };
        let model = updates::open_plain(path, &OpenFiles::raise_limit(), &TablePool::default());
        let model = model.map_err(unusable)?;
        let text = model.metadata.get(KEY).ok_or_else(|| SumFileError::NoSum { path: path.to_owned() })?;
        let description: SumDescription = serde_json::from_str(text)
            .map_err(|why| SumFileError::Bad { path: path.to_owned(), why: why.to_string() })?;
        if description.terms != *terms {
            let told = |terms: &SumTerms| serde_json::to_string(terms).unwrap_or_default();
            let (found, expected) = (told(&description.terms), told(terms));
            return Err(SumFileError::OtherTerms { path: path.to_owned(), found, expected });
        }
        let placement = layout.tensors().iter().map(|spec| {
            let found = model.table.iter().find(|place| place.spec.name == spec.name);
            let told = |spec: &TensorSpec| format!("{} {:?}", spec.dtype, spec.shape);
            match found {
                Some(place) if place.spec.dtype == Dtype::I64 && place.spec.shape == spec.shape => {
                    Ok(place.into())
                }
                other => Err(SumFileError::Tensor {
                    path: path.to_owned(),
                    tensor: spec.name.clone(),
                    found: other.map_or_else(|| "none".to_owned(), |place| told(&place.spec)),
                    expected: told(&TensorSpec { dtype: Dtype::I64, ..spec.clone() }),
                }),
            }
        });
        let placement = placement.collect::<Result<_, _>>()?;
        Ok(Self { model, description, placement })
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
            self.model.files[place.file].read_exact_at(bytemuck::cast_slice_mut(values), offset)?;
            values.iter_mut().for_each(|value| *value = i64::from_le(*value));
            rest = behind;
        }
        Ok(())
    }

    /// Checks how its squares add up against what its clients can have come to.
    ///
    /// # Errors
    ///
    /// When that is too much.
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
    /// As metadata of its file.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let json = serde_json::to_string(self).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        [(KEY.to_owned(), json), ("fedmill.version".to_owned(), version)].into()
    }
}
