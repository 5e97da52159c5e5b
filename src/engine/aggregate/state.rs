//! The state for the next round: a rule's centre and a strategy's moments, in a safetensors file.
//!
//! Each slot holds the model's tensors under its prefix ([`StateTensor::prefix`]). Floats are F32 (F64 for F64), which
//! is more precise than a model in half precision. Of statistics the state keeps only the centre; that of integers is
//! F64. The metadata has the digests of the state's model and of the base of that model.
//!
//! A run publishes the state just before its model, and keeps the state before as `FILE.previous`. So every published
//! model has its state. A repeated round finds the state of its base in the file or in `FILE.previous`, even after a
//! crash. The first round has no state.

use crate::engine::decide::method::Method;
use crate::io::digest::seal;
use crate::io::model_file::{ModelFile, OpenFault, TablePool, TensorPlace};
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::publish::{self, StagedNames};
use crate::io::source::{OpenFiles, identity_of};
use crate::model::class::TensorClass;
use crate::model::faults::Faults;
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::model::state::{KeptTensor, StateTensor, is_kept, stored_dtype};
use crate::updates;
use crate::updates::fault::LayoutFault;
use crate::updates::placement::placement;
use crate::updates::set::Carried;
use crate::updates::source::{Place, Placement, Source};
use rayon::ThreadPool;
use std::collections::{BTreeMap, HashSet};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Metadata keys of a state file.
pub(super) mod key {
    pub(crate) const OWNER: &str = "fedmill.state";
    pub(crate) const STRATEGY: &str = "fedmill.strategy";
    pub(crate) const STEPS: &str = "fedmill.steps";
    pub(crate) const MODEL: &str = "fedmill.model";
    pub(crate) const BASE: &str = "fedmill.base";
}

/// The placeholder for a digest that is not known yet.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a state file of a run holds.
#[derive(Clone, PartialEq, Debug)]
pub struct StateSpec {
    /// The name of the rule or the strategy that keeps the state, or of both, joined by `+`.
    pub owner: String,
    /// The slots, in file order.
    pub kept: Vec<KeptTensor>,
    strategy: String,
}

/// An opened state file.
struct StateFile {
    carried: Carried,
    metadata: BTreeMap<String, String>,
}

/// Why a state file cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum StateError {
    #[error("{}: the state cannot be used: {}", .path.display(), .faults)]
    Unreadable { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: is not the state of this run: metadata `{key}` is {found}, expected {expected}", .path.display(), key = key::OWNER)]
    OtherOwner { path: PathBuf, found: String, expected: String },
    #[error("{}: metadata `{key}` is {found}, expected {expected}", .path.display())]
    Metadata { path: PathBuf, key: &'static str, found: String, expected: &'static str },
    #[error("{}: is the state of another model: {}", .path.display(), .faults)]
    OtherLayout { path: PathBuf, faults: Faults<LayoutFault> },
    #[error("{}: was made by {steps} steps of {made_by}, and {}", .base.display(), lost(.path.as_deref()))]
    Lost { base: PathBuf, steps: String, made_by: String, path: Option<PathBuf>, previous: Option<PathBuf> },
    #[error("{}: belongs to the model blake3:{found}, expected that of the base, blake3:{expected}", .path.display())]
    OtherModel { path: PathBuf, found: String, expected: String },
}

/// What is missing of a state.
fn lost(path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("its state {} does not exist", path.display()),
        None => "no --state FILE is given".to_owned(),
    }
}

impl StateError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherModel { path, found, .. } => Some(format!(
                "pass the model of digest {found} as --base (`b3sum` prints it) and run the round on it; or, to start \
                 without the kept state, move {} away",
                path.display()
            )),
            Self::OtherOwner { path, .. } => Some(format!(
                "each strategy needs its own state file; to start a new one, move {} away",
                path.display()
            )),
            Self::Lost { path: Some(path), previous: Some(previous), base, .. } => Some(format!(
                "copy {} to {} and run the round that made {} again, on its own base and updates, which gives the same bytes; \
                 or pass --state-init, to start a new state from this base",
                previous.display(),
                path.display(),
                base.display()
            )),
            Self::Lost { .. } => Some(
                "pass the state file that the last step left as --state; or pass --state-init, to start a new state from \
                 this base"
                    .to_owned(),
            ),
            Self::Unreadable { path, faults } => {
                let other = OpenFault::hint_beside_damage(faults);
                Some(other.map_or_else(|| way_back(path), str::to_owned))
            }
            _ => None,
        }
    }
}

/// How to go on after damage to the state at `path`.
fn way_back(path: &Path) -> String {
    if path.extension().is_some_and(|ending| ending == "previous") {
        let state = path.with_extension("");
        return format!(
            "only the state before {0} can continue from this base; to start without it, move {0} and {1} away and pass \
             --state-init",
            state.display(),
            path.display()
        );
    }
    format!(
        "copy {path}.previous over it and run the round that wrote {path} again, on its own base and updates, which gives \
         the same bytes; or, to start without the kept state, move {path} away and pass --state-init",
        path = path.display()
    )
}

impl StateSpec {
    /// The state of a method; `None` if its rule and strategy keep nothing.
    pub fn of(method: &Method) -> Option<Self> {
        let centre = KeptTensor { slot: StateTensor::Centre, initial: 0.0 };
        let (rule, strategy) = (&method.rule, &method.strategy);
        let by_rule = rule.keeps_centre().then_some(centre);
        let by_strategy = strategy.keeps();
        let mut owners = Vec::new();
        owners.extend(by_rule.map(|_| "centered-clipping"));
        owners.extend((!by_strategy.is_empty()).then(|| strategy.name()));
        let kept: Vec<KeptTensor> = by_rule.into_iter().chain(by_strategy).collect();
        let (owner, strategy) = (owners.join("+"), strategy.to_string());
        (!kept.is_empty()).then_some(Self { owner, kept, strategy })
    }

    /// The index of a slot in the state; `None` if the state does not have it.
    pub fn place(&self, slot: StateTensor) -> Option<usize> {
        self.kept.iter().position(|kept| kept.slot == slot)
    }

    /// The tensors of a state file, slot by slot.
    fn layout(&self, model: &Layout) -> Layout {
        let of_slot = |kept: &KeptTensor| {
            let (prefix, slot) = (kept.slot.prefix(), kept.slot);
            let specs = model.tensors().iter().zip(model.classes());
            let specs = specs.filter(move |(_, class)| is_kept(slot, **class));
            specs.map(move |(spec, _)| TensorSpec {
                name: format!("{prefix}{}", spec.name),
                dtype: stored_dtype(spec.dtype),
                ..spec.clone()
            })
        };
        Layout::new(self.kept.iter().flat_map(of_slot).collect())
    }

    /// Opens the state that the round starts from: that of the base, in the file or in `FILE.previous`. `None` in the
    /// first round. `base` is the digest of the base. Without a base, opens the state in the file.
    ///
    /// # Errors
    ///
    /// When the file holds something else, or the state of another model.
    pub fn open(
        &self,
        path: &Path,
        layout: &Layout,
        base: Option<&str>,
    ) -> Result<Option<Carried>, StateError> {
        let Some(current) = self.read(path, layout)? else { return Ok(None) };
        let Some(base) = base else { return Ok(Some(current.carried)) };
        if current.names(key::MODEL, base) {
            return Ok(Some(current.carried));
        }
        if current.carried.steps == 1 && current.names(key::BASE, base) {
            tracing::info!("{}: the run repeats the first round, without a state", path.display());
            return Ok(None);
        }
        let beside = publish::previous(path);
        check_digest(&beside)?;
        if let Ok(Some(previous)) = self.read(&beside, layout)
            && previous.names(key::MODEL, base)
        {
            tracing::info!("the run repeats the round, from {}", beside.display());
            return Ok(Some(previous.carried));
        }
        let found = current.metadata.get(key::MODEL).cloned().unwrap_or_default();
        Err(StateError::OtherModel { path: path.to_owned(), found, expected: base.to_owned() })
    }

    /// Checks that the state exists if earlier steps made the base, as its metadata says.
    ///
    /// # Errors
    ///
    /// When there is no state file.
    pub fn check_kept(&self, path: Option<&Path>, base: &ModelFile) -> Result<(), StateError> {
        let about = |key: &str| base.metadata.get(key).cloned();
        let Some(steps) = about(key::STEPS).filter(|steps| steps != "0") else { return Ok(()) };
        if path.is_some_and(|path| identity_of(path).is_some()) {
            return Ok(());
        }
        let made_by = about(key::STRATEGY).or_else(|| about("fedmill.rule")).unwrap_or_default();
        let previous = path.map(publish::previous).filter(|previous| identity_of(previous).is_some());
        let (base, path) = (base.path.clone(), path.map(Path::to_owned));
        Err(StateError::Lost { base, steps, made_by, path, previous })
    }

    /// Opens the state in a file; `None` if the file does not exist.
    fn read(&self, path: &Path, layout: &Layout) -> Result<Option<StateFile>, StateError> {
        if identity_of(path).is_none() {
            return Ok(None);
        }
        let at = || path.to_owned();
        let model = open_file(path).map_err(|faults| StateError::Unreadable { path: at(), faults })?;
        let found = model.metadata.get(key::OWNER);
        if found != Some(&self.owner) {
            let found = found.map_or_else(|| "missing".to_owned(), |found| format!("`{found}`"));
            return Err(StateError::OtherOwner { path: at(), found, expected: format!("`{}`", self.owner) });
        }
        let steps = model.metadata.get(key::STEPS).cloned().unwrap_or_default();
        let steps = steps.parse().map_err(|_| StateError::Metadata {
            path: at(),
            key: key::STEPS,
            found: format!("`{steps}`"),
            expected: "a count",
        })?;
        let obsolete = self.obsolete(layout);
        let table: Vec<&TensorPlace> =
            model.table.iter().filter(|place| !obsolete.contains(&place.spec.name)).collect();
        let places = placement(table, self.layout(layout).tensors(), "model")
            .map_err(|faults| StateError::OtherLayout { path: at(), faults })?;
        let (metadata, model) = (model.metadata.clone(), Arc::new(model));
        let source = |(slot, placement): (StateTensor, Placement)| {
            (slot, Source { model: Arc::clone(&model), placement: Arc::new(placement) })
        };
        let sources = self.by_slot(layout, places).into_iter().map(source).collect();
        Ok(Some(StateFile { carried: Carried { sources, steps }, metadata }))
    }

    /// The names of the moments of statistics. A state of an earlier version holds them; no step reads them.
    fn obsolete(&self, layout: &Layout) -> HashSet<String> {
        let slots = self.kept.iter().filter(|kept| !is_kept(kept.slot, TensorClass::Statistic));
        let of_slot = |kept: &KeptTensor| {
            let prefix = kept.slot.prefix();
            let specs = layout.tensors().iter().zip(layout.classes());
            let statistics = specs.filter(|(_, class)| **class != TensorClass::Parameter);
            statistics.map(move |(spec, _)| format!("{prefix}{}", spec.name))
        };
        slots.flat_map(of_slot).collect()
    }

    /// The places of each slot's tensors in the order of the model's layout.
    fn by_slot(&self, layout: &Layout, places: Placement) -> Vec<(StateTensor, Placement)> {
        let mut places = places.into_iter();
        let mut place = |slot: StateTensor, class: TensorClass| {
            if is_kept(slot, class) { places.next().unwrap_or(Place::NONE) } else { Place::NONE }
        };
        let slot = |kept: &KeptTensor| {
            let classes = layout.classes().iter();
            (kept.slot, classes.map(|class| place(kept.slot, *class)).collect())
        };
        self.kept.iter().map(slot).collect()
    }
}

/// Compares a state file with its digest. Warns if it has none. A file that does not exist is sound. All threads of the
/// current pool share the work.
///
/// # Errors
///
/// When the file cannot be read, or is damaged.
pub fn check_digest(path: &Path) -> Result<(), StateError> {
    if identity_of(path).is_none() {
        return Ok(());
    }
    let unreadable = |faults| StateError::Unreadable { path: path.to_owned(), faults };
    let model = open_file(path).map_err(unreadable)?;
    seal::check_or_warn(&model).map_err(|fault| unreadable(fault.into()))
}

fn open_file(path: &Path) -> Result<ModelFile, Faults<OpenFault>> {
    updates::open_plain(path, &OpenFiles::raise_limit(), &TablePool::default())
}

impl StateFile {
    fn names(&self, key: &str, digest: &str) -> bool {
        self.metadata.get(key).is_some_and(|found| found == digest)
    }
}

/// The writer of a state file.
#[derive(Debug)]
pub struct StateWriter {
    path: PathBuf,
    layout: Layout,
    writer: ModelWriter,
    metadata: BTreeMap<String, String>,
    /// For each slot, the place of each tensor of the model among those of the state.
    tensors: Vec<Vec<usize>>,
    /// Whether the file to replace holds the state that this one follows.
    follows: bool,
}

impl StateWriter {
    /// Starts the state that follows `carried`. `base` is the digest of the base.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn create(
        path: &Path,
        spec: &StateSpec,
        model: &Layout,
        carried: &Carried,
        base: Option<&str>,
    ) -> Result<Self, WriteError> {
        // Two concurrent runs on one state file would each pair their state with the other's model.
        if publish::remove_leftovers(path).map_err(WriteError::at(path))? {
            return Err(WriteError::Busy { path: path.to_owned() });
        }
        let layout = spec.layout(model);
        let steps = carried.steps + 1;
        let entries = [
            (key::OWNER, spec.owner.clone()),
            (key::STRATEGY, spec.strategy.clone()),
            (key::STEPS, steps.to_string()),
            (key::MODEL, NO_DIGEST.to_owned()),
            (key::BASE, base.unwrap_or(NO_DIGEST).to_owned()),
            ("fedmill.version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let metadata = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
        let metadata = seal::with_room(metadata.collect());
        let writer = ModelWriter::create(path, &layout, &metadata, None)?;
        let mut next = 0;
        let mut place = |slot: StateTensor, class: TensorClass| {
            next += usize::from(is_kept(slot, class));
            next.saturating_sub(1)
        };
        let tensors = spec
            .kept
            .iter()
            .map(|kept| model.classes().iter().map(|class| place(kept.slot, *class)).collect::<Vec<usize>>());
        let tensors = tensors.collect();
        let follows = carried.sources.values().any(|source| source.model.path == path);
        Ok(Self { path: path.to_owned(), layout, writer, metadata, tensors, follows })
    }

    /// Writes encoded values of the slot with this index.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(
        &self,
        slot: usize,
        pieces: impl Iterator<Item = Piece>,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let pieces = pieces.map(|piece| Piece { tensor: self.tensors[slot][piece.tensor], ..piece });
        self.writer.write(pieces, bytes)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    /// Syncs the model and the state to disk, and writes the digests of the model and of the state into the state. The
    /// pool hashes while the disk syncs. Returns the time of both.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn finish(&mut self, model: &ModelWriter, pool: &ThreadPool) -> Result<Duration, WriteError> {
        let started = Instant::now();
        let digest = thread::scope(|scope| {
            let synced = [model, &self.writer].map(|writer| scope.spawn(|| writer.sync()));
            // To free the file that had this name takes time too. From here on, only the disk can fail.
            let linked = scope.spawn(|| self.keep_last());
            let digest = pool.install(|| model.digest());
            for synced in synced {
                synced.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            }
            linked.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            digest
        })?;
        self.metadata.insert(key::MODEL.to_owned(), digest);
        self.writer.rewrite_metadata(&self.layout, &self.metadata)?;
        pool.install(|| self.writer.seal())?;
        self.writer.sync()?;
        Ok(started.elapsed())
    }

    /// Keeps the state before as `FILE.previous`.
    fn keep_last(&self) -> Result<(), WriteError> {
        if self.follows {
            publish::keep_as_previous(&self.path).map_err(WriteError::at(&self.path))?;
        }
        Ok(())
    }

    /// As [`ModelWriter::check_kept_names`].
    pub(super) fn check_kept_names(&self) -> Result<(), WriteError> {
        self.writer.check_kept_names()
    }

    /// As [`ModelWriter::names`].
    pub(super) fn names(&self) -> Vec<StagedNames> {
        self.writer.names()
    }

    /// The writer of the file.
    pub(super) fn into_writer(self) -> ModelWriter {
        self.writer
    }

    /// Renames the state to its final path. Call [`finish`](Self::finish) first.
    ///
    /// # Errors
    ///
    /// When files cannot be renamed.
    pub fn publish(self) -> Result<(), WriteError> {
        self.writer.publish()
    }
}
