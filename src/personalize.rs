//! Builds the model of one client: personal layers on the global model, or a mixture of both.
//!
//! - Papers: FedPer (Arivazhagan et al. 2019), FedRep (Collins et al. 2021) and LG-FedAvg (Liang et al. 2020) put
//!   personal layers on or under a global body. APFL (Deng, Kamani and Mahdavi, Adaptive personalized federated
//!   learning, 2020) interpolates: `alpha * client + (1 - alpha) * global`, equation 1.

use crate::engine::intake::claims::ClientIdFrom;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::identity::ClientName;
use crate::engine::intake::personal::{NormModules, Personal, PersonalError};
use crate::io::collision::{self, Collision};
use crate::io::digest::Blake3;
use crate::io::interrupt::{self, Interrupted};
use crate::io::model_file::{ModelFile, OpenFault, TablePool, TensorPlace};
use crate::io::model_files;
use crate::io::model_writer::{self, ModelWriter, WriteError};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::convert::{all_within, decode, encode};
use crate::kernels::lanes::Isa;
use crate::model::class::{PackedWeights, is_statistic};
use crate::model::dtype::{Dtype, Kind};
use crate::model::faults::Faults;
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::model::shown::Shown;
use crate::model::tile::TileBuffer;
use crate::telemetry::explain::Explain;
use crate::updates;
use crate::updates::fault::LayoutFault;
use crate::updates::likely_kind::Distances;
use crate::updates::metadata::{OtherPurpose, UpdateKind, UpdateMetadata, has_test_noise, mark_test_noise};
use crate::updates::placement::{placement, tensor_fault};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

/// How to build the client's model.
#[derive(Clone, PartialEq, Debug)]
pub enum PersonalizeMethod {
    /// These layers come from the client's model, the others from the global model.
    Layers(Personal),
    /// Floats are `(1 - alpha) * global + alpha * client`, with alpha from 0 to 1. Integers come from the global model.
    Mix(f64),
}

/// The request for a client's model.
#[derive(Debug)]
pub struct Personalization {
    /// The global model.
    pub global: PathBuf,
    /// The client's model, or only its personal layers.
    pub client: PathBuf,
    /// How to build the client's model.
    pub method: PersonalizeMethod,
    /// The path of the output.
    pub output: PathBuf,
    /// The most bytes of data in one file of the output; `None` for a single file.
    pub max_shard_bytes: Option<u64>,
    /// What names the client.
    pub client_id_from: ClientIdFrom,
    /// The instruction set to run on.
    pub isa: Isa,
}

/// Why a client's model was not written.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PersonalizeError {
    #[error("{}: {}", .path.display(), .faults)]
    Open { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: {}", .path.display(), .faults)]
    Client { path: PathBuf, faults: Faults<Fault> },
    #[error("{}: metadata `kind` is delta, expected weights", .path.display())]
    IsDelta { path: PathBuf },
    #[error("{}: states no `kind` and looks like a delta: it is far nearer to zero than to the global model", .path.display())]
    LikelyDelta { path: PathBuf },
    #[error(transparent)]
    Personal(#[from] PersonalError),
    #[error("{}: tensor `{tensor}` holds {value} at flat index {index}, expected a finite number", .path.display())]
    NonFinite { path: PathBuf, tensor: String, index: usize, value: f64 },
    #[error("{}: tensor `{tensor}` is packed, and its bytes are not those of the global model: it cannot be mixed", .path.display())]
    Packed { path: PathBuf, tensor: String },
    #[error("tensor `{tensor}`: the mixed value {} at flat index {index} does not fit {dtype}", Shown(*value))]
    DoesNotFit { tensor: String, index: usize, value: f64, dtype: Dtype },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Explain for PersonalizeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::IsDelta { path } => Some(format!(
                "add it to the model it started from: fedmill aggregate --base BASE {} -o WEIGHTS",
                path.display()
            )),
            Self::LikelyDelta { path } => Some(format!(
                "if it is a delta, add it to the model it started from: fedmill aggregate --kind delta --base BASE {} -o \
                 WEIGHTS; if it is a model, let its metadata state `kind` = `weights`",
                path.display()
            )),
            Self::Open { faults, .. } => faults.iter().find_map(OpenFault::hint).map(str::to_owned),
            Self::Personal(why) => why.hint().map(str::to_owned),
            Self::Packed { .. } => Some("dequantise both models before mixing them".to_owned()),
            Self::Write(WriteError::NoDirectory { path }) => Some(format!("mkdir -p {}", path.display())),
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Write(WriteError::Interrupted(Interrupted { signal })) => Some(*signal),
            _ => None,
        }
    }
}

/// The number of values that a thread mixes at once.
const CHUNK: usize = 1 << 16;

/// The source of a tensor of the client's model.
enum TensorSource<'a> {
    Copied(&'a ModelFile, &'a TensorPlace),
    Mixed(&'a TensorPlace, &'a TensorPlace),
    /// Packed weights, which must have the same bytes in both models.
    Opaque(&'a TensorPlace, &'a TensorPlace),
}

/// The tensors of a client's model.
type Parts<'a> = Vec<(TensorSpec, TensorSource<'a>)>;

impl Personalization {
    /// Writes the client's model. Returns its path.
    ///
    /// # Errors
    ///
    /// When the models do not fit each other, or a file cannot be read or written. Nothing is published then.
    pub fn run(&self, pool: &ThreadPool) -> Result<PathBuf, PersonalizeError> {
        model_writer::check_target(&self.output)?;
        let global = open(&self.global)?;
        let client = open_client(&self.client, &global)?;
        let about = about(&global).and_then(|_| about(&client))?;
        self.check_output(&[&global, &client])?;
        let parts = self.parts(&global, &client)?;
        if !about.states_kind {
            check_kind(self.isa, &global, &client)?;
        }
        let layout = Layout::new(parts.iter().map(|(spec, _)| spec.clone()).collect());
        let id = self.client_id(about.client_id.as_deref())?;
        let metadata = self.metadata(&global, &client, id);
        let writer = ModelWriter::create(&self.output, &layout, &metadata, self.max_shard_bytes)?;
        let make = |(tensor, (spec, source)): (usize, &(TensorSpec, TensorSource))| match source {
            TensorSource::Copied(from, place) => {
                copy(&writer, tensor, from, place).map_err(PersonalizeError::from)
            }
            TensorSource::Opaque(ours, theirs) => {
                check_same((&global, ours), (&client, theirs))?;
                copy(&writer, tensor, &global, ours).map_err(PersonalizeError::from)
            }
            TensorSource::Mixed(ours, theirs) => {
                Mix { writer: &writer, isa: self.isa, global: (&global, ours), client: (&client, theirs) }
                    .run(tensor, spec, self.alpha())
            }
        };
        pool.install(|| parts.par_iter().enumerate().try_for_each(make))?;
        for file in global.files.iter().chain(&client.files) {
            file.check_unchanged().map_err(read_error(file))?;
        }
        writer.sync()?;
        let path = writer.path().to_owned();
        writer.publish()?;
        Ok(path)
    }

    /// The id of the client, whose metadata claims one or none.
    fn client_id(&self, claimed: Option<&str>) -> Result<String, PersonalizeError> {
        let named = ClientName::of(&self.client, claimed, self.client_id_from, false);
        let faults: Faults<Fault> = named.faults.into();
        let faults = faults.none_or(named.id.unwrap_or_default());
        faults.map_err(|faults| PersonalizeError::Client { path: self.client.clone(), faults })
    }

    fn alpha(&self) -> f64 {
        match self.method {
            PersonalizeMethod::Layers(_) => 1.0,
            PersonalizeMethod::Mix(alpha) => alpha,
        }
    }

    /// The metadata of the global model, with the id of the client.
    fn metadata(&self, global: &ModelFile, client: &ModelFile, id: String) -> BTreeMap<String, String> {
        let how = match &self.method {
            PersonalizeMethod::Layers(personal) => personal.texts().join(" "),
            PersonalizeMethod::Mix(alpha) => format!("mix={alpha}"),
        };
        let mut metadata = global.metadata.clone();
        metadata.insert("client_id".to_owned(), id);
        metadata.insert("fedmill.personal".to_owned(), how);
        if has_test_noise(&client.metadata) {
            let path = client.path.display();
            tracing::warn!(
                "{path}: its noise came from a test seed: no private round may start from the output"
            );
            mark_test_noise(&mut metadata);
        }
        metadata
    }

    fn check_output(&self, inputs: &[&ModelFile]) -> Result<(), PersonalizeError> {
        let files = inputs.iter().flat_map(|model| &model.files).map(SourceFile::identity);
        let named = inputs.iter().filter_map(|model| identity_of(&model.path));
        let inputs: Vec<(u64, u64)> = files.chain(named).collect();
        let family = model_files::family(&self.output).map_err(WriteError::at(&self.output))?;
        Ok(collision::check(&family, &inputs)?)
    }

    fn parts<'a>(&self, global: &'a ModelFile, client: &'a ModelFile) -> Result<Parts<'a>, PersonalizeError> {
        let parts = match &self.method {
            PersonalizeMethod::Layers(personal) => {
                let tables = global.table.iter().chain(client.table.iter());
                let names = tables.map(|place| place.spec.name.as_str());
                personal.check(names.clone())?;
                let mut norms = NormModules::default();
                norms.extend(names);
                layers(global, client, |name| personal.holds(name, &norms))
            }
            PersonalizeMethod::Mix(alpha) => mixed(global, client, *alpha),
        };
        parts.map_err(|faults| PersonalizeError::Client {
            path: self.client.clone(),
            faults: faults.map(Fault::from),
        })
    }
}

fn open(path: &Path) -> Result<ModelFile, PersonalizeError> {
    updates::open_plain(path, &OpenFiles::raise_limit(), &TablePool::default())
        .map_err(|faults| PersonalizeError::Open { path: path.to_owned(), faults })
}

fn open_client(path: &Path, global: &ModelFile) -> Result<ModelFile, PersonalizeError> {
    let limits = updates::limits(Some(&global.table));
    updates::open_plain_within(path, &OpenFiles::raise_limit(), &TablePool::default(), &limits)
        .map_err(|faults| PersonalizeError::Open { path: path.to_owned(), faults })
}

/// The metadata of a model. Refuses a model that is not weights.
fn about(model: &ModelFile) -> Result<UpdateMetadata, PersonalizeError> {
    let (about, mut faults) = UpdateMetadata::parse(&model.metadata);
    // Other faults of the metadata do not matter here.
    faults.retain(|fault| matches!(fault.key, "kind" | "client_id"));
    let other = OtherPurpose::of(&model.metadata);
    let faults: Faults<Fault> = faults.into_iter().map(Fault::from).chain(other.map(Fault::from)).collect();
    if !faults.is_empty() {
        return Err(PersonalizeError::Client { path: model.path.clone(), faults });
    }
    match about.kind {
        UpdateKind::Weights => Ok(about),
        UpdateKind::Delta => Err(PersonalizeError::IsDelta { path: model.path.clone() }),
    }
}

/// The values of a tensor that [`check_kind`] reads at most.
const SAMPLE: usize = 2048;

/// Refuses a client's model whose values look like a delta of the global model: the first of each parameter that both
/// have.
fn check_kind(isa: Isa, global: &ModelFile, client: &ModelFile) -> Result<(), PersonalizeError> {
    let theirs: HashMap<&str, &TensorPlace> =
        client.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
    let mut distances = Distances::default();
    let is_parameter = |spec: &TensorSpec| spec.dtype.kind() == Kind::Float && !is_statistic(&spec.name);
    for ours in global.table.iter().filter(|ours| is_parameter(&ours.spec)) {
        let theirs = theirs.get(ours.spec.name.as_str());
        let Some(theirs) = theirs.filter(|theirs| theirs.spec.shape == ours.spec.shape) else { continue };
        let [base, values] = [first_values(isa, global, ours)?, first_values(isa, client, theirs)?];
        distances.add(Distances::of(isa, &values, &base));
    }
    match distances.is_delta() {
        true => Err(PersonalizeError::LikelyDelta { path: client.path.clone() }),
        false => Ok(()),
    }
}

/// The first values of a tensor.
fn first_values(isa: Isa, model: &ModelFile, place: &TensorPlace) -> Result<Vec<f64>, PersonalizeError> {
    let (file, dtype, len) = (&model.files[place.file], place.spec.dtype, place.spec.len.min(SAMPLE));
    let mut stored = TileBuffer::new(1, len * dtype.bytes());
    let bytes = &mut stored.row_mut(0)[..len * dtype.bytes()];
    file.read_values_at(bytes, place.offset).map_err(read_error(file))?;
    let mut values = vec![0.0; len];
    decode(isa, dtype, bytes, &mut values);
    Ok(values)
}

/// The tensors of the global model, with the client's personal layers in place of the global ones. Personal layers that
/// the global model lacks come last.
fn layers<'a>(
    global: &'a ModelFile,
    client: &'a ModelFile,
    is_personal: impl Fn(&str) -> bool,
) -> Result<Parts<'a>, Faults<LayoutFault>> {
    let mut theirs: HashMap<&str, &TensorPlace> =
        client.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
    let (mut parts, mut faults) = (Vec::new(), Faults::default());
    for ours in global.table.iter() {
        let spec = &ours.spec;
        match (is_personal(&spec.name), theirs.remove(spec.name.as_str())) {
            (true, Some(theirs)) => parts.push((theirs.spec.clone(), TensorSource::Copied(client, theirs))),
            (true, None) => faults.push(LayoutFault::MissingTensor {
                tensor: spec.name.clone(),
                dtype: spec.dtype,
                shape: spec.shape.clone(),
            }),
            (false, theirs) => {
                faults.extend(theirs.and_then(|theirs| tensor_fault(&theirs.spec, spec)));
                parts.push((spec.clone(), TensorSource::Copied(global, ours)));
            }
        }
    }
    for place in client.table.iter().filter(|place| theirs.contains_key(place.spec.name.as_str())) {
        match is_personal(&place.spec.name) {
            true => parts.push((place.spec.clone(), TensorSource::Copied(client, place))),
            false => faults.push(LayoutFault::ExtraTensor {
                tensor: place.spec.name.clone(),
                reference: "global model",
            }),
        }
    }
    faults.none_or(parts)
}

/// The tensors of the global model, with every float mixed. With alpha 0 or 1, copies the bytes of one of the models.
fn mixed<'a>(
    global: &'a ModelFile,
    client: &'a ModelFile,
    alpha: f64,
) -> Result<Parts<'a>, Faults<LayoutFault>> {
    let specs: Vec<TensorSpec> = global.table.iter().map(|place| place.spec.clone()).collect();
    placement(&*client.table, &specs, "global model")?;
    let theirs: HashMap<&str, &TensorPlace> =
        client.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
    let packed = PackedWeights::among(&specs);
    let source = |ours: &'a TensorPlace| {
        let theirs = theirs[ours.spec.name.as_str()];
        if packed.hold(&ours.spec.name) && alpha != 0.0 {
            return TensorSource::Opaque(ours, theirs);
        }
        let same_dtype = ours.spec.dtype == theirs.spec.dtype;
        match ours.spec.dtype.kind() {
            Kind::Float if alpha == 1.0 && same_dtype => TensorSource::Copied(client, theirs),
            Kind::Float if alpha != 0.0 => TensorSource::Mixed(ours, theirs),
            _ => TensorSource::Copied(global, ours),
        }
    };
    Ok(global.table.iter().map(|ours| (ours.spec.clone(), source(ours))).collect())
}

fn copy(
    writer: &ModelWriter,
    tensor: usize,
    from: &ModelFile,
    place: &TensorPlace,
) -> Result<(), WriteError> {
    writer.copy(tensor, &from.files[place.file], place.offset, place.spec.bytes() as u64)
}

/// Checks that a packed weight has the same bytes in both models.
fn check_same(
    (global, ours): (&ModelFile, &TensorPlace),
    (client, theirs): (&ModelFile, &TensorPlace),
) -> Result<(), PersonalizeError> {
    let digest = |model: &ModelFile, place: &TensorPlace| {
        let file = &model.files[place.file];
        Blake3::of_range(file, file.place_of(place.offset), place.spec.bytes() as u64)
            .map_err(read_error(file))
    };
    if ours.spec.dtype == theirs.spec.dtype && digest(global, ours)? == digest(client, theirs)? {
        return Ok(());
    }
    Err(PersonalizeError::Packed { path: client.path.clone(), tensor: ours.spec.name.clone() })
}

fn read_error(file: &SourceFile) -> impl FnOnce(io::Error) -> PersonalizeError {
    let path = file.path().to_owned();
    move |source| PersonalizeError::Read { path, source }
}

/// A tensor to mix.
struct Mix<'a> {
    writer: &'a ModelWriter,
    isa: Isa,
    global: (&'a ModelFile, &'a TensorPlace),
    client: (&'a ModelFile, &'a TensorPlace),
}

impl Mix<'_> {
    fn run(&self, tensor: usize, spec: &TensorSpec, alpha: f64) -> Result<(), PersonalizeError> {
        let mut stored = TileBuffer::new(1, CHUNK * size_of::<f64>());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for start in (0..spec.len).step_by(CHUNK) {
            interrupt::check().map_err(WriteError::from)?;
            let piece = Piece { tensor, start, len: CHUNK.min(spec.len - start) };
            self.read(self.global, &piece, &mut stored, &mut ours)?;
            self.read(self.client, &piece, &mut stored, &mut theirs)?;
            let mixed: Vec<f64> = ours.iter().zip(&theirs).map(|(g, c)| between(*g, *c, alpha)).collect();
            self.check(spec, start, &mixed, [&ours, &theirs])?;
            let bytes = &mut stored.row_mut(0)[..piece.len * spec.dtype.bytes()];
            encode(self.isa, spec.dtype, &mixed, bytes);
            self.writer.write(std::iter::once(piece), bytes)?;
        }
        Ok(())
    }

    fn read(
        &self,
        (model, place): (&ModelFile, &TensorPlace),
        piece: &Piece,
        stored: &mut TileBuffer,
        values: &mut Vec<f64>,
    ) -> Result<(), PersonalizeError> {
        let (file, dtype) = (&model.files[place.file], place.spec.dtype);
        let bytes = &mut stored.row_mut(0)[..piece.len * dtype.bytes()];
        let offset = place.offset + (piece.start * dtype.bytes()) as u64;
        file.read_values_at(bytes, offset).map_err(read_error(file))?;
        values.resize(piece.len, 0.0);
        decode(self.isa, dtype, bytes, values);
        Ok(())
    }

    /// Checks that both inputs are finite, and that the mixture fits the dtype.
    fn check(
        &self,
        spec: &TensorSpec,
        start: usize,
        mixed: &[f64],
        [ours, theirs]: [&[f64]; 2],
    ) -> Result<(), PersonalizeError> {
        let limits = spec.dtype.limits();
        for ((model, _), values) in [(self.global, ours), (self.client, theirs)] {
            if !all_within(self.isa, values, &Dtype::F64.limits()) {
                let index = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
                let (path, tensor) = (model.path.clone(), spec.name.clone());
                return Err(PersonalizeError::NonFinite {
                    path,
                    tensor,
                    index: start + index,
                    value: values[index],
                });
            }
        }
        if all_within(self.isa, mixed, &limits) {
            return Ok(());
        }
        let index = mixed.iter().position(|x| !limits.contains(x)).unwrap_or(0);
        let (tensor, value, dtype) = (spec.name.clone(), mixed[index], spec.dtype);
        Err(PersonalizeError::DoesNotFit { tensor, index: start + index, value, dtype })
    }
}

/// `(1 - alpha) * global + alpha * client`. Exactly the client's value for alpha 1.
fn between(global: f64, client: f64, alpha: f64) -> f64 {
    if alpha == 1.0 { client } else { (1.0 - alpha) * global + alpha * client }
}
