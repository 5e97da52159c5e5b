//! Reads the base of a session and one client's update against it.

use crate::engine::aggregate::controls::controls_of;
use crate::engine::aggregate::mode::{Mode, Plain};
use crate::engine::aggregate::request::{Inputs, Request};
use crate::engine::aggregate::session::Session;
use crate::engine::decide::method::Method;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::for_element;
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::io::interrupt;
use crate::kernels::element::Element;
use crate::model::class::TensorClass;
use crate::model::dtype::Kind;
use crate::model::layout::Layout;
use crate::model::sparsity::Sparsity;
use crate::parties::error::SecureError;
use crate::parties::hex::Hex;
use crate::parties::tensors::{ClientWeights, Held, LaneTensor, not_finite};
use crate::rules::mean::Mean;
use crate::updates::set::Client;
use crate::updates::set::{UpdateSet, ValueKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Values that are read at once.
const COLUMNS: usize = 1 << 15;

/// A base, and the updates that were read against it.
pub struct OpenedUpdate<'m> {
    session: Session<'m>,
    /// The updates, as deltas.
    pub taken: Taken,
}

/// Opens a base and updates of it. `policy` says what the updates may claim.
///
/// # Errors
///
/// When a file cannot be read, or an update does not fit the base.
pub fn open<'m>(
    base: &Path,
    updates: Vec<PathBuf>,
    policy: Policy,
    machine: Machine<'m>,
) -> Result<OpenedUpdate<'m>, SecureError> {
    let is_base_alone = updates.is_empty();
    // No model is written: the path is that of no file.
    let request = Request::new(updates, Method::new(Box::new(Mean)), PathBuf::from("masked.safetensors"));
    let inputs = Inputs { base: Some(base.to_owned()), may_be_empty: is_base_alone, ..request.inputs };
    let mut session = Session::open(Request { inputs, policy, ..request }, machine)?;
    let mut taken = match is_base_alone {
        true => session.admit(Vec::new())?,
        false => Plain.take(&mut session)?,
    };
    taken.set.value_kind = ValueKind::Deltas;
    Ok(OpenedUpdate { session, taken })
}

impl<'m> OpenedUpdate<'m> {
    /// The BLAKE3 digest of the base.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn base_digest(&self) -> Result<Hex<32>, SecureError> {
        let digest = self.session.machine.pool.install(|| self.session.base_digest())?;
        digest.unwrap_or_default().parse().map_err(|why| SecureError::terms("base", format!("{why}")))
    }

    /// Refuses an update in which the client chose the values to send: a value that one client sends alone is in the sum as
    /// it is.
    ///
    /// # Errors
    ///
    /// When it is such an update.
    pub fn refuse_own_choice(&self) -> Result<(), SecureError> {
        for client in &self.taken.set.clients {
            let sparsity = client.model.decoder.as_ref().map(|decoder| decoder.sparsity());
            if let Some(Sparsity::Own { codec, fraction }) = sparsity {
                let why = format!(
                    "{}: `{codec}` chose the {:.1} % of the values that it holds: a value that one client sends alone is in \
                     the sum as it is",
                    client.model.path.display(),
                    100.0 * fraction
                );
                let hint = "give the update itself; for fewer bytes the server opens the session with --keep or --values-per-lane";
                return Err(SecureError::refused(why, Some(hint)));
            }
        }
        Ok(())
    }

    /// The machine.
    pub fn machine(&self) -> &Machine<'m> {
        &self.session.machine
    }

    /// The tensors of the base, with what lanes hold of each. `with_controls` adds a control variate for each parameter.
    pub fn tensors(&self, with_statistics: bool, with_controls: bool) -> Vec<LaneTensor> {
        let held = |class, kind| match class {
            TensorClass::Parameter => Held::Parameter,
            TensorClass::Statistic if with_statistics && kind == Kind::Float => Held::Statistic,
            TensorClass::Statistic | TensorClass::Opaque => Held::Nothing,
        };
        let mut tensors = lane_tensors(&self.taken.set.layout, held);
        if with_controls {
            let controls = controls_of(&self.taken.set);
            let held = |class, _| if class == TensorClass::Parameter { Held::Control } else { Held::Nothing };
            let controls = lane_tensors(&controls.layout, held);
            tensors.extend(controls.into_iter().filter(|tensor| tensor.held == Held::Control));
        }
        tensors
    }

    /// The name of the first tensor that the server cannot merge.
    pub fn opaque(&self) -> Option<&str> {
        self.taken.set.opaque.first().map(|spec| spec.name.as_str())
    }
}

fn lane_tensors(layout: &Layout, held: impl Fn(TensorClass, Kind) -> Held) -> Vec<LaneTensor> {
    let all = layout.tensors().iter().zip(layout.classes());
    all.map(|(spec, class)| LaneTensor {
        name: spec.name.clone(),
        dtype: spec.dtype.stored(),
        shape: spec.shape.clone(),
        held: held(*class, spec.dtype.kind()),
    })
    .collect()
}

/// Values of one update in the order of lanes, with what the lanes hold of their tensor.
pub type TakeValues<'t> = dyn FnMut(Held, &[f64]) -> Result<(), SecureError> + 't;

/// Hands the changes that the first client of a set made to the base to `take`, piece by piece, then those of its control
/// variates.
///
/// # Errors
///
/// When a file cannot be read, or `take` fails.
pub fn each_value(
    machine: &Machine,
    set: &UpdateSet,
    tensors: &[LaneTensor],
    take: &mut TakeValues,
) -> Result<(), SecureError> {
    let held = |tensor: &usize| tensors.get(*tensor).is_some_and(|tensor| tensor.held != Held::Nothing);
    let all = 0..set.layout.tensors().len();
    let ranges: Vec<_> = all.filter(held).map(|tensor| set.layout.coordinates(tensor)).collect();
    let of_class = |class| if class == TensorClass::Statistic { Held::Statistic } else { Held::Parameter };
    each_value_of(machine, set, &ranges, |class, values| take(of_class(class), values))?;
    if !tensors.iter().any(|tensor| tensor.held == Held::Control) {
        return Ok(());
    }
    let controls = controls_of(set);
    let is_parameter = |tensor: &usize| controls.layout.classes()[*tensor] == TensorClass::Parameter;
    let all = 0..controls.layout.tensors().len();
    let ranges: Vec<_> = all.filter(is_parameter).map(|tensor| controls.layout.coordinates(tensor)).collect();
    each_value_of(machine, &controls, &ranges, |_, values| take(Held::Control, values))
}

/// Hands the values of an update to `take` as [`each_value`] does, if they are finite.
///
/// # Errors
///
/// As [`each_value`], and when a value is not finite.
pub fn each_finite_value(
    machine: &Machine,
    set: &UpdateSet,
    tensors: &[LaneTensor],
    mut take: impl FnMut(&[f64]),
) -> Result<(), SecureError> {
    let mut passed = 0;
    each_value(machine, set, tensors, &mut |_, values| {
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(not_finite(tensors, passed + place));
        }
        passed += values.len();
        take(values);
        Ok(())
    })
}

fn each_value_of(
    machine: &Machine,
    set: &UpdateSet,
    ranges: &[Range<usize>],
    mut take: impl FnMut(TensorClass, &[f64]) -> Result<(), SecureError>,
) -> Result<(), SecureError> {
    let plan = TilePlan::at_multiples(set, 1, ranges, COLUMNS);
    let mut reader = TileReader::new(machine.isa, set, &plan);
    let mut values = Vec::with_capacity(COLUMNS);
    for tile in (0..plan.tiles()).map(|number| plan.tile(number)) {
        interrupt::check()?;
        reader.read_base(&tile)?;
        for_element!(tile.working, E => read_row::<E>(&mut reader, &tile, &mut values))?;
        take(tile.class, &values)?;
    }
    Ok(())
}

fn read_row<E: Element>(
    reader: &mut TileReader,
    tile: &Tile,
    values: &mut Vec<f64>,
) -> Result<(), PassError> {
    reader.read::<E>(tile, &[0])?;
    let (rows, base) = (reader.rows::<E>(tile, 1), reader.base_of(0));
    let row = rows.row(0);
    values.clear();
    match base {
        [] => values.extend(row.iter().map(|value| value.widen())),
        base => values.extend(row.iter().zip(base).map(|(value, base)| value.widen() - base)),
    }
    Ok(())
}

/// Checks that the client's base has the digest and the tensors that the server names. `found` are the tensors of the base.
///
/// # Errors
///
/// When it has others.
pub fn check_base(
    opened: &OpenedUpdate,
    base: &Path,
    (digest, tensors): (&Hex<32>, &[LaneTensor]),
    found: &[LaneTensor],
) -> Result<(), SecureError> {
    let found_digest = opened.base_digest()?;
    if found_digest != *digest {
        let why = format!(
            "{}: its digest is {found_digest}, expected {digest}, the base of the session",
            base.display()
        );
        return Err(SecureError::refused(
            why,
            Some(
                "a server that sends each client another base learns their updates; compare the digest with other clients",
            ),
        ));
    }
    if found != tensors {
        return Err(SecureError::terms("manifest", "its tensors are not those of the base"));
    }
    Ok(())
}

/// The part of a client in the sum.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// The factor for its values: its weight over the largest one.
    pub factor: f64,
    /// Its local steps, by which it divides the changes of parameters; 1 if the terms ask for none.
    pub steps: f64,
    /// Lanes behind those of values: the weight, and the product of weight and steps, as the terms ask for them.
    pub lanes: Vec<u32>,
    /// Its weight, and whether the cap lowered it; `None` if all clients weigh the same.
    pub weight: Option<(u32, bool)>,
    /// Whether the cap lowered its local steps.
    pub is_over_steps: bool,
}

/// The part of a client in the sum, from the metadata of its update.
///
/// # Errors
///
/// When the metadata lacks a number that the terms ask for.
pub fn share_of(
    weights: ClientWeights,
    steps_cap: Option<u32>,
    update: &Client,
) -> Result<Share, SecureError> {
    let missing = |key: &str| {
        let why = format!("metadata `{key}` is missing, expected a number: the session asks for it");
        SecureError::terms(update.model.path.display().to_string(), why)
    };
    let mut share = Share { factor: 1.0, steps: 1.0, lanes: Vec::new(), weight: None, is_over_steps: false };
    if let ClientWeights::Examples { cap } = weights {
        let examples = update.metadata.num_examples.ok_or_else(|| missing("num_examples"))?.round();
        let weight = examples.min(f64::from(cap));
        share.factor = weight / f64::from(cap);
        share.weight = Some((weight as u32, weight < examples));
        share.lanes.push(weight as u32);
    }
    if let Some(cap) = steps_cap {
        let steps = update.metadata.local_steps.ok_or_else(|| missing("local_steps"))?.round();
        share.is_over_steps = steps > f64::from(cap);
        let steps = steps.clamp(1.0, f64::from(cap));
        share.steps = steps;
        share.lanes.push(steps as u32 * share.weight.map_or(1, |(weight, _)| weight));
    }
    Ok(share)
}
