//! The updates of one run: clients, base, layout, and the state of an earlier run.

use crate::io::digest::{Blake3, Digest};
use crate::io::model_file::{ModelFile, TensorPlace};
use crate::model::class::TensorClass;
use crate::model::client_id::IdSource;
use crate::model::dtype::{Dtype, Working};
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::model::state::StateTensor;
use crate::updates::metadata::{UpdateKind, UpdateMetadata};
use crate::updates::source::{Placement, Source};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A client whose update takes part.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// What named it.
    pub named_by: IdSource,
    /// Its files.
    pub model: Arc<ModelFile>,
    /// Its metadata.
    pub metadata: UpdateMetadata,
    /// The place of each tensor of the layout.
    pub placement: Arc<Placement>,
    /// The places of the change of its control variate: one for each parameter of the layout. `None` if the run
    /// takes no control variates.
    pub control: Option<Arc<Placement>>,
    /// The place of each opaque tensor of the set.
    pub opaque: Arc<Placement>,
}

/// The model that the updates started from.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its files.
    pub model: Arc<ModelFile>,
    /// The place of each tensor of the layout.
    pub placement: Placement,
    digest: OnceLock<Digest>,
    blake3: OnceLock<String>,
}

impl Base {
    /// A base. Computes the digests on first use.
    pub fn new(model: Arc<ModelFile>, placement: Placement) -> Self {
        Self { model, placement, digest: OnceLock::new(), blake3: OnceLock::new() }
    }

    /// The same model with other places: another order of tensors, or a part of them.
    #[must_use]
    pub fn placed(&self, placement: Placement) -> Self {
        Self { placement, ..self.clone() }
    }

    /// The BLAKE3 digest of its files. Reads them on the first call only.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn blake3(&self) -> io::Result<&str> {
        if let Some(digest) = self.blake3.get() {
            return Ok(digest);
        }
        let digest = match self.digest.get() {
            Some(digest) => digest.blake3.clone(),
            None => Blake3::of(&self.model.files)?,
        };
        Ok(self.blake3.get_or_init(|| digest))
    }

    /// All digests of its files. Reads them on the first call only.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn digest(&self) -> io::Result<&Digest> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest);
        }
        let digest = Digest::of(&self.model.files)?;
        Ok(self.digest.get_or_init(|| digest))
    }
}

/// The kind of values to merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueKind {
    /// Values as clients sent them, and the merged model has the same kind. Median, trimmed mean and mean commute with
    /// adding the base, so merged weights equal base plus merged delta, with one rounding less.
    AsSent,
    /// Deltas. The server adds the merged delta to the base.
    Deltas,
    /// Weights from some clients and deltas from others. The server subtracts the base from the weights first.
    Mixed,
}

impl ValueKind {
    /// The kind of values to merge, for updates of these kinds.
    pub fn of(kinds: impl Iterator<Item = UpdateKind>, has_base: bool) -> Self {
        let (mut weights, mut deltas) = (false, false);
        kinds.for_each(|kind| match kind {
            UpdateKind::Weights => weights = true,
            UpdateKind::Delta => deltas = true,
        });
        match (weights, deltas) {
            _ if !has_base => Self::AsSent,
            (_, false) => Self::AsSent,
            (false, true) => Self::Deltas,
            (true, true) => Self::Mixed,
        }
    }
}

/// The state that an earlier run left for this one; empty without `--state`.
#[derive(Clone, Default, Debug)]
pub struct Carried {
    /// The places of each state tensor.
    pub sources: BTreeMap<StateTensor, Source>,
    /// The number of server steps in the state.
    pub steps: u64,
}

/// The clients of a run in order of id, and the layout that they share.
#[derive(Clone, Debug)]
pub struct UpdateSet {
    /// The tensors to merge: those of the reference layout that are not personal.
    pub layout: Layout,
    /// The opaque tensors, which all clients share and no pass reads. The merged model holds a copy.
    pub opaque: Vec<TensorSpec>,
    /// The tensors of the merged model.
    pub merged: MergedLayout,
    /// The clients that take part.
    pub clients: Vec<Client>,
    /// The model that the clients started from; `None` without `--base`.
    pub base: Option<Arc<Base>>,
    /// The state that an earlier run left.
    pub carried: Carried,
    /// The kind of values to merge.
    pub value_kind: ValueKind,
    /// Whether the merged values are weights or a delta.
    pub merged_kind: UpdateKind,
    /// Metadata of the base, or without one of the first client with the reference layout.
    pub metadata: BTreeMap<String, String>,
}

impl UpdateSet {
    /// A set of these clients, without state and metadata.
    pub fn new(layout: Layout, merged: MergedLayout, clients: Vec<Client>, base: Option<Arc<Base>>) -> Self {
        let mut set = Self {
            layout,
            opaque: Vec::new(),
            merged,
            clients,
            base,
            carried: Carried::default(),
            value_kind: ValueKind::AsSent,
            merged_kind: UpdateKind::Weights,
            metadata: BTreeMap::new(),
        };
        set.take_kinds([].into_iter());
        set
    }

    /// Sets the kind of values to merge, from the kinds of the clients and of `others`, which the run merges too.
    pub fn take_kinds(&mut self, others: impl Iterator<Item = UpdateKind>) {
        let clients = self.clients.iter().map(|client| client.metadata.kind);
        let kinds: Vec<UpdateKind> = clients.chain(others).collect();
        self.value_kind = ValueKind::of(kinds.iter().copied(), self.base.is_some());
        self.merged_kind = match (self.value_kind, kinds.first()) {
            (ValueKind::AsSent, Some(kind)) => *kind,
            _ => UpdateKind::Weights,
        };
    }

    /// Whether no client sends a delta.
    pub fn has_weights_alone(&self) -> bool {
        self.clients.iter().all(|client| client.metadata.kind == UpdateKind::Weights)
    }

    /// The set of some of the clients, by index in order, without state.
    #[must_use]
    pub fn among(&self, members: &[usize]) -> Self {
        let clients: Vec<Client> = members.iter().map(|member| self.clients[*member].clone()).collect();
        let merged_kind = match (self.value_kind, clients.first()) {
            (ValueKind::AsSent, Some(client)) => client.metadata.kind,
            _ => UpdateKind::Weights,
        };
        Self {
            layout: self.layout.clone(),
            opaque: self.opaque.clone(),
            merged: self.merged.clone(),
            clients,
            base: self.base.clone(),
            carried: Carried::default(),
            value_kind: self.value_kind,
            merged_kind,
            metadata: self.metadata.clone(),
        }
    }

    /// The working float of each tensor: the narrowest that holds every client's values exactly.
    pub fn working(&self) -> Vec<Working> {
        self.working_with(&[])
    }

    /// The working float of each tensor: the narrowest that holds the values of every client and of other rows exactly.
    pub fn working_with(&self, others: &[&Placement]) -> Vec<Working> {
        let mut placements: Vec<&Arc<Placement>> = self.clients.iter().map(|c| &c.placement).collect();
        placements.sort_by_key(|placement| Arc::as_ptr(placement));
        placements.dedup_by_key(|placement| Arc::as_ptr(placement));
        let join = |tensor: usize| {
            let clients = placements.iter().map(|placement| &***placement);
            let sent =
                clients.chain(others.iter().copied()).map(|placement| placement[tensor].dtype.working());
            sent.reduce(Working::join).unwrap_or(Working::F64)
        };
        match self.value_kind {
            // The difference of a weight and its base has more bits than either.
            ValueKind::Mixed => vec![Working::F64; self.layout.tensors().len()],
            _ => (0..self.layout.tensors().len()).map(join).collect(),
        }
    }

    /// Whether a run knows the merged delta: it has a base, or merges deltas.
    pub fn knows_delta(&self) -> bool {
        self.base.is_some() || self.merged_kind == UpdateKind::Delta
    }

    /// Whether a run measures what rounding to narrow floats takes from the merged delta.
    pub fn rounds_narrow(&self) -> bool {
        self.knows_delta() && self.layout.tensors().iter().any(|spec| spec.dtype.is_narrow_float())
    }

    /// The coordinates of the tensors that clients hold, in order. Statistics have no control variates.
    pub fn held(&self) -> Vec<Range<usize>> {
        let mut held: Vec<Range<usize>> = Vec::new();
        let Some(client) = self.clients.first() else { return held };
        for tensor in (0..client.placement.len()).filter(|tensor| !client.placement[*tensor].is_none()) {
            let coordinates = self.layout.coordinates(tensor);
            match held.last_mut() {
                Some(last) if last.end == coordinates.start => last.end = coordinates.end,
                _ => held.push(coordinates),
            }
        }
        held
    }

    /// Whether a tensor of parameters has a value.
    pub fn has_parameters(&self) -> bool {
        let tensors = self.layout.tensors().iter().zip(self.layout.classes());
        tensors.into_iter().any(|(spec, class)| *class == TensorClass::Parameter && spec.len > 0)
    }

    /// Bytes of the values of one update, in the layout's dtypes.
    pub fn bytes_of_one(&self) -> u64 {
        self.layout.tensors().iter().map(TensorSpec::bytes).sum::<usize>() as u64
    }

    /// Bytes of the values of all clients, in the layout's dtypes.
    pub fn data_bytes(&self) -> u64 {
        self.bytes_of_one() * self.clients.len() as u64
    }

    /// The centre that an earlier run left; `None` without one.
    pub fn centre(&self) -> Option<&Source> {
        self.carried.sources.get(&StateTensor::Centre)
    }

    /// The models that the set reads: clients, base, carried state.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelFile>> {
        let clients = self.clients.iter().map(|client| &client.model);
        let base = self.base.iter().map(|base| &base.model);
        clients.chain(base).chain(self.carried.sources.values().map(|source| &source.model))
    }
}

/// The tensors of a merged model: the merged tensors, and between them those that are copied: the base's personal
/// tensors, and opaque tensors.
#[derive(Clone, Debug)]
pub struct MergedLayout {
    /// All tensors of the model.
    pub layout: Layout,
    /// The index of each merged tensor in `layout`.
    shared: Vec<usize>,
    /// The index in `layout` of each copied tensor, and its place in the files of the reference.
    kept: Vec<(usize, TensorPlace)>,
}

impl MergedLayout {
    /// The layout of a model with only the merged tensors.
    pub fn of(shared: &Layout) -> Self {
        let places = (0..shared.tensors().len()).collect();
        Self { layout: shared.clone(), shared: places, kept: Vec::new() }
    }

    /// The layout of a model with all of these tensors, of which the run merges some and copies the others.
    pub fn with_kept<'t>(
        reference: impl IntoIterator<Item = &'t TensorPlace> + Clone,
        is_merged: impl Fn(&str) -> bool,
    ) -> Self {
        let all = || reference.clone().into_iter();
        let layout = Layout::new(all().map(|place| place.spec.clone()).collect());
        let (shared, kept): (Vec<_>, Vec<_>) =
            all().enumerate().partition(|(_, place)| is_merged(&place.spec.name));
        Self {
            layout,
            shared: shared.into_iter().map(|(tensor, _)| tensor).collect(),
            kept: kept.into_iter().map(|(tensor, place)| (tensor, place.clone())).collect(),
        }
    }

    /// The same model with the dtypes of these merged tensors.
    #[must_use]
    pub fn with_dtypes_of(mut self, merged: &Layout) -> Self {
        let places: BTreeMap<&str, Dtype> =
            merged.tensors().iter().map(|spec| (spec.name.as_str(), spec.dtype)).collect();
        self.layout.convert(|spec| places.get(spec.name.as_str()).copied().unwrap_or(spec.dtype));
        self
    }

    /// Turns pieces of merged tensors into pieces of the model's tensors.
    pub fn pieces(&self, merged: impl Iterator<Item = Piece>) -> impl Iterator<Item = Piece> {
        merged.map(|piece| Piece { tensor: self.shared[piece.tensor], ..piece })
    }

    /// The copied tensors: the index of each in the model, and its place in the files of the reference.
    pub fn kept(&self) -> impl Iterator<Item = (usize, &TensorPlace)> {
        self.kept.iter().map(|(tensor, place)| (*tensor, place))
    }
}
