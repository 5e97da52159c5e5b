//! Finds the tensors of a layout in a model.

use crate::io::model_file::TensorPlace;
use crate::model::class::TensorClass;
use crate::model::faults::Faults;
use crate::model::layout::{Layout, TensorSpec};
use crate::updates::fault::LayoutFault;
use crate::updates::names::{tied, wrapper};
use crate::updates::source::{Place, Placement};
use std::collections::{HashMap, HashSet};

/// Puts the places of a control variate's tensors, one for each parameter, into the order of the layout. Statistics get
/// [`Place::NONE`].
pub fn in_layout_order(reference: &Layout, parameters: Placement) -> Placement {
    let mut parameters = parameters.into_iter();
    let place = |class: &TensorClass| match class {
        TensorClass::Parameter => parameters.next().unwrap_or(Place::NONE),
        TensorClass::Statistic | TensorClass::Opaque => Place::NONE,
    };
    reference.classes().iter().map(place).collect()
}

/// Finds the tensors of a reference in a model. `reference_name` is the reference's name in messages.
///
/// # Errors
///
/// The differences between the model's tensors and the reference's.
pub fn placement<'t>(
    table: impl IntoIterator<Item = &'t TensorPlace> + Clone,
    reference: &[TensorSpec],
    reference_name: &'static str,
) -> Result<Placement, Faults<LayoutFault>> {
    let mut by_name: HashMap<&str, &TensorPlace> =
        table.clone().into_iter().map(|place| (place.spec.name.as_str(), place)).collect();
    let mut faults = Faults::default();
    let mut placement = Vec::with_capacity(reference.len());
    for expected in reference {
        match by_name.remove(expected.name.as_str()) {
            Some(found) => match tensor_fault(&found.spec, expected) {
                None => placement.push(Place::from(found)),
                Some(fault) => faults.push(fault),
            },
            None => faults.push_with(|| missing(expected, table.clone(), reference_name)),
        }
    }
    let extra = table.clone().into_iter().filter(|place| by_name.contains_key(place.spec.name.as_str()));
    extra.for_each(|place| faults.push_with(|| extra_fault(&place.spec, reference, reference_name)));
    if let Some(wrapped) = wrapped(table, reference, reference_name).filter(|_| !faults.is_empty()) {
        return Err(wrapped.into());
    }
    faults.none_or(placement)
}

fn missing<'t>(
    expected: &TensorSpec,
    table: impl IntoIterator<Item = &'t TensorPlace>,
    reference: &'static str,
) -> LayoutFault {
    let tensor = expected.name.clone();
    match tied(&tensor, &expected.shape, table.into_iter().map(|place| &place.spec)) {
        Some(to) => LayoutFault::TiedMissing { tensor, to: to.to_owned(), reference },
        None => LayoutFault::MissingTensor { tensor, dtype: expected.dtype, shape: expected.shape.clone() },
    }
}

fn extra_fault(found: &TensorSpec, layout: &[TensorSpec], reference: &'static str) -> LayoutFault {
    let tensor = found.name.clone();
    match tied(&tensor, &found.shape, layout) {
        Some(to) => LayoutFault::TiedExtra { tensor, to: to.to_owned(), reference },
        None => LayoutFault::ExtraTensor { tensor, reference },
    }
}

/// The fault of names that differ by the prefix of a wrapper alone.
fn wrapped<'t>(
    table: impl IntoIterator<Item = &'t TensorPlace> + Clone,
    layout: &[TensorSpec],
    reference: &'static str,
) -> Option<LayoutFault> {
    let found: Vec<&str> = table.into_iter().map(|place| place.spec.name.as_str()).collect();
    let expected: Vec<&str> = layout.iter().map(|spec| spec.name.as_str()).collect();
    let (found, expected) = (|| found.iter().copied(), || expected.iter().copied());
    let here = wrapper(found(), expected()).map(|prefix| LayoutFault::Wrapped { prefix, reference });
    here.or_else(|| wrapper(expected(), found()).map(|prefix| LayoutFault::NotWrapped { prefix, reference }))
}

/// Finds the tensors of a reference that a model has. The others are [absent](Place::absent).
///
/// # Errors
///
/// Every other difference, and a model without any tensor of the reference.
pub fn placement_with_gaps<'t>(
    table: impl IntoIterator<Item = &'t TensorPlace> + Clone,
    reference: &[TensorSpec],
    reference_name: &'static str,
) -> Result<Placement, Faults<LayoutFault>> {
    let names: HashSet<&str> = table.clone().into_iter().map(|place| place.spec.name.as_str()).collect();
    let (found, absent): (Vec<TensorSpec>, Vec<TensorSpec>) =
        reference.iter().cloned().partition(|spec| names.contains(spec.name.as_str()));
    if found.is_empty() || absent.is_empty() {
        return placement(table, reference, reference_name);
    }
    let mut places = placement(table, &found, reference_name)?.into_iter();
    let place = |spec: &TensorSpec| match names.contains(spec.name.as_str()) {
        true => places.next().unwrap_or(Place::NONE),
        false => Place::absent(spec.dtype),
    };
    Ok(reference.iter().map(place).collect())
}

/// Finds opaque tensors in a model. Their bytes are compared, so no other dtype can replace theirs.
///
/// # Errors
///
/// As [`placement`].
pub fn opaque_placement(
    table: Vec<&TensorPlace>,
    reference: &[TensorSpec],
    reference_name: &'static str,
) -> Result<Placement, Faults<LayoutFault>> {
    let found = placement(table, reference, reference_name)?;
    let other = |(place, spec): (&Place, &TensorSpec)| {
        let (tensor, found, expected) = (spec.name.clone(), place.dtype, spec.dtype);
        (found != expected).then_some(LayoutFault::OtherDtype { tensor, found, expected })
    };
    let faults: Faults<LayoutFault> = found.iter().zip(reference).filter_map(other).collect();
    faults.none_or(found)
}

/// Compares a tensor with the expected one; `None` if it can replace it.
pub fn tensor_fault(found: &TensorSpec, expected: &TensorSpec) -> Option<LayoutFault> {
    let tensor = expected.name.clone();
    if found.shape != expected.shape {
        let (found, expected) = (found.shape.clone(), expected.shape.clone());
        return Some(LayoutFault::OtherShape { tensor, found, expected });
    }
    if !found.dtype.converts_to(expected.dtype) {
        return Some(LayoutFault::OtherDtype { tensor, found: found.dtype, expected: expected.dtype });
    }
    None
}
