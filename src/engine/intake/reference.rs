//! The layout that every update must have: the base's, or the one that most updates share.

use crate::engine::intake::classes::ClassPatterns;
use crate::engine::intake::personal::{NormModules, Personal};
use crate::engine::intake::policy::{Missing, Policy, TensorPolicy};
use crate::engine::intake::update::Update;
use crate::io::model_file::{ModelFile, TensorPlace, TensorTable};
use crate::model::class::TensorClass;
use crate::model::dtype::{Dtype, Kind};
use crate::model::faults::Faults;
use crate::model::layout::{Layout, TensorSpec};
use crate::updates::fault::LayoutFault;
use crate::updates::placement::{in_layout_order, opaque_placement, placement, placement_with_gaps};
use crate::updates::set::{Client, MergedLayout};
use crate::updates::source::{Place, Placement};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

/// The layout that every update must have.
#[derive(Debug)]
pub(crate) struct ExpectedLayout {
    /// The tensors that every update must hold.
    pub(crate) layout: Layout,
    /// The opaque tensors that every update must hold.
    pub(crate) opaque: Vec<TensorSpec>,
    /// The tensors of the merged model.
    pub(crate) merged: MergedLayout,
    /// Metadata of the base, or of the first update with this layout.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The place of each of the base's tensors, in the order of `layout`. Empty without a base.
    pub(crate) base_placement: Placement,
    /// Its name in messages.
    name: &'static str,
    membership: Membership,
}

/// Tells shared tensors, personal tensors and control tensors of an update apart.
#[derive(Debug)]
struct Membership {
    control_prefix: Option<&'static str>,
    missing: Missing,
    personal: Personal,
    /// Modules of batch normalisation, in the base or in most updates.
    norms: NormModules,
}

impl Membership {
    fn new(policy: &Policy, base: Option<&TensorTable>, opened: &[Update]) -> Self {
        let TensorPolicy { control_prefix, missing, personal, .. } = policy.tensors.clone();
        let mut norms = NormModules::default();
        if !personal.is_empty() {
            let tables = voters(opened).into_iter().map(|model| names(&model.table));
            norms = NormModules::of_most(tables.collect());
            norms.extend(base.into_iter().flat_map(names));
        }
        Self { control_prefix, missing, personal, norms }
    }

    /// The name of the model's tensor that a control tensor belongs to; `None` for other tensors.
    fn controls<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.control_prefix?)
    }

    /// Whether a tensor is one of the model, and shared.
    fn is_shared(&self, name: &str) -> bool {
        self.controls(name).is_none() && !self.personal.holds(name, &self.norms)
    }

    /// The shared tensors.
    fn shared<'a>(&self, table: &'a TensorTable) -> impl Iterator<Item = &'a TensorPlace> {
        table.iter().filter(|place| self.is_shared(&place.spec.name))
    }
}

fn names(table: &TensorTable) -> impl Iterator<Item = &str> {
    table.iter().map(|place| place.spec.name.as_str())
}

/// The tensors of a model that clients share: those to merge, with their places, and the opaque ones.
struct SharedTensors<'a> {
    layout: Layout,
    places: Vec<&'a TensorPlace>,
    opaque: Vec<TensorSpec>,
}

impl<'a> SharedTensors<'a> {
    fn of(shared: Vec<&'a TensorPlace>, patterns: &ClassPatterns) -> Self {
        let classes = patterns.among(shared.iter().map(|place| &place.spec));
        let is_opaque = |place: &&TensorPlace| classes.of(&place.spec) == TensorClass::Opaque;
        let (opaque, places): (Vec<_>, Vec<_>) = shared.iter().copied().partition(is_opaque);
        let specs = places.iter().map(|place| place.spec.clone()).collect();
        Self {
            layout: Layout::classified(specs, |spec| classes.of(spec)),
            places,
            opaque: opaque.into_iter().map(|place| place.spec.clone()).collect(),
        }
    }
}

/// The models of sound updates, one per client: several files with one id have one vote. If no update is sound, all
/// have a vote, so that none gets faults for a layout without tensors. Updates are in order of id.
fn voters(opened: &[Update]) -> Vec<&ModelFile> {
    let is_sound = |update: &&Update| update.faults.is_empty();
    let any_is_sound = opened.iter().any(|update| is_sound(&update));
    let mut voters: Vec<&Update> = opened.iter().filter(|update| !any_is_sound || is_sound(update)).collect();
    voters.dedup_by(|a, b| a.id == b.id);
    voters.into_iter().filter_map(|update| update.model.as_deref()).collect()
}

impl ExpectedLayout {
    /// The layout of a base, without personal tensors.
    pub(crate) fn of_base(base: &ModelFile, opened: &[Update], policy: &Policy) -> Self {
        let membership = Membership::new(policy, Some(&base.table), opened);
        let shared = SharedTensors::of(membership.shared(&base.table).collect(), &policy.tensors.classes);
        let merged: HashSet<&str> = shared.places.iter().map(|place| place.spec.name.as_str()).collect();
        Self {
            merged: MergedLayout::with_kept(&*base.table, |name| merged.contains(name)),
            metadata: base.metadata.clone(),
            base_placement: shared.places.iter().copied().map(Place::from).collect(),
            layout: shared.layout,
            opaque: shared.opaque,
            name: "base",
            membership,
        }
    }

    /// The layout that most sound updates share; ties go to the lowest client id. The vote is on shapes first, then on
    /// dtypes among those, since dtypes convert. Updates are in order of id.
    pub(crate) fn most_shared(opened: &[Update], policy: &Policy) -> Self {
        let membership = Membership::new(policy, None, opened);
        let same_shapes = largest_groups(voters(opened), |model| shapes(membership.shared(&model.table)));
        let same_shapes = same_shapes.into_iter().next().unwrap_or_default();
        let same_dtypes = largest_groups(same_shapes, |model| dtypes(membership.shared(&model.table)));
        let first = same_dtypes.first().and_then(|group| group.first());
        let all: Vec<&TensorPlace> = first.iter().flat_map(|first| membership.shared(&first.table)).collect();
        let mut shared = SharedTensors::of(all.clone(), &policy.tensors.classes);
        let tied = same_dtypes.iter().skip(1).filter_map(|group| group.first());
        widen(&mut shared.layout, tied.flat_map(|model| membership.shared(&model.table)));
        let merged: HashSet<&str> = shared.places.iter().map(|place| place.spec.name.as_str()).collect();
        Self {
            merged: MergedLayout::with_kept(all, |name| merged.contains(name)),
            layout: shared.layout,
            opaque: shared.opaque,
            metadata: first.map(|first| first.metadata.clone()).unwrap_or_default(),
            base_placement: Placement::new(),
            name: "layout most updates share",
            membership,
        }
    }

    /// Finds the tensors of the reference in each update. Returns the clients, and the rejected updates.
    pub(crate) fn place(&self, opened: Vec<Update>) -> (Vec<Client>, Vec<Update>) {
        let (mut clients, mut rejected) = (Vec::new(), Vec::new());
        let mut known: HashMap<*const TensorTable, Placements> = HashMap::new();
        for mut update in opened {
            let placements = update.model.as_ref().and_then(|model| {
                let table = Arc::as_ptr(&model.table);
                if let Some(placements) = known.get(&table) {
                    return Some(placements.clone());
                }
                match self.placements(&model.table) {
                    Ok(placements) => {
                        known.insert(table, placements.clone());
                        Some(placements)
                    }
                    Err(faults) => {
                        update.faults.append(faults);
                        None
                    }
                }
            });
            match (update.model, placements) {
                (Some(model), Some(places)) if update.faults.is_empty() => {
                    let Placements { model: placement, control, opaque } = places;
                    let Update { id, named_by, metadata, .. } = update;
                    clients.push(Client { id, named_by, model, metadata, placement, control, opaque });
                }
                (model, _) => rejected.push(Update { model, ..update }),
            }
        }
        (clients, rejected)
    }

    /// Finds the tensors of the reference in an update, and its control tensors if the policy expects them. Returns the
    /// differences if it cannot.
    fn placements(&self, table: &TensorTable) -> Result<Placements, Faults<LayoutFault>> {
        let (control, model): (Vec<&TensorPlace>, _) =
            self.not_personal(table).partition(|place| self.membership.controls(&place.spec.name).is_some());
        let opaque: HashSet<&str> = self.opaque.iter().map(|spec| spec.name.as_str()).collect();
        let (opaque, model): (Vec<&TensorPlace>, _) =
            model.into_iter().partition(|place| opaque.contains(place.spec.name.as_str()));
        let reference = self.layout.tensors();
        let model = match self.membership.missing {
            Missing::Reject => placement(model, reference, self.name),
            Missing::Base | Missing::Present => placement_with_gaps(model, reference, self.name),
        };
        let opaque = opaque_placement(opaque, &self.opaque, self.name);
        let prefix = self.membership.control_prefix;
        let control = prefix.map(|prefix| self.control_placement(control, prefix)).transpose();
        match (model, opaque, control) {
            (Ok(model), Ok(opaque), Ok(control)) => Ok(Placements {
                model: Arc::new(model),
                control: control.map(Arc::new),
                opaque: Arc::new(opaque),
            }),
            (model, opaque, control) => {
                let mut faults = model.err().unwrap_or_default();
                faults.append(opaque.err().unwrap_or_default());
                faults.append(control.err().unwrap_or_default());
                Err(faults)
            }
        }
    }

    /// Finds the control tensor of each parameter among the control tensors of an update. Clients may send those of
    /// statistics too: no step uses them.
    fn control_placement(
        &self,
        control: Vec<&TensorPlace>,
        prefix: &str,
    ) -> Result<Placement, Faults<LayoutFault>> {
        let specs = self.layout.tensors().iter().zip(self.layout.classes());
        let (parameters, others): (Vec<_>, Vec<_>) =
            specs.partition(|(_, class)| **class == TensorClass::Parameter);
        let of_control =
            |spec: &TensorSpec| TensorSpec { name: format!("{prefix}{}", spec.name), ..spec.clone() };
        let parameters: Vec<TensorSpec> = parameters.into_iter().map(|(spec, _)| of_control(spec)).collect();
        let others: HashSet<&str> = others.into_iter().map(|(spec, _)| spec.name.as_str()).collect();
        let is_of_parameter = |place: &&TensorPlace| {
            self.membership.controls(&place.spec.name).is_none_or(|name| !others.contains(name))
        };
        let control: Vec<&TensorPlace> = control.into_iter().filter(is_of_parameter).collect();
        Ok(in_layout_order(&self.layout, placement(control, &parameters, self.name)?))
    }

    /// The tensors of an update that are not personal. Tensors outside the reference are also personal by the update's
    /// modules.
    fn not_personal<'a>(&self, table: &'a TensorTable) -> impl Iterator<Item = &'a TensorPlace> {
        let Membership { personal, norms, .. } = &self.membership;
        let mut own = NormModules::default();
        let mut shared: HashSet<&str> = HashSet::new();
        if !personal.is_empty() {
            own.extend(names(table));
            shared.extend(self.layout.tensors().iter().map(|spec| spec.name.as_str()));
        }
        table.iter().filter(move |place| {
            let name = self.membership.controls(&place.spec.name).unwrap_or(&place.spec.name);
            shared.contains(name) || !(personal.holds(name, norms) || personal.holds(name, &own))
        })
    }
}

/// Two layouts with equal keys can be merged: names, shapes and kinds.
type Shapes<'a> = Vec<(&'a str, &'a [usize], Kind)>;

fn shapes<'a>(tensors: impl Iterator<Item = &'a TensorPlace>) -> Shapes<'a> {
    let mut shapes: Shapes = tensors
        .map(|place| (place.spec.name.as_str(), place.spec.shape.as_slice(), place.spec.dtype.kind()))
        .collect();
    shapes.sort_by_key(|(name, ..)| *name);
    shapes
}

fn dtypes<'a>(tensors: impl Iterator<Item = &'a TensorPlace>) -> Vec<(&'a str, Dtype)> {
    let mut dtypes: Vec<_> = tensors.map(|place| (place.spec.name.as_str(), place.spec.dtype)).collect();
    dtypes.sort_by_key(|(name, _)| *name);
    dtypes
}

/// Gives each tensor the widest of its dtype and those of other models with equally many votes.
fn widen<'a>(layout: &mut Layout, others: impl Iterator<Item = &'a TensorPlace>) {
    let mut widest: HashMap<&str, Dtype> = HashMap::new();
    for TensorPlace { spec, .. } in others {
        let known = widest.entry(&spec.name).or_insert(spec.dtype);
        *known = known.wider(spec.dtype);
    }
    layout
        .convert(|spec| widest.get(spec.name.as_str()).map_or(spec.dtype, |dtype| spec.dtype.wider(*dtype)));
}

/// The items of the most frequent key; of each equally frequent key, in order.
fn largest_groups<'a, K: Debug>(
    models: Vec<&'a ModelFile>,
    key: impl Fn(&'a ModelFile) -> Vec<K>,
) -> Vec<Vec<&'a ModelFile>> {
    // Updates with equal tables share one, so few comparisons remain.
    let mut groups: Vec<(blake3::Hash, Vec<&ModelFile>)> = Vec::new();
    let mut known: HashMap<*const TensorTable, usize> = HashMap::new();
    for model in models {
        let group = *known.entry(Arc::as_ptr(&model.table)).or_insert_with(|| {
            // A digest stands for the key: those of hostile updates would take as much memory as their tables.
            let key = digest(key(model));
            groups.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            })
        });
        groups[group].1.push(model);
    }
    let most = groups.iter().map(|(_, members)| members.len()).max().unwrap_or(0);
    groups.into_iter().map(|(_, members)| members).filter(|members| members.len() == most).collect()
}

/// The digest of the text of items.
fn digest<T: Debug>(items: impl IntoIterator<Item = T>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for item in items {
        hasher.update(format!("{item:?}\n").as_bytes());
    }
    hasher.finalize()
}

/// The places of an update's tensors.
#[derive(Clone)]
struct Placements {
    model: Arc<Placement>,
    control: Option<Arc<Placement>>,
    opaque: Arc<Placement>,
}
