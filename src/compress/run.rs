//! Compresses one update, file to file, in the memory of a few chunks.
//!
//! The run opens the inputs, settles how each vector is encoded, makes files until one meets the goal, and publishes
//! it.

use crate::codecs::directory::{Tensors, layout_check};
use crate::codecs::{Vector, compressed_tensors};
use crate::compress::attempt::Attempt;
use crate::compress::auto::{self, Objective};
use crate::compress::encode::{self, PartEncoder};
use crate::compress::error::CompressError;
use crate::compress::inputs::Inputs;
use crate::compress::method::{CompressionMethod, Targets};
use crate::compress::offload::Offload;
use crate::compress::parts::{self, PartPlan};
use crate::compress::residual::error::{Expansion, ResidualError};
use crate::compress::residual::stored::Subject;
use crate::compress::residual::writer::ResidualWriter;
use crate::compress::residual::{CarryOver, Feedback};
use crate::compress::sink::LayoutError;
use crate::compress::summary::Summary;
use crate::compress::values::{NonFinite, Values};
use crate::compress::writer::{Design, FileLayout, FinishedFile};
use crate::io::collision::{self, StagedText, publish_text};
use crate::io::digest::{self, Digest};
use crate::io::interrupt::Section;
use crate::io::model_file::{ModelFile, TensorPlace};
use crate::io::model_writer::{self, WriteError};
use crate::io::publish::{self, Staged, remove_leftovers, settle_directory_of};
use crate::io::source::SourceFile;
use crate::kernels::lanes::Isa;
use crate::model::layout::TensorSpec;
use crate::updates::encoded::KIND_SKETCH;
use crate::updates::metadata::UpdateKind;
use rayon::ThreadPool;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A request to compress one update.
#[derive(Clone, Debug)]
pub struct Compression {
    /// The update: weights, or a delta.
    pub update: PathBuf,
    /// The model to subtract from weights; `None` sends the values as they are.
    pub base: Option<PathBuf>,
    /// Whether weights may be sent by a codec that leaves values out or pulls them towards zero.
    pub as_is: bool,
    /// How to compress it.
    pub method: CompressionMethod,
    /// The seed of the random numbers, of the client's own and of those that all clients share.
    pub seed: u64,
    /// What to do with values that are not finite.
    pub non_finite: NonFinite,
    /// The layout of the file; `None` takes a bundle where a plain header would be over 2 % of the data.
    pub layout: Option<FileLayout>,
    /// The residual to add to this update and to rewrite after it; `None` for no error feedback.
    pub feedback: Option<Feedback>,
    /// Where to write the `quantization_config` of compressed-tensors; `None` writes none.
    pub config: Option<PathBuf>,
    /// Where to publish the compressed update; `None` only measures.
    pub output: Option<PathBuf>,
    /// The instruction set to compute with.
    pub isa: Isa,
    /// The device for codecs that have shaders; `None` computes on the CPU.
    pub device: Option<Arc<Offload>>,
}

impl Compression {
    /// A request that only measures: no base, no residual, no output, on the CPU.
    pub fn new(update: PathBuf, method: CompressionMethod) -> Self {
        Self {
            update,
            base: None,
            as_is: false,
            method,
            seed: 0,
            non_finite: NonFinite::Error,
            layout: None,
            feedback: None,
            config: None,
            output: None,
            isa: Isa::detect(),
            device: None,
        }
    }

    /// Compresses the update and publishes the file.
    ///
    /// # Errors
    ///
    /// When inputs cannot be used or the output cannot be written. Then nothing is published.
    pub fn run(&self, pool: &ThreadPool) -> Result<Summary, CompressError> {
        if let Some(output) = &self.output {
            model_writer::check_target(output)?;
            remove_leftovers(output).map_err(WriteError::at(output))?;
        }
        let inputs = Inputs::open(&self.update, self.base.as_deref(), pool)?;
        let outputs: Vec<PathBuf> = self.output.iter().chain(&self.config).cloned().collect();
        inputs.check_outputs(&outputs)?;
        self.check_kind(&inputs)?;
        self.check_target(inputs.update.bytes())?;
        let tensors = inputs.tensors();
        let _locked = self.lock(&inputs)?;
        let carried = self.carried(&inputs, &tensors)?;
        let values = inputs.values(self.isa, self.non_finite, carried.as_ref());
        let mut attempt = pool.install(|| self.best_attempt(&inputs, &values, &tensors))?;
        if let Some(device) = &self.device {
            device.check()?;
        }
        if let (Some(feedback), Some(carried)) = (&self.feedback, &carried) {
            check_feedback(feedback, carried, &attempt, &tensors)?;
        }
        let summary = Summary::of(&inputs, &attempt, &self.method, self.output.as_deref());
        let mut staged = attempt.file.staged.take();
        if summary.missed.is_some() && !self.method.is_best_effort() {
            staged = None;
        }
        inputs.check_unchanged()?;
        if let (Some(output), Some(staged)) = (&self.output, staged) {
            let residual =
                attempt.residual.take().map(|residual| (residual, attempt.quality().errors.sqrt()));
            let config = self.config_of(&attempt, &tensors)?;
            pool.install(|| self.publish(output, staged, config, &attempt.file, residual))?;
        }
        Ok(summary)
    }

    /// The attempt that meets the goal best. If the codec has no goal, there is only one attempt.
    fn best_attempt(
        &self,
        inputs: &Inputs,
        values: &Values,
        tensors: &[TensorSpec],
    ) -> Result<Attempt, CompressError> {
        let settle = |plans| {
            let seeds = |part: usize| inputs.seeds(self.seed, part);
            encode::settle(values, plans, tensors, seeds)
                .map_err(|source| CompressError::encode(values, source))
        };
        let make = |parts| self.attempt(inputs, values, tensors, parts);
        let objective = match &self.method {
            CompressionMethod::Targets(targets) => Objective::of_file(targets.goal(inputs.update.bytes())),
            CompressionMethod::Codec(codec) => match codec.model_goal() {
                Some(goal) => Objective::of_vectors(parts::by_tensor(tensors, codec), &goal),
                None => {
                    let offloaded = self.device.as_ref().map(|device| device.to(codec));
                    return make(settle(parts::by_tensor(tensors, offloaded.as_ref().unwrap_or(codec)))?);
                }
            },
        };
        auto::meet(&objective, values, tensors, settle, make)
    }

    /// Checks that a file at the target ratio has at least a byte.
    fn check_target(&self, bytes: u64) -> Result<(), CompressError> {
        match &self.method {
            CompressionMethod::Targets(Targets { ratio: Some(ratio), best_effort: false, .. })
                if *ratio > bytes as f64 =>
            {
                Err(CompressError::NothingLeft { path: self.update.clone(), bytes, ratio: *ratio })
            }
            _ => Ok(()),
        }
    }

    /// Up to `most` values of the largest tensor that a codec would encode: its first rows. `None` without such a
    /// tensor.
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

    /// The staged configuration for compressed-tensors, if the request asks for one.
    fn config_of(&self, attempt: &Attempt, tensors: &[TensorSpec]) -> Result<StagedText, CompressError> {
        let Some(path) = &self.config else { return Ok(None) };
        let is_plain = self.layout == Some(FileLayout::Plain);
        let matrices = attempt.parts.iter().filter_map(|part| match part.plan.tensors[..] {
            [only] if is_plain => Some((tensors[only].name.as_str(), &part.coding, &part.plan.vector)),
            _ => None,
        });
        let config = compressed_tensors::config(matrices)
            .ok_or_else(|| CompressError::NoConfig { path: self.update.clone(), config: path.clone() })?;
        Ok(collision::stage_text(path, format!("{config:#}\n").as_bytes(), publish::stage)?)
    }

    /// Publishes the configuration and the file, and with it the residual that it leaves for the next round.
    fn publish(
        &self,
        output: &Path,
        staged: Staged,
        config: StagedText,
        file: &FinishedFile,
        residual: Option<(ResidualWriter, f64)>,
    ) -> Result<(), CompressError> {
        let at = || WriteError::at(output);
        staged.sync().map_err(at())?;
        if let Some((residual, norm)) = residual {
            let read = |chunk: &mut [u8], offset| staged.read_at(chunk, offset);
            residual.publish(&digest::sha256(file.bytes, read).map_err(at())?, norm)?;
        }
        let _whole = Section::enter();
        publish_text(config)?;
        staged.publish(output).map_err(at())?;
        settle_directory_of(output);
        if let Some(Err(why)) = self.feedback.as_ref().map(Feedback::promote) {
            tracing::warn!("{why}: the next run with this residual renames it");
        }
        Ok(())
    }

    /// Locks the residual for a run that rewrites it. Checks that no other file has its path.
    fn lock(&self, inputs: &Inputs) -> Result<Option<Staged>, CompressError> {
        let Some(feedback) = &self.feedback else { return Ok(None) };
        let named = [Some(self.update.as_path()), self.base.as_deref(), self.output.as_deref()];
        feedback.check(inputs.files().map(SourceFile::path).chain(named.into_iter().flatten()))?;
        Ok(self.output.is_some().then(|| feedback.lock()).transpose()?)
    }

    /// Checks that what is sent is not another model: weights of which some are left out or pulled towards zero.
    fn check_kind(&self, inputs: &Inputs) -> Result<(), CompressError> {
        let is_delta = self.base.is_some() || inputs.about.kind == UpdateKind::Delta;
        if is_delta || self.as_is || self.output.is_none() {
            return Ok(());
        }
        let codec = match &self.method {
            CompressionMethod::Codec(codec) if !codec.shrinks() => return Ok(()),
            CompressionMethod::Codec(codec) => codec.to_string(),
            CompressionMethod::Targets(_) => "a codec chosen for a target".to_owned(),
        };
        Err(CompressError::PlainWeights { path: self.update.clone(), codec })
    }

    /// The residual of earlier rounds, if the request has error feedback.
    fn carried(&self, inputs: &Inputs, tensors: &[TensorSpec]) -> Result<Option<CarryOver>, CompressError> {
        let Some(feedback) = &self.feedback else { return Ok(None) };
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

    /// Encodes settled vectors into a file that is not published yet.
    fn attempt(
        &self,
        inputs: &Inputs,
        values: &Values,
        tensors: &[TensorSpec],
        parts: Vec<PartEncoder>,
    ) -> Result<Attempt, CompressError> {
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
        let outcome = encoding.run(&mut sink).map_err(|source| CompressError::encode(values, source))?;
        let file = design.finish(sink, self.output.as_deref(), &parts, &outcome).map_err(unlaid)?;
        Ok(Attempt { file, parts, outcome, residual })
    }

    /// Starts the file of the residual, if the request has error feedback and an output.
    fn residual(
        &self,
        values: &Values,
        tensors: &[TensorSpec],
        parts: &[PartEncoder],
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

    /// The layout of the file, and what it says of the update.
    fn design<'a>(
        &self,
        inputs: &Inputs,
        tensors: &'a [TensorSpec],
        parts: &[PartEncoder],
    ) -> Result<Design<'a>, LayoutError> {
        let mut metadata = inputs.update.metadata.clone();
        metadata.remove("format");
        metadata.entry("client_id".to_owned()).or_insert_with(|| inputs.client.clone());
        let base = inputs.base.as_ref().map(|(.., digest)| digest.clone());
        if base.is_some() {
            metadata.insert("kind".to_owned(), UpdateKind::Delta.to_string());
            metadata.remove("base");
        } else if self.as_is {
            metadata.entry("kind".to_owned()).or_insert_with(|| UpdateKind::Weights.to_string());
        }
        // The server adds tables as tensors, so each table must be a tensor.
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
            // A file made to a target leaves the names of its tensors to the base.
            let counts = matches!(self.method, CompressionMethod::Targets(_));
            if counts && inputs.base.as_ref().is_some_and(of_base) {
                design.naming = Tensors::OfBase(layout_check(tensors));
            }
        }
        Ok(design)
    }
}

/// The excess of an error over the vector that is rounding alone.
const ROUNDING: f64 = 1e-6;

/// Checks that error feedback stays bounded: every vector is sent with an error below the vector itself.
fn check_feedback(
    feedback: &Feedback,
    carried: &CarryOver,
    attempt: &Attempt,
    tensors: &[TensorSpec],
) -> Result<(), CompressError> {
    for (part, quality) in attempt.parts.iter().zip(&attempt.outcome.quality) {
        let Some(codec) = part.plan.codec.as_ref().filter(|_| quality.squares > 0.0) else { continue };
        let expected = codec.expected_nmse(&part.plan.vector).filter(|_| !part.is_constant());
        let nmse = quality.nmse().max(expected.unwrap_or(0.0));
        if nmse > 1.0 + ROUNDING {
            let (scale, scaled_nmse) = quality.best_scale();
            let tensor =
                part.plan.tensors.first().map_or(String::new(), |first| tensors[*first].name.clone());
            let (path, codec, contracting) = (feedback.path.clone(), codec.to_string(), codec.contracting());
            let expansion = Expansion { path, tensor, codec, nmse, scale, scaled_nmse, contracting };
            return Err(ResidualError::from(Box::new(expansion)).into());
        }
    }
    carried.check_norm(&feedback.path, attempt.quality().errors.sqrt())?;
    Ok(())
}
