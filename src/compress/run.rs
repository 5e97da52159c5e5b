//! Compresses one update, file to file, in memory of a few chunks: opens what is read, settles how each vector is
//! encoded, makes files until one will do, publishes it, and tells of it.

use crate::codecs::directory::{Tensors, layout_check};
use crate::codecs::{Codec, Vector, compressed_tensors};
use crate::compress::auto::{self, Found, Goal, Made, Sought};
use crate::compress::encode::{self, EncodeError, Outcome};
use crate::compress::inputs::Inputs;
use crate::compress::offload::Lent;
use crate::compress::parts::{self, PartPlan};
use crate::compress::quality::Quality;
use crate::compress::residual::{Carried, Feedback, ResidualError, ResidualWriter, Subject};
use crate::compress::summary::Compressed;
use crate::compress::values::{NonFinite, Values};
use crate::compress::writer::{Design, FileLayout, Finished, LayoutError};
use crate::gpu::job::GpuError;
use crate::io::digest::{self, Digest};
use crate::io::interrupt::Interrupted;
use crate::io::model_file::{ModelFile, OpenFault, TensorPlace, list};
use crate::io::model_writer::{self, WriteError};
use crate::io::publish::{self, Staged, remove_leftovers, sync_directory_of};
use crate::io::source::SourceFile;
use crate::kernels::lanes::Isa;
use crate::model::layout::TensorSpec;
use crate::updates::encoded::KIND_SKETCH;
use crate::updates::metadata::{MetadataFault, UpdateKind};
use rayon::ThreadPool;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is to be compressed, how, and where to.
#[derive(Clone, Debug)]
pub struct Compression {
    /// The update: weights, or a delta.
    pub update: PathBuf,
    /// What is subtracted from weights first.
    pub base: Option<PathBuf>,
    /// How.
    pub how: How,
    /// What the update's own random numbers, and those that all clients share, come from.
    pub seed: u64,
    /// What becomes of values that are not finite.
    pub non_finite: NonFinite,
    /// The layout of the file; the one that is shorter by more than a little if none.
    pub layout: Option<FileLayout>,
    /// How what cannot be sent is kept for the next round, if it is.
    pub feedback: Option<Feedback>,
    /// Where to tell compressed-tensors how to decode it, if that is wanted: a `quantization_config`.
    pub config: Option<PathBuf>,
    /// Where the compressed update goes; nowhere if none.
    pub output: Option<PathBuf>,
    /// The instruction set to work with.
    pub isa: Isa,
    /// A device for codecs that have shaders.
    pub device: Option<Arc<Lent>>,
}

/// How an update is to be encoded.
#[derive(Clone, Debug)]
pub enum How {
    /// By one codec wherever that makes sense.
    Codec(Arc<dyn Codec>),
    /// However these are met.
    Wanted(Wanted),
}

/// What a compressed update has to meet.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Wanted {
    /// Input bytes over output bytes, at least.
    pub ratio: Option<f64>,
    /// Output bytes, at most.
    pub bytes: Option<u64>,
    /// NMSE, at most.
    pub nmse: Option<f64>,
    /// Whether the best file is to be published even if it does not meet them.
    pub best_effort: bool,
}

impl Wanted {
    /// As bytes and error, for an input of so many bytes.
    pub(crate) fn goal(&self, input_bytes: u64) -> Goal {
        let of_ratio = self.ratio.map(|ratio| (input_bytes as f64 / ratio) as u64);
        let bytes = [of_ratio, self.bytes].into_iter().flatten().min();
        Goal { bytes, nmse: self.nmse }
    }
}

/// Why an update was not compressed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum CompressError {
    #[error("{}: {}", .path.display(), list(.faults))]
    Open { path: PathBuf, faults: Vec<OpenFault> },
    #[error("{}: {}", .path.display(), list(.faults))]
    Metadata { path: PathBuf, faults: Vec<MetadataFault> },
    #[error("{}: is encoded already, expected an update as it was trained", .path.display())]
    Encoded { path: PathBuf },
    #[error("{}: holds a delta, expected weights beside --base", .path.display())]
    IsDelta { path: PathBuf },
    #[error("{}: tensor `{tensor}` is {found}, expected {expected} as in the base", .path.display())]
    OtherTensor { path: PathBuf, tensor: String, found: String, expected: String },
    #[error("{}: {source}", .path.display())]
    Encode { path: PathBuf, source: EncodeError },
    #[error("{}: {source}", .path.display())]
    Layout { path: PathBuf, source: LayoutError },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: is also an input, expected another path for the output", .path.display())]
    OutputIsInput { path: PathBuf },
    #[error("{}: holds no matrix as compressed-tensors has it, expected one for {}", .path.display(), .config.display())]
    NoConfig { path: PathBuf, config: PathBuf },
    #[error("{}: has {bytes} bytes, expected at least {ratio} for a file that is {ratio} times smaller", .path.display())]
    NothingLeft { path: PathBuf, bytes: u64, ratio: f64 },
    #[error(transparent)]
    Device(#[from] GpuError),
    #[error(transparent)]
    Residual(#[from] ResidualError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl CompressError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Encoded { .. } => Some("`fedmill decompress` it first".to_owned()),
            Self::Residual(why) => why.hint(),
            Self::Device(why) => why.hint().map(str::to_owned),
            Self::NoConfig { .. } => {
                Some("it has i2 to i8, by channel or by blocks that divide rows, in a plain file".to_owned())
            }
            Self::NothingLeft { .. } => Some("ask for a lower --target, or add --best-effort".to_owned()),
            Self::IsDelta { .. } => Some("leave --base out: a delta is compressed as it is".to_owned()),
            Self::Encode { source: EncodeError::Value(_), .. } => {
                Some("--nonfinite zero sends zeros in their place".to_owned())
            }
            _ => None,
        }
    }

    /// The signal that stopped it, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Encode { source: EncodeError::Interrupted(Interrupted { signal }), .. } => Some(*signal),
            _ => None,
        }
    }
}

/// An encoded update that is not yet seen.
pub(crate) struct Attempt {
    pub(crate) finished: Finished,
    pub(crate) parts: Vec<encode::Running>,
    pub(crate) outcome: Outcome,
    residual: Option<ResidualWriter>,
}

impl Compression {
    /// Of one update by itself, with nothing else asked for, to nowhere.
    pub fn new(update: PathBuf, how: How) -> Self {
        let (base, output, layout, feedback, config) = (None, None, None, None, None);
        let (isa, device, non_finite) = (Isa::detect(), None, NonFinite::Error);
        Self { update, base, how, seed: 0, non_finite, layout, feedback, config, output, isa, device }
    }

    /// Compresses the update, and publishes the file.
    ///
    /// # Errors
    ///
    /// When inputs cannot be used, or the output cannot be written; nothing is published then.
    pub fn run(&self, pool: &ThreadPool) -> Result<Compressed, CompressError> {
        if let Some(output) = &self.output {
            model_writer::check_target(output)?;
            remove_leftovers(output).map_err(WriteError::at(output))?;
        }
        let inputs = Inputs::open(&self.update, self.base.as_deref(), pool)?;
        self.output.as_ref().map_or(Ok(()), |output| inputs.check_output(output))?;
        self.check_target(inputs.update.bytes())?;
        let tensors = inputs.tensors();
        let carried = self.carried(&inputs, &tensors)?;
        let values = inputs.values(self.isa, self.non_finite, carried.as_ref());
        let failed = |source| CompressError::Encode { path: self.update.clone(), source };
        let settle = |plans| {
            let seeds = |part: usize| inputs.seeds(self.seed, part);
            encode::settle(&values, plans, &tensors, seeds).map_err(failed)
        };
        let make = |parts| self.attempt(&inputs, &values, &tensors, parts);
        let mut attempt = pool.install(|| match (&self.how, self.sought(&inputs, &tensors)) {
            (_, Some(sought)) => auto::meet(&sought, &values, &tensors, settle, make, failed),
            (How::Codec(codec), None) => {
                let lent = self.device.as_ref().map(|device| device.to(codec));
                make(settle(parts::by_tensor(&tensors, lent.as_ref().unwrap_or(codec)))?)
            }
            (How::Wanted(_), None) => make(settle(parts::raw(&tensors))?),
        })?;
        if let Some(device) = &self.device {
            device.check()?;
        }
        let account = Compressed::of(self, &inputs, &attempt, &tensors);
        let config = self.config_of(&attempt, &tensors)?;
        let mut staged = attempt.finished.staged.take();
        if account.missed.is_some() && !matches!(&self.how, How::Wanted(wanted) if wanted.best_effort) {
            staged = None;
        }
        inputs.check_unchanged()?;
        if let (Some(output), Some(staged)) = (&self.output, staged) {
            self.publish(output, staged, &attempt.finished, attempt.residual.take())?;
            if let Some((path, config)) = config {
                let published = config.publish(path).and_then(|()| sync_directory_of(path));
                published.map_err(WriteError::at(path))?;
            }
        }
        Ok(account)
    }

    /// That a file so many times smaller has at least a byte.
    fn check_target(&self, bytes: u64) -> Result<(), CompressError> {
        match &self.how {
            How::Wanted(Wanted { ratio: Some(ratio), best_effort: false, .. }) if *ratio > bytes as f64 => {
                Err(CompressError::NothingLeft { path: self.update.clone(), bytes, ratio: *ratio })
            }
            _ => Ok(()),
        }
    }

    /// Up to `most` values of the largest tensor that a codec would encode: its first rows. None if there is no such.
    ///
    /// # Errors
    ///
    /// When inputs cannot be used.
    pub fn sample(
        &self,
        most: usize,
        pool: &ThreadPool,
    ) -> Result<Option<(Vector, Vec<f32>)>, CompressError> {
        Inputs::open(&self.update, self.base.as_deref(), pool)?.sample(most, self.isa, self.non_finite)
    }

    /// What compressed-tensors is told, and where, if it is to be; not yet seen.
    fn config_of(
        &self,
        attempt: &Attempt,
        tensors: &[TensorSpec],
    ) -> Result<Option<(&Path, Staged)>, CompressError> {
        let Some(path) = &self.config else { return Ok(None) };
        let is_plain = self.layout == Some(FileLayout::Plain);
        let matrices = attempt.parts.iter().filter_map(|part| match part.plan.tensors[..] {
            [only] if is_plain => Some((tensors[only].name.as_str(), &part.coding, &part.plan.vector)),
            _ => None,
        });
        let config = compressed_tensors::config(matrices)
            .ok_or_else(|| CompressError::NoConfig { path: self.update.clone(), config: path.clone() })?;
        let staged = publish::stage(path, format!("{config:#}\n").as_bytes());
        Ok(Some((path, staged.map_err(WriteError::at(path))?)))
    }

    /// Makes the file appear, and what it leaves for the next round with it.
    fn publish(
        &self,
        output: &Path,
        staged: Staged,
        finished: &Finished,
        residual: Option<ResidualWriter>,
    ) -> Result<(), CompressError> {
        let at = || WriteError::at(output);
        staged.sync().map_err(at())?;
        if let Some(residual) = residual {
            let read = |chunk: &mut [u8], offset| staged.read_at(chunk, offset);
            residual.publish(&digest::sha256(finished.bytes, read).map_err(at())?)?;
        }
        staged.publish(output).map_err(at())?;
        sync_directory_of(output).map_err(at())?;
        self.feedback.as_ref().map_or(Ok(()), Feedback::promote).map_err(CompressError::from)
    }

    /// What earlier rounds left.
    fn carried(&self, inputs: &Inputs, tensors: &[TensorSpec]) -> Result<Option<Carried>, CompressError> {
        let Some(feedback) = &self.feedback else { return Ok(None) };
        let named = [Some(self.update.as_path()), self.base.as_deref(), self.output.as_deref()];
        feedback.check(inputs.files().map(SourceFile::path).chain(named.into_iter().flatten()))?;
        if let Some(output) = &self.output {
            feedback.recover(output)?;
        }
        let input = Digest::of(&inputs.update.files)
            .map_err(|source| CompressError::Read { path: self.update.clone(), source })?;
        let subject = Subject {
            client: inputs.client.clone(),
            round: inputs.about.round,
            local_lr: inputs.about.local_lr,
            input_sha256: input.sha256,
            base_sha256: inputs.base.as_ref().map(|(.., digest)| digest.sha256.clone()),
        };
        Ok(Some(feedback.open(subject, tensors)?))
    }

    /// What is to be met, if something is.
    fn sought(&self, inputs: &Inputs, tensors: &[TensorSpec]) -> Option<Sought> {
        match &self.how {
            How::Wanted(wanted) => Some(Sought::of_file(wanted.goal(inputs.update.bytes()))),
            How::Codec(codec) => {
                let plans = parts::by_tensor(tensors, codec);
                codec.model_goal().map(|goal| Sought::of_vectors(plans, &goal))
            }
        }
    }

    /// Encodes settled vectors into a file that nobody sees yet.
    fn attempt(
        &self,
        inputs: &Inputs,
        values: &Values,
        tensors: &[TensorSpec],
        parts: Vec<encode::Running>,
    ) -> Result<Attempt, CompressError> {
        let failed = |source| CompressError::Encode { path: self.update.clone(), source };
        let target = self.output.clone().unwrap_or_else(|| self.update.clone());
        let unlaid = |source| CompressError::Layout { path: target.clone(), source };
        let design = self.design(inputs, tensors, &parts).map_err(unlaid)?;
        let mut sink = design.begin(self.output.as_deref(), &parts).map_err(unlaid)?;
        let residual = self.residual(values, tensors, &parts)?;
        let keep = |part: &PartPlan, start: usize, left: &[f32]| match &residual {
            Some(residual) => residual.write(self.isa, tensors, part, start, left),
            None => Ok(()),
        };
        let kept: Option<&encode::Residue> = if residual.is_some() { Some(&keep) } else { None };
        let encoding = encode::Encoding { values, parts: &parts, tensors, residue: kept };
        let outcome = encoding.run(&mut sink).map_err(failed)?;
        let finished = design.finish(sink, self.output.as_deref(), &parts, &outcome).map_err(unlaid)?;
        Ok(Attempt { finished, parts, outcome, residual })
    }

    /// Starts what is left for the next round.
    fn residual(
        &self,
        values: &Values,
        tensors: &[TensorSpec],
        parts: &[encode::Running],
    ) -> Result<Option<ResidualWriter>, CompressError> {
        let (Some(feedback), Some(carried), Some(output)) = (&self.feedback, values.carried, &self.output)
        else {
            return Ok(None);
        };
        let codecs: BTreeSet<String> =
            parts.iter().filter_map(|part| part.plan.codec.as_ref()).map(ToString::to_string).collect();
        let codecs = codecs.into_iter().collect::<Vec<_>>().join(" ");
        Ok(Some(ResidualWriter::create(feedback, carried, tensors, &codecs, output)?))
    }

    fn design<'a>(
        &self,
        inputs: &Inputs,
        tensors: &'a [TensorSpec],
        parts: &[encode::Running],
    ) -> Result<Design<'a>, LayoutError> {
        let mut metadata = inputs.update.metadata.clone();
        metadata.remove("format");
        metadata.entry("client_id".to_owned()).or_insert_with(|| inputs.client.clone());
        let base = inputs.base.as_ref().map(|(.., digest)| digest.clone());
        if base.is_some() {
            metadata.insert("kind".to_owned(), UpdateKind::Delta.to_string());
            metadata.remove("base");
        }
        // Tables are added as tensors, so each has to be one.
        let is_linear =
            parts.iter().any(|part| part.plan.codec.as_ref().is_some_and(|codec| codec.is_linear()));
        if is_linear {
            let (key, value) = KIND_SKETCH;
            metadata.insert(key.to_owned(), value.to_owned());
        }
        let layout = FileLayout::Plain;
        let mut design = Design { layout, tensors, naming: Tensors::here(tensors), metadata, base };
        let fits = || Ok::<_, LayoutError>(is_linear || design.is_plain_fit(parts)?);
        let bundled =
            self.layout.map_or_else(|| fits().map(|fits| !fits), |to| Ok(to == FileLayout::Bundle))?;
        if bundled {
            design.layout = FileLayout::Bundle;
            let of_base = |(base, ..): &(ModelFile, Vec<TensorPlace>, Digest)| {
                base.table.iter().map(|place| &place.spec).eq(tensors)
            };
            // Where bytes are counted, names are left to whoever has the base.
            let counts = matches!(self.how, How::Wanted(_));
            if counts && inputs.base.as_ref().is_some_and(of_base) {
                design.naming = Tensors::OfBase(layout_check(tensors));
            }
        }
        Ok(design)
    }
}

impl Made for Attempt {
    fn found(&self) -> Found {
        let mut quality = Quality::default();
        self.outcome.quality.iter().for_each(|part| quality.add(part));
        Found { bytes: self.finished.bytes, nmse: quality.measures().nmse }
    }

    fn vector_bytes(&self) -> u64 {
        let vectors =
            self.parts.iter().zip(&self.outcome.chunks).filter(|(part, _)| part.plan.codec.is_some());
        vectors.map(|(part, chunks)| part.bytes(chunks)).sum()
    }

    fn negative_variances(&self) -> u64 {
        self.outcome.negative_variances
    }
}
