//! Opens the updates of a round and says who takes part.
//!
//! Every update is checked against the reference layout: the base's, or without a base the layout that
//! most updates share, so that one odd client cannot make the others look wrong.

use crate::engine::aggregate::state::State;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::personal::{MergedLayout, Personal};
use crate::engine::intake::reference::{Reference, placement};
use crate::io::digest::{Blake3, Digest};
use crate::io::discover::stem;
use crate::io::model_file::{ModelFile, OpenFault, TablePool, TensorPlace, list};
use crate::io::source::OpenFiles;
use crate::model::dtype::{Dtype, Kind, Working};
use crate::model::layout::{Layout, TensorSpec};
use crate::model::state::StateTensor;
use crate::model::state::stored_dtype;
use crate::modes::tree::Partial;
use crate::strategies::ClientMetadata;
use crate::updates;
use crate::updates::encoded::sketched;
use crate::updates::metadata::{UpdateKind, UpdateMetadata};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// An update that takes part.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name, from metadata or else the file's stem.
    pub id: String,
    /// Its files.
    pub model: Arc<ModelFile>,
    /// What it says about itself.
    pub metadata: UpdateMetadata,
    /// Where the values of each tensor of the layout are.
    pub placement: Arc<Placement>,
    /// Where the change of its control variate is, if the round takes them: a tensor for each float tensor of the
    /// layout. Integers have none.
    pub control: Option<Arc<Placement>>,
}

/// Where the values of each tensor of a layout are in one model's files, in the layout's order.
pub type Placement = Vec<Place>;

/// Where the values of one tensor are.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// First byte in it.
    pub offset: u64,
    /// Dtype there.
    pub dtype: Dtype,
}

impl Place {
    /// The place of a tensor that is not there and nobody reads.
    pub const NONE: Self = Self { file: usize::MAX, offset: 0, dtype: Dtype::F64 };
}

/// An update whose headers were read, and what is wrong with it.
#[derive(Debug)]
pub struct Update {
    /// The file, or the index of its shards.
    pub path: PathBuf,
    /// Whose it says it is.
    pub id: String,
    /// What it says about itself.
    pub metadata: UpdateMetadata,
    /// Its files, if they could be opened.
    pub model: Option<Arc<ModelFile>>,
    /// Everything found wrong with it.
    pub faults: Vec<Fault>,
}

impl Client {
    /// What it says, as strategies go by it.
    pub fn reported(&self) -> ClientMetadata {
        let about = &self.metadata;
        ClientMetadata {
            id: self.id.clone(),
            local_steps: about.local_steps,
            momentum: about.momentum,
            proximal_mu: about.proximal_mu,
            local_lr: about.local_lr,
            loss: about.loss,
            round: about.round,
        }
    }

    pub(crate) fn into_update(self, faults: Vec<Fault>) -> Update {
        let Self { id, model, metadata, .. } = self;
        Update { path: model.path.clone(), id, metadata, model: Some(model), faults }
    }
}

/// The model that the updates started from.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its files.
    pub model: Arc<ModelFile>,
    /// Where its tensors are, in the order of the layout.
    pub placement: Placement,
    digest: OnceLock<Digest>,
    blake3: OnceLock<String>,
}

impl Base {
    fn new(model: Arc<ModelFile>, placement: Placement) -> Self {
        Self { model, placement, digest: OnceLock::new(), blake3: OnceLock::new() }
    }

    /// The same model with its tensors in another order, or some of them.
    fn placed(&self, placement: Placement) -> Self {
        Self { placement, ..self.clone() }
    }

    /// The BLAKE3 digest of its files, read once.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
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

    /// The digest of its files, read once.
    pub(crate) fn digest(&self) -> io::Result<&Digest> {
        if let Some(digest) = self.digest.get() {
            return Ok(digest);
        }
        let digest = Digest::of(&self.model.files)?;
        Ok(self.digest.get_or_init(|| digest))
    }
}

/// What the values that are merged are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// As they stand; so is the merged model. Median, trimmed mean and mean move with their
    /// inputs, so for weights this equals base plus merged delta, with one rounding less.
    AsSent,
    /// Deltas: the merged delta is added to the base.
    Deltas,
    /// Some updates are weights and some deltas: the base is subtracted from the weights first.
    Mixed,
}

/// The clients of a round in order of their id, and the layout they share.
#[derive(Debug)]
pub struct UpdateSet {
    /// The tensors that are merged: those of the reference that are not personal.
    pub layout: Layout,
    /// The tensors of the merged model.
    pub merged: MergedLayout,
    /// Who takes part.
    pub clients: Vec<Client>,
    /// Sums of other clients' updates, in order of the first id of each.
    pub partials: Vec<Partial>,
    /// The model they started from.
    pub base: Option<Arc<Base>>,
    /// What an earlier round left.
    pub state: Option<State>,
    /// What is merged.
    pub frame: Frame,
    /// Metadata of the reference: the base, or the first client of the layout most share.
    pub metadata: BTreeMap<String, String>,
}

/// What names of the tensors start with in which clients of SCAFFOLD send the change of their control variate.
pub const SCAFFOLD_CONTROL: &str = "scaffold.delta_c.";

/// What an update must say and hold to take part.
#[derive(Clone, Default, Debug)]
pub struct Expectations {
    /// The round that is merged. An update that says which round it was made in has to name this one.
    pub round: Option<u64>,
    /// Whether updates of other rounds are welcome, as deltas.
    pub takes_stale: bool,
    /// What names of control tensors start with, if updates must hold one for each float tensor of the layout.
    pub control_prefix: Option<&'static str>,
    /// Layers that stay with the clients: updates may hold them or not, in any shape.
    pub personal: Personal,
    /// Whether updates are welcome under any rule of which the client chose few values to send.
    pub allows_sparse: bool,
}

impl Expectations {
    /// What is wrong with the round that an update says it was made in.
    fn round_fault(&self, update: &UpdateMetadata) -> Option<Fault> {
        let (found, expected) = (update.round?, self.round?);
        match (found == expected, self.takes_stale, update.kind) {
            (true, ..) | (false, true, UpdateKind::Delta) => None,
            (false, true, UpdateKind::Weights) => Some(Fault::StaleWeights { found, expected }),
            (false, false, _) => Some(Fault::OtherRound { found, expected }),
        }
    }

    /// Whether an update started from the model that is merged onto, so far as rounds tell.
    fn starts_here(&self, update: &UpdateMetadata) -> bool {
        let is_other = update.round.zip(self.round).is_some_and(|(found, expected)| found != expected);
        !(self.takes_stale && is_other)
    }
}

/// Why the base cannot be used.
#[derive(thiserror::Error, Debug)]
#[error("{}: the base cannot be used: {}", .path.display(), list(.faults))]
pub struct BadBase {
    /// Its path.
    pub path: PathBuf,
    /// Everything found wrong with it.
    pub faults: Vec<OpenFault>,
}

impl BadBase {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        self.faults.iter().find_map(OpenFault::hint)
    }
}

/// Opens a base.
///
/// # Errors
///
/// When it is no model that can be merged onto.
pub fn open_base(path: &Path, files: &OpenFiles, tables: &TablePool) -> Result<Base, BadBase> {
    let model = updates::open_plain(path, files, tables)
        .map_err(|faults| BadBase { path: path.to_owned(), faults })?;
    let placement = model.table.iter().map(Place::from).collect();
    Ok(Base::new(Arc::new(model), placement))
}

/// Reads the headers of all updates, in parallel. Encoded ones may leave the names of their tensors to the base.
pub fn open(paths: &[PathBuf], files: &OpenFiles, tables: &TablePool, base: Option<&Base>) -> Vec<Update> {
    paths.par_iter().map(|path| Update::read(path, files, tables, base)).collect()
}

impl Update {
    fn read(path: &Path, files: &OpenFiles, tables: &TablePool, base: Option<&Base>) -> Self {
        let base = base.map(|base| &*base.model.table);
        let (model, mut faults) = match updates::open_to_merge(path, files, tables, base) {
            Ok(model) => (Some(Arc::new(model)), Vec::new()),
            Err(faults) => (None, faults.into_iter().map(Fault::from).collect()),
        };
        let (metadata, bad) = UpdateMetadata::parse(model.as_ref().map_or(&BTreeMap::new(), |m| &m.metadata));
        faults.extend(bad.into_iter().map(Fault::from));
        let id = metadata.client_id.clone().unwrap_or_else(|| stem(path));
        Self { path: path.to_owned(), id, metadata, model, faults }
    }
}

/// Sorts updates (in order of their paths) into those that take part and those that do not.
///
/// # Errors
///
/// When the base cannot be read.
pub fn admit(
    mut opened: Vec<Update>,
    base: Option<Arc<Base>>,
    expected: &Expectations,
) -> io::Result<(UpdateSet, Vec<Update>)> {
    mark_other_rounds(&mut opened, expected);
    if let Some(base) = &base {
        mark_other_bases(&mut opened, base, expected)?;
    }
    opened.sort_by(|a, b| a.id.cmp(&b.id).then_with(|| a.path.cmp(&b.path)));
    if base.is_none() {
        mark_other_kinds(&mut opened);
    }
    mark_other_sketches(&mut opened, base.is_some());
    let reference = match &base {
        Some(base) => Reference::of_base(&base.model, &opened, expected),
        None => Reference::most_shared(&opened, expected),
    };
    let (mut clients, mut rejected) = reference.place(opened);
    reject_duplicates(&mut clients, &mut rejected);
    let frame = frame_of(&clients, &[], base.is_some());
    let Reference { layout, merged, metadata, base_placement, .. } = reference;
    let base = base.map(|base| Arc::new(base.placed(base_placement)));
    let set = UpdateSet { layout, merged, clients, partials: Vec::new(), base, state: None, frame, metadata };
    Ok((set, rejected))
}

/// Of sound updates that claim one client, the first by path keeps it. Clients are in order of id and path.
fn reject_duplicates(clients: &mut Vec<Client>, rejected: &mut Vec<Update>) {
    for client in std::mem::take(clients) {
        match clients.last() {
            Some(first) if first.id == client.id => {
                let fault = Fault::DuplicateClient { id: client.id.clone(), other: first.model.path.clone() };
                rejected.push(client.into_update(vec![fault]));
            }
            _ => clients.push(client),
        }
    }
}

fn mark_other_rounds(opened: &mut [Update], expected: &Expectations) {
    for update in opened {
        update.faults.extend(expected.round_fault(&update.metadata));
    }
}

fn mark_other_bases(opened: &mut [Update], base: &Base, expected: &Expectations) -> io::Result<()> {
    let starts_here = |update: &&mut Update| expected.starts_here(&update.metadata);
    for update in opened.iter_mut().filter(starts_here) {
        let Some(found) = update.metadata.base.clone() else { continue };
        let digest = base.digest()?;
        if !digest.is_named(&found) {
            let expected = format!("blake3:{} or sha256:{}", digest.blake3, digest.sha256);
            update.faults.push(Fault::OtherBase { found, expected });
        }
    }
    Ok(())
}

/// Without a base, weights and deltas cannot meet; the kind that most updates have stays.
fn mark_other_kinds(opened: &mut [Update]) {
    let sound = || opened.iter().filter(|update| update.faults.is_empty());
    let deltas = sound().filter(|update| update.metadata.kind == UpdateKind::Delta).count();
    let expected = if 2 * deltas > sound().count() { UpdateKind::Delta } else { UpdateKind::Weights };
    for update in opened.iter_mut().filter(|update| update.model.is_some()) {
        let found = update.metadata.kind;
        if found != expected {
            update.faults.push(Fault::OtherKind { found, expected });
        }
    }
}

/// Sketches are added to their like alone: what most updates are stays. A base has no sketch that they could be added to.
fn mark_other_sketches(opened: &mut [Update], has_base: bool) {
    let by = |update: &Update| update.model.as_ref().map(|model| sketched(model).map(str::to_owned));
    let found: Vec<Option<Option<String>>> = opened.iter().map(by).collect();
    if found.iter().flatten().all(Option::is_none) {
        return;
    }
    let sound = opened.iter().zip(&found).filter(|(update, _)| update.faults.is_empty());
    let most = most_common(sound.filter_map(|(_, by)| by.as_ref())).cloned().flatten();
    for (update, found) in opened.iter_mut().zip(found).filter_map(|(update, found)| Some((update, found?))) {
        let faults = &mut update.faults;
        match (found, &most) {
            (Some(_), _) if has_base => faults.push(Fault::SketchOntoBase),
            (Some(found), Some(most)) if found != *most => {
                let (found, expected) =
                    ("another sketch", "one of the seed, settings and tensors of most others");
                faults.push(Fault::OtherSketch { found, expected });
            }
            (Some(_), None) => {
                faults.push(Fault::OtherSketch { found: "a sketch", expected: "none, as most others" });
            }
            (None, Some(_)) if !has_base => {
                faults.push(Fault::OtherSketch { found: "no sketch", expected: "one, as most others" });
            }
            _ => {}
        }
    }
}

/// What comes most often; of two that come as often, what comes first.
pub(crate) fn most_common<T: Ord>(found: impl Iterator<Item = T>) -> Option<T> {
    let mut votes: BTreeMap<T, (usize, Reverse<usize>)> = BTreeMap::new();
    for (i, found) in found.enumerate() {
        votes.entry(found).or_insert((0, Reverse(i))).0 += 1;
    }
    votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(found, _)| found)
}

impl From<&TensorPlace> for Place {
    fn from(place: &TensorPlace) -> Self {
        Self { file: place.file, offset: place.offset, dtype: place.spec.dtype }
    }
}

pub(crate) fn frame_of(clients: &[Client], partials: &[Partial], has_base: bool) -> Frame {
    let updates = clients.iter().map(|client| client.metadata.kind);
    let kinds = updates.chain(partials.iter().map(|partial| partial.description.kind));
    let deltas = kinds.filter(|kind| *kind == UpdateKind::Delta).count();
    match deltas {
        _ if !has_base => Frame::AsSent,
        0 => Frame::AsSent,
        _ if deltas == clients.len() + partials.len() => Frame::Deltas,
        _ => Frame::Mixed,
    }
}

impl UpdateSet {
    /// Undoes an admission: all updates in order of path, with the faults that were found in clients since, by
    /// their place in the set, and in partials, by their place behind the clients, and without those that admission finds anew.
    pub fn dissolve(self, rejected: Vec<Update>, found: Vec<(usize, Fault)>) -> Vec<Update> {
        let mut updates: Vec<Update> =
            self.clients.into_iter().map(|client| client.into_update(Vec::new())).collect();
        updates.extend(self.partials.into_iter().map(Partial::into_update));
        for (client, fault) in found {
            updates[client].faults.push(fault);
        }
        updates.extend(rejected);
        for update in &mut updates {
            update.faults.retain(|fault| !fault.is_relative());
        }
        updates.sort_by(|a, b| a.path.cmp(&b.path));
        updates
    }

    /// A set of one update that does not belong into this one: in this set's layout if it fits that, else in
    /// its own and without a base. None if it could not be opened.
    pub fn of_one(&self, update: &mut Update) -> Option<Self> {
        let model = update.model.take()?;
        let fitting = placement(&*model.table, self.layout.tensors(), "reference").ok();
        let (layout, base, placement) = match fitting {
            Some(placement) => (self.layout.clone(), self.base.clone(), placement),
            None => {
                let own = model.table.iter().map(|place| place.spec.clone()).collect();
                (Layout::new(own), None, model.table.iter().map(Place::from).collect())
            }
        };
        let merged = MergedLayout::of(&layout);
        let (id, metadata) = (update.id.clone(), update.metadata.clone());
        let clients = vec![Client { id, model, metadata, placement: Arc::new(placement), control: None }];
        let frame = frame_of(&clients, &[], base.is_some());
        let metadata = BTreeMap::new();
        Some(Self { layout, merged, clients, partials: Vec::new(), base, state: None, frame, metadata })
    }

    /// The set of the changes of the clients' control variates, as deltas of the server's, which is kept in floats of
    /// its own. In the same coordinates: integers have none, and are not to be merged.
    pub fn controls(&self) -> Self {
        let control = |client: &Client| Client {
            id: client.id.clone(),
            model: Arc::clone(&client.model),
            metadata: UpdateMetadata { kind: UpdateKind::Delta, ..client.metadata.clone() },
            placement: Arc::clone(client.control.as_ref().unwrap_or(&client.placement)),
            control: None,
        };
        let named = |spec: &TensorSpec| TensorSpec {
            name: format!("{SCAFFOLD_CONTROL}{}", spec.name),
            dtype: if spec.dtype.kind() == Kind::Float { stored_dtype(spec.dtype) } else { spec.dtype },
            ..spec.clone()
        };
        let base = self.state.as_ref().and_then(|state| {
            let placement = state.placement(StateTensor::Control)?.clone();
            Some(Arc::new(Base::new(Arc::clone(&state.model), placement)))
        });
        let layout = Layout::new(self.layout.tensors().iter().map(named).collect());
        Self {
            merged: MergedLayout::of(&layout),
            layout,
            clients: self.clients.iter().map(control).collect(),
            partials: Vec::new(),
            frame: if base.is_some() { Frame::Deltas } else { Frame::AsSent },
            base,
            state: None,
            metadata: BTreeMap::new(),
        }
    }

    /// The set of some of the clients, in order of their numbers. What an earlier round left is not in it.
    #[must_use]
    pub fn among(&self, members: &[usize]) -> Self {
        Self {
            layout: self.layout.clone(),
            merged: self.merged.clone(),
            clients: members.iter().map(|member| self.clients[*member].clone()).collect(),
            partials: Vec::new(),
            base: self.base.clone(),
            state: None,
            frame: self.frame,
            metadata: self.metadata.clone(),
        }
    }

    /// The working float of each tensor: the narrowest that holds every client's values exactly.
    pub fn working(&self) -> Vec<Working> {
        let mut placements: Vec<&Arc<Placement>> = self.clients.iter().map(|c| &c.placement).collect();
        placements.sort_by_key(|placement| Arc::as_ptr(placement));
        placements.dedup_by_key(|placement| Arc::as_ptr(placement));
        let join = |tensor: usize| {
            let edges = self.partials.iter().flat_map(|partial| &partial.edges);
            let sent = placements.iter().map(|placement| &***placement).chain(edges);
            let sent = sent.map(|placement| placement[tensor].dtype.working());
            sent.reduce(Working::join).unwrap_or(Working::F64)
        };
        match self.frame {
            // A weight minus its base has more bits than either.
            Frame::Mixed => vec![Working::F64; self.layout.tensors().len()],
            _ => (0..self.layout.tensors().len()).map(join).collect(),
        }
    }

    /// Bytes of values of all clients, in the layout's dtypes.
    pub fn data_bytes(&self) -> u64 {
        let model: usize = self.layout.tensors().iter().map(TensorSpec::bytes).sum();
        let inputs = self.clients.len() + self.partials.len();
        (model * inputs) as u64
    }

    /// Where the centre is that an earlier round left, if the rule starts there.
    pub fn centre(&self) -> Option<(&ModelFile, &Placement)> {
        self.slot(StateTensor::Centre)
    }

    /// Where what an earlier round left in a slot is.
    pub fn slot(&self, slot: StateTensor) -> Option<(&ModelFile, &Placement)> {
        let state = self.state.as_ref()?;
        Some((&state.model, state.placement(slot)?))
    }

    /// What the merged values are.
    pub fn merged_kind(&self) -> UpdateKind {
        let sent = self.clients.iter().map(|client| client.metadata.kind);
        let mut sent = sent.chain(self.partials.iter().map(|partial| partial.description.kind));
        match (self.frame, sent.next()) {
            (Frame::AsSent, Some(kind)) => kind,
            _ => UpdateKind::Weights,
        }
    }
}
