//! Inspects updates one by one, without merging: the content, norms and faults of each.

use crate::engine::intake::admit::admit;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::opening;
use crate::engine::intake::policy::Policy;
use crate::engine::intake::update::{self, BadBase, Update};
use crate::engine::passes::angles::cosines_to_median;
use crate::engine::passes::error::PassError;
use crate::engine::passes::kind_sample::likely_deltas;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::survey::{Measured, measure};
use crate::io::discover::{self, DiscoverError};
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::source::OpenFiles;
use crate::model::faults::Faults;
use crate::model::layout::Layout;
use crate::telemetry::cells::{Listing, measured, or_dash};
use crate::telemetry::escape::line;
use crate::telemetry::explain::Explain;
use crate::telemetry::progress::Progress;
use crate::updates::metadata::UpdateMetadata;
use crate::updates::placement::placement;
use crate::updates::set::{Client, MergedLayout, UpdateSet};
use crate::updates::source::Place;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Updates to inspect.
#[derive(Debug)]
pub struct Inspection {
    /// Update files and directories of them.
    pub updates: Vec<PathBuf>,
    /// The model that the updates started from; `None` without `--base`.
    pub base: Option<PathBuf>,
    /// The policy that decides which updates have faults.
    pub policy: Policy,
}

/// The inspection of one update. A field is `None` if the update does not state it, or it cannot be measured.
#[derive(Serialize, Clone, Debug)]
pub struct InspectedUpdate {
    /// The id of its client.
    pub id: String,
    /// The path of its file.
    pub file: String,
    /// Number of tensors.
    pub tensors: Option<usize>,
    /// Number of values.
    pub parameters: Option<usize>,
    /// Its dtypes, most values first, joined by `+`.
    pub dtype: Option<String>,
    /// Bytes of its files.
    pub bytes: Option<u64>,
    /// The number of training examples, from its metadata.
    pub examples: Option<f64>,
    /// The number of its round, from its metadata.
    pub round: Option<u64>,
    /// `weights` or `delta`.
    pub kind: String,
    /// L2 norm of the floats of its delta, or without a base of its values.
    pub norm: Option<f64>,
    /// Cosine of the angle between its delta and the coordinate median of the deltas of all sound updates.
    pub cosine_to_median: Option<f64>,
    /// The largest magnitude of its finite floats.
    pub max_abs: Option<f64>,
    /// The number of values that are NaN or infinite.
    pub non_finite: Option<u64>,
    /// Its faults.
    pub faults: Vec<String>,
}

/// Why updates could not be inspected.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum InspectError {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Base(#[from] BadBase),
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

impl Explain for InspectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Pass(why) => why.hint(),
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Pass(why) => why.signal(),
            _ => None,
        }
    }
}

impl Inspection {
    /// Measures every update, in at most three reads of each. Returns them in order of file.
    ///
    /// # Errors
    ///
    /// When there is no update, the base cannot be used, or a file can no longer be read. A bad update is not an error.
    pub fn run(self, machine: &Machine) -> Result<Vec<InspectedUpdate>, InspectError> {
        let paths = discover::updates(&self.updates, false)?;
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        let base = self.base.as_deref().map(|path| update::open_base(path, &files, &tables)).transpose()?;
        let base = base.map(Arc::new);
        let opened =
            machine.pool.install(|| opening::open(&paths, &files, &tables, base.as_deref(), &self.policy));
        let (mut set, rejected) = admit(opened, base, &self.policy)
            .map_err(|source| InspectError::Read { path: self.base.clone().unwrap_or_default(), source })?;

        let mut rows = Vec::new();
        for update in rejected {
            rows.push(inspect_alone(machine, update, &set)?);
        }
        let measured = measure_set(machine, &mut rows, &mut set)?;
        let likely = match self.policy.claims.kind {
            None => note_likely_deltas(machine, &mut rows, &set)?,
            Some(_) => Vec::new(),
        };
        let is_sound = |i: &usize| measured[*i].is_sound() && !likely.contains(i);
        let sound: Vec<usize> = (0..measured.len()).filter(is_sound).collect();
        let mut place = 0..;
        set.clients.retain(|_| place.next().is_some_and(|i| sound.binary_search(&i).is_ok()));
        if !sound.is_empty() {
            compare(machine, &mut rows, &set, &measured, &sound)?;
        }
        machine.progress.finish();
        rows.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(rows)
    }
}

/// Adds a row for every client of the set.
fn measure_set(
    machine: &Machine,
    rows: &mut Vec<InspectedUpdate>,
    set: &mut UpdateSet,
) -> Result<Vec<Measured>, PassError> {
    machine.progress.start("measuring", bytes_of(set));
    let measured = loop {
        match measure(machine, set) {
            // The update is bad in a way that only its values show.
            Err(PassError::Read { input: Some(input), source, .. }) => {
                let client = set.clients.remove(input);
                let fault = Faults::from(Fault::Read(source));
                rows.push(describe(&client.id, &client.model, &client.metadata, &fault));
            }
            measured => break measured?,
        }
    };
    for (i, (client, measured)) in set.clients.iter().zip(&measured).enumerate() {
        let faults: Faults<Fault> = measured.bad_value_in(set, i).map(Fault::from).into_iter().collect();
        let mut row = describe(&client.id, &client.model, &client.metadata, &faults);
        row.measured(measured);
        rows.push(row);
    }
    Ok(measured)
}

/// Adds the fault of updates that look like deltas and do not say so. The last rows are those of the set. Returns the
/// places of these updates in the set.
fn note_likely_deltas(
    machine: &Machine,
    rows: &mut [InspectedUpdate],
    set: &UpdateSet,
) -> Result<Vec<usize>, PassError> {
    let first = rows.len() - set.clients.len();
    let likely = match likely_deltas(machine, set) {
        // A file changed since it was measured.
        Err(PassError::Read { input: Some(_), .. }) => return Ok(Vec::new()),
        likely => likely?,
    };
    for client in &likely {
        rows[first + client].faults.push(Fault::LikelyDelta.to_string());
    }
    Ok(likely)
}

/// Compares the sound clients, which are those of `set`, with their median. `places` are theirs among all `measured`.
fn compare(
    machine: &Machine,
    rows: &mut [InspectedUpdate],
    set: &UpdateSet,
    measured: &[Measured],
    places: &[usize],
) -> Result<(), PassError> {
    machine.progress.start("comparing", bytes_of(set));
    let norms: Vec<f64> = places.iter().map(|place| measured[*place].squared_norm).collect();
    let cosines = match cosines_to_median(machine, set, &norms) {
        // A file changed since it was measured.
        Err(PassError::Read { input: Some(_), .. }) => return Ok(()),
        cosines => cosines?,
    };
    let first = rows.len() - measured.len();
    for (place, cosine) in places.iter().zip(cosines) {
        rows[first + place].cosine_to_median = cosine;
    }
    Ok(())
}

/// A set of one rejected update: in the layout of `set` if it fits, and in its own layout without a base if not. `None`
/// if the update cannot be opened.
fn set_of_one(set: &UpdateSet, update: &mut Update) -> Option<UpdateSet> {
    let model = update.model.take()?;
    let fitting = placement(&*model.table, set.layout.tensors(), "reference").ok();
    let (layout, base, placement) = match fitting {
        Some(placement) => (set.layout.clone(), set.base.clone(), placement),
        None => {
            let own = model.table.iter().map(|place| place.spec.clone()).collect();
            (Layout::new(own), None, model.table.iter().map(Place::from).collect())
        }
    };
    let merged = MergedLayout::of(&layout);
    let (id, named_by, metadata) = (update.id.clone(), update.named_by, update.metadata.clone());
    let placement = Arc::new(placement);
    let client = Client { id, named_by, model, metadata, placement, control: None, opaque: Arc::default() };
    Some(UpdateSet::new(layout, merged, vec![client], base))
}

fn bytes_of(set: &UpdateSet) -> u64 {
    set.clients.iter().map(|client| client.model.bytes()).sum()
}

/// Measures a rejected update alone.
fn inspect_alone(
    machine: &Machine,
    mut update: Update,
    set: &UpdateSet,
) -> Result<InspectedUpdate, InspectError> {
    let Some(alone) = set_of_one(set, &mut update) else {
        return Ok(unopened(update));
    };
    let hidden = Progress::hidden();
    let quiet = Machine::new(machine.isa, machine.pool, &hidden);
    let client = &alone.clients[0];
    let mut faults = update.faults;
    let measured = match measure(&quiet, &alone) {
        Err(PassError::Read { input: Some(_), source, .. }) => {
            faults.push(Fault::Read(source));
            return Ok(describe(&client.id, &client.model, &client.metadata, &faults));
        }
        measured => measured?,
    };
    faults.extend(measured[0].bad_value_in(&alone, 0).map(Fault::from));
    let mut row = describe(&client.id, &client.model, &client.metadata, &faults);
    row.measured(&measured[0]);
    if set.base.is_some() && alone.base.is_none() {
        // Without the base, the norm is of the values and not of the delta.
        row.norm = None;
    }
    Ok(row)
}

fn unopened(update: Update) -> InspectedUpdate {
    InspectedUpdate {
        id: update.id,
        file: update.path.display().to_string(),
        tensors: None,
        parameters: None,
        dtype: None,
        bytes: None,
        examples: update.metadata.num_examples,
        round: update.metadata.round,
        kind: update.metadata.kind.to_string(),
        norm: None,
        cosine_to_median: None,
        max_abs: None,
        non_finite: None,
        faults: update.faults.lines().collect(),
    }
}

fn describe(
    id: &str,
    model: &ModelFile,
    metadata: &UpdateMetadata,
    faults: &Faults<Fault>,
) -> InspectedUpdate {
    InspectedUpdate {
        id: id.to_owned(),
        file: model.path.display().to_string(),
        tensors: Some(model.table.len()),
        parameters: Some(model.table.iter().map(|place| place.spec.len).sum()),
        dtype: Some(dtypes_of(model)),
        bytes: Some(model.bytes()),
        examples: metadata.num_examples,
        round: metadata.round,
        kind: metadata.kind.to_string(),
        norm: None,
        cosine_to_median: None,
        max_abs: None,
        non_finite: None,
        faults: faults.lines().collect(),
    }
}

/// The dtypes of a model, joined by `+`: the dtype of the most values first.
fn dtypes_of(model: &ModelFile) -> String {
    let names: BTreeSet<String> = model.table.iter().map(|place| place.spec.dtype.to_string()).collect();
    let values = |name: &String| -> usize {
        let of_dtype = model.table.iter().filter(|place| place.spec.dtype.to_string() == *name);
        of_dtype.map(|place| place.spec.len).sum()
    };
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(values(name)));
    names.join("+")
}

impl InspectedUpdate {
    fn measured(&mut self, measured: &Measured) {
        self.non_finite = Some(measured.non_finite);
        self.max_abs = Some(measured.max_abs);
        self.norm = Some(measured.squared_norm.sqrt()).filter(|norm| norm.is_finite());
    }
}

/// Updates for people: a table, and below it their faults.
pub fn text(updates: &[InspectedUpdate]) -> String {
    let header = [
        "client",
        "tensors",
        "parameters",
        "dtype",
        "bytes",
        "examples",
        "norm",
        "cos(median)",
        "max abs",
        "non-finite",
    ];
    let right = (1..header.len()).filter(|column| *column != 3);
    // Examples may be fractions.
    let mut table = Listing::with_header(header).right(right).points(5).cut(0);
    for update in updates {
        table.add([
            update.id.clone(),
            or_dash(update.tensors),
            or_dash(update.parameters),
            or_dash(update.dtype.as_ref()),
            or_dash(update.bytes),
            or_dash(update.examples),
            or_dash(update.norm.map(measured)),
            or_dash(update.cosine_to_median.map(|cosine| format!("{cosine:+.3}"))),
            or_dash(update.max_abs.map(measured)),
            or_dash(update.non_finite),
        ]);
    }
    let faults = updates
        .iter()
        .flat_map(|update| update.faults.iter().map(move |fault| format!("{}: {fault}", update.file)))
        .map(|fault| format!("{}\n", line(&fault)));
    format!("{}\n{}", table.text(&[]), faults.collect::<String>())
}
