//! What a release does with statistics: the base keeps them, or the clipped vector holds them.

use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Kind};
use crate::privacy::ledger::plan::digest_of_names;
use crate::record::sha256::Sha256;
use crate::updates::set::UpdateSet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// What a release does with float statistics. Integers are never part of the clipped vector.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, Debug)]
#[serde(rename_all = "snake_case")]
pub enum DpStatistics {
    /// The model keeps the base's statistics, which no client's data touch.
    #[default]
    Keep,
    /// They are coordinates of the clipped vector, with noise.
    Release,
}

impl fmt::Display for DpStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Release => "release",
        })
    }
}

impl DpStatistics {
    /// Whether the clipped vector holds tensors of this class and dtype.
    pub fn clips(self, class: TensorClass, dtype: Dtype) -> bool {
        match class {
            TensorClass::Parameter => true,
            TensorClass::Statistic => self == Self::Release && dtype.kind() == Kind::Float,
            TensorClass::Opaque => false,
        }
    }

    /// The coordinates of the clipped vector, tensor by tensor.
    pub fn clipped(self, set: &UpdateSet) -> Vec<Range<usize>> {
        let layout = &set.layout;
        let is_clipped =
            |tensor: &usize| self.clips(layout.classes()[*tensor], layout.tensors()[*tensor].dtype);
        (0..layout.tensors().len()).filter(is_clipped).map(|tensor| layout.coordinates(tensor)).collect()
    }

    /// The digest of the names of the tensors in the clipped vector, as plans hold it.
    pub fn names(self, set: &UpdateSet) -> Sha256 {
        let specs = set.layout.tensors().iter().zip(set.layout.classes());
        let clipped = specs.filter(|(spec, class)| self.clips(**class, spec.dtype));
        digest_of_names(clipped.map(|(spec, _)| spec.name.as_str()).collect())
    }

    /// The number of coordinates of the clipped vector.
    pub fn dimension(self, set: &UpdateSet) -> u64 {
        self.clipped(set).iter().map(|range| range.len() as u64).sum()
    }
}
