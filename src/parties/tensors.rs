//! The tensors of a base that parties agree on: what is summed of each, and where.

use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::parties::error::SecureError;
use safetensors::Dtype as StoredDtype;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What the lanes of a session hold of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// The values of a parameter, clipped to `clip`.
    Parameter,
    /// The values of a float statistic, clipped to `statistics_clip`.
    Statistic,
    /// The change of a control variate of SCAFFOLD, clipped to `control_clip`. The mean file has its sum.
    Control,
    /// Nothing: the base's values stay.
    Nothing,
}

/// A tensor of the base.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct LaneTensor {
    /// Its name.
    pub name: String,
    /// Its dtype in the base.
    pub dtype: StoredDtype,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// What the lanes hold of it.
    pub held: Held,
}

impl LaneTensor {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().fold(1, |len: usize, axis| len.saturating_mul(*axis))
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its name, dtype and shape.
    pub fn spec(&self) -> Option<TensorSpec> {
        let dtype = Dtype::from_stored(self.dtype)?;
        Some(TensorSpec { name: self.name.clone(), dtype, shape: self.shape.clone(), len: self.len() })
    }
}

/// The weights of clients in the mean.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum ClientWeights {
    /// All clients weigh the same.
    Uniform,
    /// A client weighs as many as its examples, at most `cap`. Its values are multiplied by its weight over the cap, and
    /// its weight is one more lane.
    Examples {
        /// The largest weight.
        cap: u32,
    },
}

/// The number of values that the lanes hold of tensors.
pub fn values_of(tensors: &[LaneTensor]) -> usize {
    let held = tensors.iter().filter(|tensor| tensor.held != Held::Nothing);
    held.fold(0, |sum: usize, tensor| sum.saturating_add(tensor.len()))
}

/// Checks clips, each by its name.
///
/// # Errors
///
/// When one is no number above 0.
pub fn check_clips(clips: &[(&str, Option<f64>)]) -> Result<(), String> {
    for (name, clip) in clips {
        if let Some(clip) = clip.filter(|clip| !(clip.is_normal() && *clip > 0.0)) {
            return Err(format!("{name} is {clip}, expected a number above 0"));
        }
    }
    Ok(())
}

/// Checks that tensors have different names, and dtypes that merge.
///
/// # Errors
///
/// When one does not.
pub fn check_tensors(tensors: &[LaneTensor]) -> Result<(), String> {
    let names: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    if names.len() != tensors.len() {
        return Err("two tensors have one name".to_owned());
    }
    match tensors.iter().find(|tensor| tensor.spec().is_none()) {
        Some(tensor) => Err(format!("tensor `{}`: fedmill merges no {:?}", tensor.name, tensor.dtype)),
        None => Ok(()),
    }
}

/// The tensors of the mean: floats of the base as f32 or f64, and zeros for what the lanes do not hold.
pub fn mean_layout(tensors: &[LaneTensor]) -> Layout {
    let spec = |tensor: &LaneTensor| {
        let spec = tensor.spec()?;
        let dtype = match (tensor.held, spec.dtype) {
            (Held::Nothing, dtype) | (_, dtype @ Dtype::F64) => dtype,
            _ => Dtype::F32,
        };
        Some(TensorSpec { dtype, ..spec })
    };
    Layout::new(tensors.iter().filter_map(spec).collect())
}

/// The tensors that the lanes hold, by index.
pub fn held(tensors: &[LaneTensor]) -> impl Iterator<Item = (usize, TensorSpec)> {
    let all = tensors.iter().enumerate().filter(|(_, tensor)| tensor.held != Held::Nothing);
    all.filter_map(|(place, tensor)| Some((place, tensor.spec()?)))
}

/// The values of each held tensor, counted in the order of lanes.
pub fn held_places(tensors: &[LaneTensor]) -> BTreeMap<usize, Range<usize>> {
    let mut end = 0;
    held(tensors)
        .map(|(place, spec)| {
            end += spec.len;
            (place, end - spec.len..end)
        })
        .collect()
}

/// The parts of tensors in a range of values: the tensor, and the values.
pub fn pieces(places: &BTreeMap<usize, Range<usize>>, range: Range<usize>) -> Vec<(usize, Range<usize>)> {
    let part = |(tensor, values): (&usize, &Range<usize>)| {
        let part = values.start.max(range.start)..values.end.min(range.end);
        (!part.is_empty()).then_some((*tensor, part))
    };
    places.iter().filter_map(part).collect()
}

/// The error of a value that is not finite, by its place in the order of lanes.
pub fn not_finite(tensors: &[LaneTensor], mut value: usize) -> SecureError {
    for tensor in tensors.iter().filter(|tensor| tensor.held != Held::Nothing) {
        if value < tensor.len() {
            let why = format!("value {value} is not finite, expected finite numbers");
            return SecureError::terms(format!("tensor `{}`", tensor.name), why);
        }
        value -= tensor.len();
    }
    SecureError::terms("update", "a value is not finite")
}
