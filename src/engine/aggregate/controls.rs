//! SCAFFOLD's second merge: the changes of the clients' control variates.
//!
//! A rule by coordinate merges them as it merges the model. A rule or a step that compares whole clients sees their
//! deltas alone, and a client with a sound delta may send any control variate. So an order statistic of all clients'
//! control variates takes the place of such a rule.

use crate::engine::aggregate::error::{Error, Stopped};
use crate::engine::aggregate::session::Session;
use crate::engine::decide::method::Method;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::CombinePass;
use crate::engine::passes::combine::compile::compile;
use crate::engine::passes::error::PassError;
use crate::engine::passes::plan::Tile;
use crate::io::model_writer::WriteError;
use crate::kernels::server_step::ServerStep;
use crate::model::class::TensorClass;
use crate::model::layout::TensorSpec;
use crate::model::state::{StateTensor, stored_dtype};
use crate::rules::{Needs, OrderStatistic, Recipe};
use crate::updates::metadata::SCAFFOLD_CONTROL;
use crate::updates::metadata::{UpdateKind, UpdateMetadata};
use crate::updates::set::{Base, Client, MergedLayout, UpdateSet};
use crate::updates::source::Source;
use std::ops::Range;
use std::sync::Arc;

/// Merges the changes of the clients' control variates, and adds them to the server's. `write` takes the index of the
/// state tensor in the state, and the encoded values of a tile. Does nothing under other strategies.
///
/// # Errors
///
/// When a change is bad or cannot be read, or a merged value cannot be stored.
pub fn merge_controls(
    session: &mut Session,
    taken: &Taken,
    recipe: &Recipe,
    coordinates: Option<Range<usize>>,
    write: impl Fn(usize, &Tile, &[u8]) -> Result<(), WriteError> + Sync,
) -> Result<(), Stopped> {
    let factor = session.request.method.strategy.control(&taken.cohort)?;
    let slot = session.state_spec().and_then(|spec| spec.place(StateTensor::Control));
    let (Some(factor), Some(slot)) = (factor, slot) else { return Ok(()) };
    let set = controls_of(&taken.set);
    // The tiles that stayed on the GPU are those of the updates.
    session.machine.forget_tiles();
    let members: Vec<usize> = (0..set.clients.len()).collect();
    let robust = robust_recipe(&session.request.method, members.len(), taken.byzantine);
    let reducer = compile(robust.as_ref().unwrap_or(recipe), &set, &members, false);
    let pass = CombinePass {
        set: &set,
        reducer: &*reducer,
        with_norms: false,
        step: ServerStep::Average { lr: factor },
        keeps: &[],
        coordinates,
        parameters_only: true,
    };
    session.machine.progress.start("merging control variates", set.data_bytes());
    let combined = pass.run(&session.machine, |tile, values| write(slot, tile, values.model));
    session.machine.take_meter();
    session.bytes.read += set.data_bytes();
    match combined {
        Ok(_) => Ok(()),
        Err(PassError::BaseNotFinite { path, tensor, index, value }) => {
            let name = tensor.strip_prefix(SCAFFOLD_CONTROL).unwrap_or(&tensor);
            let tensor = format!("{}{name}", StateTensor::Control.prefix());
            let expected = "a finite number";
            Err(PassError::BadState { path, tensor, index, value, expected }.into())
        }
        Err(why) => Err(Stopped::BadUpdates(session.culprits(Error::from(why), &set, &taken.cohort)?)),
    }
}

/// The recipe for control variates if the rule or a step compares whole clients, which then decide nothing about these:
/// the mean without the F largest and smallest values, or the median if F is not given. `None` is the rule's own recipe.
fn robust_recipe(method: &Method, clients: usize, hostile: Option<usize>) -> Option<Recipe> {
    let is_by_coordinate = method.pre.is_empty() && method.rule.needs() == Needs::Nothing;
    match hostile {
        _ if is_by_coordinate => None,
        Some(0) => None,
        Some(hostile) => {
            let cut = hostile.min(clients.saturating_sub(1) / 2);
            Some(OrderStatistic::TrimmedMean { cut }.into())
        }
        None => Some(OrderStatistic::Median.into()),
    }
}

/// The changes of the clients' control variates, as deltas of the server's control variate. The state stores that one
/// in the dtype of a state tensor. Coordinates are those of the updates. Statistics have no control variate.
pub fn controls_of(set: &UpdateSet) -> UpdateSet {
    let control = |client: &Client| Client {
        id: client.id.clone(),
        named_by: client.named_by,
        model: Arc::clone(&client.model),
        metadata: UpdateMetadata { kind: UpdateKind::Delta, ..client.metadata.clone() },
        placement: Arc::clone(client.control.as_ref().unwrap_or(&client.placement)),
        control: None,
        opaque: Arc::default(),
    };
    let named = |(spec, class): (&TensorSpec, &TensorClass)| TensorSpec {
        name: format!("{SCAFFOLD_CONTROL}{}", spec.name),
        dtype: if *class == TensorClass::Parameter { stored_dtype(spec.dtype) } else { spec.dtype },
        ..spec.clone()
    };
    let base = set
        .carried
        .sources
        .get(&StateTensor::Control)
        .map(|Source { model, placement }| Arc::new(Base::new(Arc::clone(model), Vec::clone(placement))));
    let named = set.layout.tensors().iter().zip(set.layout.classes()).map(named);
    let layout = set.layout.of_same_classes(named.collect());
    let merged = MergedLayout::of(&layout);
    UpdateSet::new(layout, merged, set.clients.iter().map(control).collect(), base)
}
