//! Which partials take part in a round: those that are for its rule, and fit its updates and each other.

use crate::engine::intake::admit::{Expectations, Place, Placement, Update, UpdateSet, frame_of};
use crate::engine::intake::fault::Fault;
use crate::engine::intake::personal::MergedLayout;
use crate::engine::intake::reference::placement;
use crate::io::discover::stem;
use crate::io::model_file::{ModelFile, TensorPlace};
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::modes::tree::Partial;
use crate::modes::tree::description::{Description, KEY, Member};
use crate::modes::tree::purpose::Purpose;
use crate::strategies::{ClientMetadata, Cohort};
use crate::updates::metadata::UpdateKind;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What tensors of sums are called.
pub(crate) const SUM: &str = "sum.";
/// What tensors are called that hold what rounding took from sums.
pub(crate) const ERROR: &str = "error.";

/// What tensors of edge rows are called: the smallest values, then the largest.
pub(crate) fn edge_prefix(edge: usize, low: usize) -> String {
    if edge < low { format!("low.{edge}.") } else { format!("high.{}.", edge - low) }
}

/// The name that a partial goes by in messages.
pub(crate) fn name_of(path: &Path) -> String {
    stem(path)
}

/// Parts partials, known by their metadata, from updates.
pub fn apart(opened: Vec<Update>) -> (Vec<Update>, Vec<Update>) {
    let is_partial =
        |update: &Update| update.model.as_ref().is_some_and(|model| model.metadata.contains_key(KEY));
    opened.into_iter().partition(is_partial)
}

/// Lets partials into a set of updates, for a purpose; those that do not belong there are rejected, as are updates that
/// stand in a partial too.
///
/// # Errors
///
/// When the base cannot be read.
pub fn join(
    set: &mut UpdateSet,
    partials: Vec<Update>,
    rejected: &mut Vec<Update>,
    purpose: Purpose,
    expected: &Expectations,
) -> io::Result<()> {
    let mut described = Vec::new();
    for mut partial in partials {
        match describe(&partial) {
            Ok((model, description)) if partial.faults.is_empty() => {
                described.push((partial, model, description));
            }
            found => {
                partial.faults.extend(found.err());
                rejected.push(partial);
            }
        }
    }
    described.sort_by(|a, b| (&a.2.clients[0].id, &a.0.path).cmp(&(&b.2.clients[0].id, &b.0.path)));
    for (mut partial, model, description) in described {
        match admit(set, &partial.path, &model, description, purpose, expected)? {
            Ok(admitted) => set.partials.push(admitted),
            Err(faults) => {
                partial.faults.extend(faults);
                rejected.push(partial);
            }
        }
    }
    reject_updates_within(set, rejected);
    set.frame = frame_of(&set.clients, &set.partials, set.base.is_some());
    Ok(())
}

fn describe(partial: &Update) -> Result<(Arc<ModelFile>, Description), Fault> {
    let bad = |why| Fault::BadPartial { why };
    let model = partial.model.as_ref().ok_or_else(|| bad("the file cannot be read".to_owned()))?;
    let text = model.metadata.get(KEY).map_or("", String::as_str);
    Ok((Arc::clone(model), Description::parse(text).map_err(bad)?))
}

/// Lets one partial into the set, or says what is against it.
fn admit(
    set: &mut UpdateSet,
    path: &Path,
    model: &Arc<ModelFile>,
    description: Description,
    purpose: Purpose,
    expected: &Expectations,
) -> io::Result<Result<Partial, Vec<Fault>>> {
    let mut faults = Vec::new();
    if description.rule != purpose.rule() {
        let expected = format!("`{}`, the rule of this run", purpose.rule());
        faults.push(other("rule", format!("`{}`", description.rule), expected));
    }
    if let Some((found, expected)) = description.round.zip(expected.round).filter(|(a, b)| a != b) {
        faults.push(Fault::OtherRound { found, expected });
    }
    faults.extend(other_base(set, &description)?);
    faults.extend(other_kind(set, &description));
    for known in &set.partials {
        faults.extend(differs_from(known, &description));
    }
    let is_first = set.layout.tensors().is_empty() && set.base.is_none() && set.clients.is_empty();
    let layout = if is_first { layout_of(model, &description) } else { set.layout.clone() };
    let places = places(model, &description, &layout);
    match places {
        Ok(mut places) if faults.is_empty() => {
            let lowest = set.clients.first().map(|client| &client.id).into_iter();
            let lowest =
                lowest.chain(set.partials.first().map(|known| &known.description.clients[0].id)).min();
            if set.base.is_none() && lowest.is_none_or(|lowest| description.clients[0].id < *lowest) {
                set.metadata = model.metadata.clone();
            }
            if is_first {
                set.merged = MergedLayout::of(&layout);
            }
            set.layout = layout;
            let edges = places.split_off(2);
            let errors = places.pop().unwrap_or_default();
            let sums = places.pop().unwrap_or_default();
            Ok(Ok(Partial {
                path: path.to_owned(),
                model: Arc::clone(model),
                description,
                sums,
                errors,
                edges,
            }))
        }
        Ok(_) => Ok(Err(faults)),
        Err(more) => {
            faults.extend(more);
            Ok(Err(faults))
        }
    }
}

fn other(what: &'static str, found: String, expected: String) -> Fault {
    Fault::OtherPartial { what, found, expected }
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

/// Weights and deltas do not add up: a sum of weights has no base subtracted from each, and cannot have it later
/// without rounding.
fn other_kind(set: &UpdateSet, description: &Description) -> Option<Fault> {
    let is_other = |kind: UpdateKind| match (description.kind, set.base.is_some()) {
        // Updates that hold weights become deltas, one by one.
        (UpdateKind::Delta, true) => false,
        (found, _) => found != kind,
    };
    let client = set.clients.iter().find(|client| is_other(client.metadata.kind))?;
    let expected = format!("{}, as in {}", client.metadata.kind, client.model.path.display());
    Some(other("kind", description.kind.to_string(), expected))
}

/// What two partials have to agree in.
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
    // Clients are in order of their ids.
    let is_known = |member: &&Member| a.clients.binary_search_by(|known| known.id.cmp(&member.id)).is_ok();
    let twice = description.clients.iter().find(is_known)?;
    Some(Fault::DuplicateClient { id: twice.id.clone(), other: known.path.clone() })
}

/// A client that stands in a partial keeps its place there.
fn reject_updates_within(set: &mut UpdateSet, rejected: &mut Vec<Update>) {
    let mut within: BTreeMap<&str, &PathBuf> = BTreeMap::new();
    for partial in &set.partials {
        within.extend(partial.description.clients.iter().map(|member| (member.id.as_str(), &partial.path)));
    }
    for client in std::mem::take(&mut set.clients) {
        match within.get(client.id.as_str()) {
            None => set.clients.push(client),
            Some(other) => {
                let fault = Fault::DuplicateClient { id: client.id.clone(), other: (*other).clone() };
                rejected.push(client.into_update(vec![fault]));
            }
        }
    }
}

/// The model that a partial is of.
fn layout_of(model: &ModelFile, description: &Description) -> Layout {
    let tensor = |place: &TensorPlace| {
        let name = place.spec.name.strip_prefix(SUM)?;
        let dtype = *description.dtypes.get(name)?;
        Some(TensorSpec { name: name.to_owned(), dtype, ..place.spec.clone() })
    };
    Layout::new(model.table.iter().filter_map(tensor).collect())
}

/// Where the sums, the errors and each edge of a layout's tensors are, or how the partial differs from it.
fn places(
    model: &ModelFile,
    description: &Description,
    layout: &Layout,
) -> Result<Vec<Placement>, Vec<Fault>> {
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
    let kinds = layout.tensors().iter().filter_map(|spec| {
        let found = description.dtypes.get(&spec.name).copied();
        let fits = found.is_some_and(|found| found.converts_to(spec.dtype));
        let expected = format!("one that converts to {} of `{}`", spec.dtype, spec.name);
        let found = found.map_or_else(|| "missing".to_owned(), |found| found.to_string());
        (!fits).then(|| other("dtype", found, expected))
    });
    let mut faults: Vec<Fault> = kinds.collect();
    match placement(&*model.table, &expected, "model of this round, as a partial,") {
        Ok(all) if faults.is_empty() => {
            let tensors = layout.tensors().len();
            let part = |part: usize| -> Vec<Place> { all[part * tensors..(part + 1) * tensors].to_vec() };
            Ok((0..2 + edges).map(part).collect())
        }
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// Adds the clients of the set's partials to those of its updates; or what is wrong with partials that weigh otherwise,
/// by their place behind the updates.
pub fn add_members(
    set: &UpdateSet,
    cohort: &mut Cohort,
    source: &mut &'static str,
    is_asked: bool,
) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    for (i, partial) in set.partials.iter().enumerate() {
        let theirs = partial.description.weights.as_str();
        if set.clients.is_empty() && !is_asked {
            *source =
                ["examples", "uniform", "file"].into_iter().find(|name| *name == theirs).unwrap_or("file");
        } else if theirs != *source {
            let fault = Fault::OtherWeights { found: theirs.to_owned(), expected: source };
            faults.push((set.clients.len() + i, fault));
        }
        for member in &partial.description.clients {
            cohort.clients.push(ClientMetadata { id: member.id.clone(), ..ClientMetadata::default() });
            cohort.weights.push(member.weight);
        }
    }
    faults
}
