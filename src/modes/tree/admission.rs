//! Takes the partials of a tree into a run, if they fit its rule, its updates and each other.

use crate::engine::intake::fault::Fault;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::taken::{Member, Taken};
use crate::engine::intake::update::Update;
use crate::io::model_file::{ModelFile, TensorPlace};
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::modes::tree::Partial;
use crate::modes::tree::description::{Description, PartialMember};
use crate::modes::tree::purpose::Purpose;
use crate::strategies::ClientMetadata;
use crate::updates::metadata::{PARTIAL_KEY, SHARD_KEY, UpdateKind};
use crate::updates::placement::placement;
use crate::updates::set::{MergedLayout, UpdateSet};
use crate::updates::source::{Placement, Source};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The prefix of tensors of sums.
pub(super) const SUM: &str = "sum.";
/// The prefix of tensors of the sums' rounding errors.
pub(super) const ERROR: &str = "error.";

/// The prefix of the tensors of an edge row: the smallest values first, then the largest.
pub(super) fn edge_prefix(edge: usize, low: usize) -> String {
    if edge < low { format!("low.{edge}.") } else { format!("high.{}.", edge - low) }
}

/// A fault of a partial.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PartialFault {
    #[error("metadata `fedmill.partial` is not understood: {why}")]
    Bad { why: String },
    #[error(
        "file is the shard file of shard {shard}, expected an update or a partial of a tree; `fedmill decide` and `fedmill \
        merge` take shard files"
    )]
    ShardFile { shard: String },
    #[error("partial has {what} {found}, expected {expected}")]
    Other { what: &'static str, found: String, expected: String },
    #[error("partial weighs clients by {found}, expected {expected} as in this run")]
    OtherWeights { found: String, expected: &'static str },
}

impl From<PartialFault> for Fault {
    fn from(fault: PartialFault) -> Self {
        // Weights are compared after all updates are admitted. Each admission finds the other faults again.
        let is_relative = !matches!(fault, PartialFault::OtherWeights { .. });
        Self::Mode { fault: Box::new(fault), is_relative }
    }
}

/// Separates partials from updates, by metadata.
pub fn apart(opened: Vec<Update>) -> (Vec<Update>, Vec<Update>) {
    opened.into_iter().partition(Update::is_partial)
}

/// Takes partials into a run, for a purpose. Rejects partials that do not fit, and updates of clients that are in a
/// partial too. Returns the partials in the order of [`Taken::others`].
///
/// # Errors
///
/// When the base cannot be read.
pub fn join(
    taken: &mut Taken,
    partials: Vec<Update>,
    purpose: Purpose,
    policy: &Policy,
) -> io::Result<Vec<Partial>> {
    let mut described = Vec::new();
    for mut partial in partials {
        match describe(&partial) {
            Ok((model, description)) if partial.faults.is_empty() => {
                described.push((partial, model, description));
            }
            found => {
                partial.faults.extend(found.err().map(Fault::from));
                taken.rejected.push(partial);
            }
        }
    }
    described.sort_by(|a, b| (&a.2.clients[0].id, &a.0.path).cmp(&(&b.2.clients[0].id, &b.0.path)));
    let mut admitted: Vec<Partial> = Vec::new();
    for (mut update, model, description) in described {
        let partial = PartialFile { path: update.path.clone(), model, description };
        match admit(&mut taken.set, &admitted, partial, purpose, policy)? {
            Ok(partial) => {
                admitted.push(partial);
                taken.others.push(update);
            }
            Err(faults) => {
                update.faults.extend(faults);
                taken.rejected.push(update);
            }
        }
    }
    reject_updates_within(taken, &admitted);
    taken.set.take_kinds(admitted.iter().map(|partial| partial.description.kind));
    Ok(admitted)
}

/// A partial with its parsed description.
struct PartialFile {
    path: PathBuf,
    model: Arc<ModelFile>,
    description: Description,
}

fn describe(partial: &Update) -> Result<(Arc<ModelFile>, Description), PartialFault> {
    let bad = |why| PartialFault::Bad { why };
    let model = partial.model.as_ref().ok_or_else(|| bad("the file cannot be read".to_owned()))?;
    if let Some(shard) = model.metadata.get(SHARD_KEY) {
        return Err(PartialFault::ShardFile { shard: shard.clone() });
    }
    let text = model.metadata.get(PARTIAL_KEY).map_or("", String::as_str);
    Ok((Arc::clone(model), Description::parse(text).map_err(bad)?))
}

/// Admits one partial, or returns its faults.
fn admit(
    set: &mut UpdateSet,
    admitted: &[Partial],
    PartialFile { path, model, description }: PartialFile,
    purpose: Purpose,
    policy: &Policy,
) -> io::Result<Result<Partial, Vec<Fault>>> {
    let mut faults = Vec::new();
    if description.rule != purpose.rule() {
        let expected = format!("`{}`, the rule of this run", purpose.rule());
        faults.push(other("rule", format!("`{}`", description.rule), expected));
    }
    if let Some((found, expected)) = description.round.zip(policy.round).filter(|(a, b)| a != b) {
        faults.push(Fault::OtherRound { found, expected });
    }
    faults.extend(other_base(set, &description)?);
    faults.extend(other_kind(set, &description));
    for known in admitted {
        faults.extend(differs_from(known, &description));
    }
    let is_first = set.layout.tensors().is_empty() && set.base.is_none() && set.clients.is_empty();
    let layout = if is_first { layout_of(&model, &description) } else { set.layout.clone() };
    let mut sources = match sources(&model, &description, &layout) {
        Ok(sources) if faults.is_empty() => sources,
        more => {
            faults.extend(more.err().unwrap_or_default());
            return Ok(Err(faults));
        }
    };
    let lowest = set.clients.first().map(|client| &client.id).into_iter();
    let lowest = lowest.chain(admitted.first().map(|known| &known.description.clients[0].id)).min();
    if set.base.is_none() && lowest.is_none_or(|lowest| description.clients[0].id < *lowest) {
        set.metadata = model.metadata.clone();
    }
    if is_first {
        set.merged = MergedLayout::of(&layout);
    }
    set.layout = layout;
    let edges = sources.split_off(2);
    Ok(Ok(match <[Source; 2]>::try_from(sources) {
        Ok([sums, errors]) => Partial { path, description, sums, errors, edges },
        Err(_) => return Ok(Err(faults)),
    }))
}

fn other(what: &'static str, found: String, expected: String) -> Fault {
    PartialFault::Other { what, found, expected }.into()
}

fn other_base(set: &UpdateSet, description: &Description) -> io::Result<Option<Fault>> {
    let (Some(base), Some(found)) = (&set.base, &description.base) else { return Ok(None) };
    let digest = base.digest()?;
    if digest.is_named(found) {
        return Ok(None);
    }
    let expected = format!("blake3:{} or sha256:{}", digest.blake3, digest.sha256);
    Ok(Some(Fault::OtherBase { found: found.clone(), expected }))
}

/// Weights and deltas cannot be added: to subtract the base from a sum of weights would round again.
fn other_kind(set: &UpdateSet, description: &Description) -> Option<Fault> {
    let is_other = |kind: UpdateKind| match (description.kind, set.base.is_some()) {
        // Each update with weights becomes a delta.
        (UpdateKind::Delta, true) => false,
        (found, _) => found != kind,
    };
    let client = set.clients.iter().find(|client| is_other(client.metadata.kind))?;
    let expected = format!("{}, as in {}", client.metadata.kind, client.model.path.display());
    Some(other("kind", description.kind.to_string(), expected))
}

/// The fault of a partial that disagrees with an earlier one; `None` if they agree.
fn differs_from(known: &Partial, description: &Description) -> Option<Fault> {
    let a = &known.description;
    let of = |what: &str| format!("{what}, as in {}", known.path.display());
    if a.kind != description.kind {
        return Some(other("kind", description.kind.to_string(), of(&a.kind.to_string())));
    }
    if a.weights != description.weights {
        return Some(other("source of weights", description.weights.clone(), of(&a.weights)));
    }
    if let Some((one, two)) = a.base.as_ref().zip(description.base.as_ref()).filter(|(one, two)| one != two) {
        return Some(other("base", two.clone(), of(one)));
    }
    if let Some((one, two)) = a.round.zip(description.round).filter(|(one, two)| one != two) {
        return Some(other("round", two.to_string(), of(&one.to_string())));
    }
    // Clients are in order of id.
    let is_known =
        |member: &&PartialMember| a.clients.binary_search_by(|known| known.id.cmp(&member.id)).is_ok();
    let twice = description.clients.iter().find(is_known)?;
    Some(Fault::DuplicateClient { id: twice.id.clone(), other: known.path.clone() })
}

/// Rejects the updates of clients that are in a partial too.
fn reject_updates_within(taken: &mut Taken, partials: &[Partial]) {
    let mut within: BTreeMap<&str, &PathBuf> = BTreeMap::new();
    for partial in partials {
        within.extend(partial.description.clients.iter().map(|member| (member.id.as_str(), &partial.path)));
    }
    for client in std::mem::take(&mut taken.set.clients) {
        match within.get(client.id.as_str()) {
            None => taken.set.clients.push(client),
            Some(other) => {
                let fault = Fault::DuplicateClient { id: client.id.clone(), other: (*other).clone() };
                taken.rejected.push(Update::of_client(client, vec![fault]));
            }
        }
    }
}

/// The base that a partial names.
fn layout_of(model: &ModelFile, description: &Description) -> Layout {
    let tensor = |place: &TensorPlace| {
        let name = place.spec.name.strip_prefix(SUM)?;
        let dtype = *description.dtypes.get(name)?;
        Some(TensorSpec { name: name.to_owned(), dtype, ..place.spec.clone() })
    };
    Layout::new(model.table.iter().filter_map(tensor).collect())
}

/// The places of the sums, the errors and each edge of a layout's tensors, or how the partial differs.
fn sources(
    model: &Arc<ModelFile>,
    description: &Description,
    layout: &Layout,
) -> Result<Vec<Source>, Vec<Fault>> {
    let edges = description.low + description.high;
    let prefixes = [SUM.to_owned(), ERROR.to_owned()].into_iter();
    let prefixes = prefixes.chain((0..edges).map(|edge| edge_prefix(edge, description.low)));
    let mut expected = Vec::new();
    for prefix in prefixes {
        expected.extend(layout.tensors().iter().map(|spec| TensorSpec {
            name: format!("{prefix}{}", spec.name),
            dtype: Dtype::F64,
            ..spec.clone()
        }));
    }
    let mut faults = dtype_faults(description, layout);
    match placement(&*model.table, &expected, "model of this round, as a partial,") {
        Ok(all) if faults.is_empty() => {
            let tensors = layout.tensors().len();
            let part = |part: usize| -> Placement { all[part * tensors..(part + 1) * tensors].to_vec() };
            let source = |i: usize| Source { model: Arc::clone(model), placement: Arc::new(part(i)) };
            Ok((0..2 + edges).map(source).collect())
        }
        found => {
            faults.extend(found.err().into_iter().flatten().map(Fault::from));
            Err(faults)
        }
    }
}

/// The faults of tensors whose dtype in the partial's model does not convert to that of the layout.
fn dtype_faults(description: &Description, layout: &Layout) -> Vec<Fault> {
    let of = layout.tensors().iter().filter_map(|spec| {
        let found = description.dtypes.get(&spec.name).copied();
        let fits = found.is_some_and(|found| found.converts_to(spec.dtype));
        let expected = format!("one that converts to {} of `{}`", spec.dtype, spec.name);
        let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
        (!fits).then(|| other("dtype", found, expected))
    });
    of.collect()
}

/// Adds the clients of partials to those of the updates. Returns the faults of partials with another source of weights,
/// by index: updates first. `is_chosen` is whether the operator chose the source.
pub fn add_members(taken: &mut Taken, partials: &[Partial], is_chosen: bool) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    let updates = taken.set.clients.len();
    taken.members.clear();
    for (i, partial) in partials.iter().enumerate() {
        let (theirs, ours) = (partial.description.weights.as_str(), taken.weights_source);
        if updates == 0 && !is_chosen {
            let known = ["examples", "uniform", "file"].into_iter().find(|name| *name == theirs);
            taken.weights_source = known.unwrap_or("file");
        } else if theirs != ours {
            let fault = PartialFault::OtherWeights { found: theirs.to_owned(), expected: ours };
            faults.push((updates + i, fault.into()));
        }
        for member in &partial.description.clients {
            taken.members.push(Member { id: member.id.clone(), other: i });
            taken.cohort.clients.push(ClientMetadata { id: member.id.clone(), ..ClientMetadata::default() });
            taken.cohort.weights.push(member.weight);
        }
    }
    faults
}
