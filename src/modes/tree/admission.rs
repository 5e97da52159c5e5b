//! Takes the partials of a tree into a run, if they fit its rule, its updates and each other.

use crate::engine::intake::admit::most_common;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::taken::{Member, Taken};
use crate::engine::intake::update::{InputRole, Update};
use crate::engine::intake::weights::Weighting;
use crate::io::model_file::{ModelFile, TensorPlace};
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, TensorSpec};
use crate::model::shown::Shown;
use crate::modes::tree::Partial;
use crate::modes::tree::description::Description;
use crate::modes::tree::purpose::Purpose;
use crate::strategies::ClientMetadata;
use crate::updates::fault::Holder;
use crate::updates::metadata::{PARTIAL_KEY, SHARD_KEY, UpdateKind};
use crate::updates::placement::placement;
use crate::updates::set::{MergedLayout, UpdateSet};
use crate::updates::source::{Placement, Source};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
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
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PartialFault {
    #[error("metadata `fedmill.partial` is not understood: {why}")]
    Bad { why: String },
    #[error(
        "file is the shard file of shard {shard}, expected a partial of a tree; `fedmill decide` and `fedmill \
        merge` take shard files"
    )]
    ShardFile { shard: String },
    #[error(
        "metadata `fedmill.partial` is missing, expected a partial that `fedmill aggregate --partial` wrote"
    )]
    NotOne,
    #[error("its client `{id}` is also in {}, expected each client in one input", .other.display())]
    SharedMember { id: String, other: PathBuf },
    #[error(
        "tensor `{tensor}`: the values apart from the sum are not in order at flat index {index}: {low} stands below {high}"
    )]
    Unordered { tensor: String, index: usize, low: f64, high: f64 },
    #[error(
        "tensor `{tensor}`: the sum is {found} at flat index {index}, expected {least} to {most} for its clients"
    )]
    BadSum { tensor: String, index: usize, found: f64, least: f64, most: f64 },
    #[error(
        "tensor `{tensor}`: the rounding error of the sum is {found} at flat index {index}, expected at most {most}"
    )]
    BadError { tensor: String, index: usize, found: f64, most: f64 },
    #[error(
        "tensor `{tensor}`: the clients' values are {found} at flat index {index}, expected a variance or counter of at least 0"
    )]
    Negative { tensor: String, index: usize, found: f64 },
    #[error(
        "partial holds sums of weights that look like deltas: its mean is far nearer to zero than to the base"
    )]
    LikelyDelta,
    #[error(
        "tensor `{tensor}`: the mean of its clients is {} at flat index {index}, which the server's step takes to {} in {holder}, expected at most {} for {dtype}",
        Shown(*.mean), Shown(*.reached), Shown(.dtype.largest())
    )]
    Overflow { tensor: String, index: usize, mean: f64, reached: f64, holder: Holder, dtype: Dtype },
    #[error("partial has {what} {found}, expected {expected}")]
    Other { what: &'static str, found: String, expected: String },
    #[error("partial weighs clients by {found}, expected {expected} as in this run")]
    OtherWeights { found: String, expected: &'static str },
}

impl PartialFault {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::LikelyDelta => Some(
                "if its clients sent deltas, make it again with --kind delta; if they sent models, pass --kind weights here",
            ),
            Self::NotOne => {
                Some("--partials takes all paths up to the next option: put updates before it, or after `--`")
            }
            _ => None,
        }
    }
}

impl From<PartialFault> for Fault {
    fn from(fault: PartialFault) -> Self {
        // These are found after all inputs are admitted. Each admission finds the other faults again.
        let is_relative = !matches!(
            fault,
            PartialFault::OtherWeights { .. } | PartialFault::LikelyDelta | PartialFault::Overflow { .. }
        );
        let hint = fault.hint();
        Self::Mode { fault: Box::new(fault), is_relative, hint }
    }
}

/// Separates partials from updates, by the role that the operator gave them.
pub fn apart(opened: Vec<Update>) -> (Vec<Update>, Vec<Update>) {
    opened.into_iter().partition(|update| update.role == InputRole::Partial)
}

/// Takes partials into a run, for a purpose. Rejects partials that do not fit. A client counts once: a partial with a
/// client that sends an update, or that is in another partial too, is rejected, and the update stays. Returns the
/// partials in the order of [`Taken::others`].
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
    for mut update in partials {
        match describe(&update) {
            Ok((model, description)) if update.faults.is_empty() => {
                described.push(PartialFile { update, model, description });
            }
            found => {
                update.faults.extend(found.err().map(Fault::from));
                taken.rejected.push(update);
            }
        }
    }
    described.sort_by(|a, b| a.place().cmp(&b.place()));
    let Some(expected) = AgreedTerms::of(&taken.set, &described, purpose, &policy.weighting) else {
        return Ok(Vec::new());
    };
    let is_round_stated = states_round(policy.round, &taken.set, &described);
    let mut fitting: Vec<(PartialFile, Vec<Source>)> = Vec::new();
    for mut partial in described {
        match fit(&taken.set, &expected, &partial, purpose, policy, is_round_stated)? {
            Ok(sources) => fitting.push((partial, sources)),
            Err(faults) => {
                partial.update.faults.extend(faults);
                taken.rejected.push(partial.update);
            }
        }
    }
    let fitting = reject_shared_members(taken, fitting);
    Ok(admit(taken, expected.layout, fitting))
}

/// Whether at least half of the updates and partials state a round, be it another: a few must not make the others look
/// wrong. Warns if the round leaves out no partial for that reason.
fn states_round(round: Option<u64>, set: &UpdateSet, partials: &[PartialFile]) -> bool {
    let Some(round) = round else { return false };
    let of_updates = set.clients.iter().map(|client| client.metadata.round);
    let of_partials = partials.iter().map(|partial| partial.description.round);
    let inputs: Vec<Option<u64>> = of_updates.chain(of_partials).collect();
    let stating = inputs.iter().filter(|stated| stated.is_some()).count();
    let is_usual = 2 * stating >= inputs.len();
    let silent = partials.iter().filter(|partial| partial.description.round.is_none()).count();
    if silent > 0 && !is_usual {
        tracing::warn!(
            "{silent} of {} partials state no round: --round {round} leaves out none of them",
            partials.len()
        );
    }
    is_usual
}

/// A partial with its parsed description.
struct PartialFile {
    update: Update,
    model: Arc<ModelFile>,
    description: Description,
}

impl PartialFile {
    /// Partials stand in the order of this: the lowest client id, then the path.
    fn place(&self) -> (&str, &Path) {
        (&self.description.clients[0].id, &self.update.path)
    }
}

pub(super) fn describe(partial: &Update) -> Result<(Arc<ModelFile>, Description), PartialFault> {
    let bad = |why| PartialFault::Bad { why };
    let model = partial.model.as_ref().ok_or_else(|| bad("the file cannot be read".to_owned()))?;
    if let Some(shard) = model.metadata.get(SHARD_KEY) {
        return Err(PartialFault::ShardFile { shard: shard.clone() });
    }
    let text = model.metadata.get(PARTIAL_KEY).ok_or(PartialFault::NotOne)?;
    Ok((Arc::clone(model), Description::parse(text).map_err(bad)?))
}

/// The common terms of the partials of a run: those of most partials, so that one odd partial cannot make the others
/// look wrong.
struct AgreedTerms {
    terms: Terms,
    /// The path of the first partial with these terms.
    path: PathBuf,
    /// The tensors of the model: those of the run, or without a base and updates those of most partials.
    layout: Layout,
}

/// Terms in which all partials of a run must agree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Terms {
    is_delta: bool,
    weights: String,
    base: Option<String>,
    round: Option<u64>,
    tensors: Vec<(String, Vec<usize>)>,
}

impl Terms {
    fn of(partial: &PartialFile) -> Self {
        let Description { kind, weights, base, round, .. } = &partial.description;
        let layout = layout_of(&partial.model, &partial.description);
        Self {
            is_delta: *kind == UpdateKind::Delta,
            weights: weights.clone(),
            base: base.clone(),
            round: *round,
            tensors: layout.tensors().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect(),
        }
    }
}

impl AgreedTerms {
    /// The terms of most partials; `None` if there are none. Partials of another rule or of another source of weights
    /// than the operator chose have no vote, unless all are such.
    fn of(
        set: &UpdateSet,
        partials: &[PartialFile],
        purpose: Purpose,
        weighting: &Weighting,
    ) -> Option<Self> {
        let may_vote = |partial: &&PartialFile| {
            let Description { rule, weights, .. } = &partial.description;
            *rule == purpose.rule() && weighting.chosen().is_none_or(|source| weights == source)
        };
        let voters: Vec<&PartialFile> = partials.iter().filter(may_vote).collect();
        let voters = if voters.is_empty() { partials.iter().collect() } else { voters };
        let terms: Vec<Terms> = voters.iter().map(|partial| Terms::of(partial)).collect();
        let most = most_common(terms.iter())?.clone();
        let first = voters[terms.iter().position(|terms| *terms == most)?];
        let is_known = !set.layout.tensors().is_empty() || set.base.is_some() || !set.clients.is_empty();
        let layout = match is_known {
            true => set.layout.clone(),
            false => layout_of(&first.model, &first.description),
        };
        Some(Self { terms: most, path: first.update.path.clone(), layout })
    }

    /// The fault of a partial with other terms; `None` if it agrees.
    fn fault(&self, found: &Description) -> Option<Fault> {
        let of = |what: &str| format!("{what}, as in {}", self.path.display());
        let terms = &self.terms;
        let kind = if terms.is_delta { UpdateKind::Delta } else { UpdateKind::Weights };
        if kind != found.kind {
            return Some(other("kind", found.kind.to_string(), of(&kind.to_string())));
        }
        if terms.weights != found.weights {
            return Some(other("source of weights", found.weights.clone(), of(&terms.weights)));
        }
        if let Some((one, two)) = terms.base.as_ref().zip(found.base.as_ref()).filter(|(one, two)| one != two)
        {
            return Some(other("base", two.clone(), of(one)));
        }
        let (one, two) = terms.round.zip(found.round).filter(|(one, two)| one != two)?;
        Some(other("round", two.to_string(), of(&one.to_string())))
    }
}

/// The sources of one partial's tensors, or its faults.
fn fit(
    set: &UpdateSet,
    expected: &AgreedTerms,
    partial: &PartialFile,
    purpose: Purpose,
    policy: &Policy,
    is_round_stated: bool,
) -> io::Result<Result<Vec<Source>, Vec<Fault>>> {
    let PartialFile { model, description, .. } = partial;
    let mut faults = Vec::new();
    if description.rule != purpose.rule() {
        let expected = format!("`{}`, the rule of this run", purpose.rule());
        faults.push(other("rule", format!("`{}`", description.rule), expected));
    } else if let Some(why) = description.edge_fault(purpose) {
        faults.push(PartialFault::Bad { why }.into());
    }
    match (description.round, policy.round) {
        (Some(found), Some(expected)) if found != expected => {
            faults.push(Fault::OtherRound { found, expected });
        }
        (None, Some(expected)) if is_round_stated => faults.push(Fault::NoRound { expected }),
        _ => {}
    }
    if policy.claims.kind == Some(UpdateKind::Delta) && description.kind == UpdateKind::Weights {
        faults.push(other("kind", description.kind.to_string(), "delta because of --kind delta".to_owned()));
    }
    if let Some(why) = policy.claims.max_examples.and_then(|most| description.above(most)) {
        faults.push(PartialFault::Bad { why }.into());
    }
    faults.extend(other_base(set, description)?);
    faults.extend(other_kind(set, description));
    faults.extend(expected.fault(description));
    Ok(match sources(model, description, &expected.layout) {
        Ok(sources) if faults.is_empty() => Ok(sources),
        more => {
            faults.extend(more.err().unwrap_or_default());
            Err(faults)
        }
    })
}

/// Rejects every partial with a client that sends an update, or that is in another partial. The order of the files
/// decides nothing.
fn reject_shared_members(
    taken: &mut Taken,
    fitting: Vec<(PartialFile, Vec<Source>)>,
) -> Vec<(PartialFile, Vec<Source>)> {
    let mut inputs: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for client in &taken.set.clients {
        inputs.entry(client.id.clone()).or_default().push(client.model.path.clone());
    }
    for (partial, _) in &fitting {
        for member in &partial.description.clients {
            inputs.entry(member.id.clone()).or_default().push(partial.update.path.clone());
        }
    }
    let mut kept = Vec::new();
    for (mut partial, sources) in fitting {
        let path = &partial.update.path;
        let elsewhere = partial.description.clients.iter().find_map(|member| {
            let other = inputs[&member.id].iter().find(|other| *other != path)?;
            Some(PartialFault::SharedMember { id: member.id.clone(), other: other.clone() })
        });
        match elsewhere {
            None => kept.push((partial, sources)),
            Some(fault) => {
                partial.update.faults.push(fault.into());
                taken.rejected.push(partial.update);
            }
        }
    }
    kept
}

/// Adds the partials to the run, and their terms to its set.
fn admit(taken: &mut Taken, layout: Layout, partials: Vec<(PartialFile, Vec<Source>)>) -> Vec<Partial> {
    let set = &mut taken.set;
    if partials.is_empty() {
        return Vec::new();
    }
    if set.layout.tensors().is_empty() && set.base.is_none() && set.clients.is_empty() {
        set.merged = MergedLayout::of(&layout);
    }
    set.layout = layout;
    let lowest = set.clients.first().map(|client| client.id.as_str());
    let first = &partials[0].0;
    if set.base.is_none() && lowest.is_none_or(|lowest| first.description.clients[0].id.as_str() < lowest) {
        set.metadata = first.model.metadata.clone();
    }
    set.take_kinds(partials.iter().map(|(partial, _)| partial.description.kind));
    let mut admitted = Vec::new();
    for (PartialFile { update, description, .. }, mut sources) in partials {
        let edges = sources.split_off(2);
        if let Ok([sums, errors]) = <[Source; 2]>::try_from(sources) {
            admitted.push(Partial { path: update.path.clone(), description, sums, errors, edges });
            taken.others.push(update);
        }
    }
    admitted
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

/// The tensors of the model that a partial sums.
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
