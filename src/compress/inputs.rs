//! Opens and checks what a compression reads: the update, its base, and their metadata.

use crate::codecs::directory::FORMAT_KEY;
use crate::codecs::{Seeds, Vector};
use crate::compress::error::CompressError;
use crate::compress::parts::{self, PartPlan};
use crate::compress::residual::CarryOver;
use crate::compress::values::{NonFinite, Values};
use crate::io::collision;
use crate::io::digest::Digest;
use crate::io::discover::{model_at, stem};
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, OpenFault, TablePool, TensorPlace, check_is_whole};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::lanes::Isa;
use crate::model::layout::TensorSpec;
use crate::updates::metadata::{OtherPurpose, UpdateKind, UpdateMetadata};
use rayon::ThreadPool;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The checked inputs of a compression.
pub(crate) struct Inputs {
    pub(crate) update: ModelFile,
    /// The base: the model, the place of each tensor of the update in it, and its digest.
    pub(crate) base: Option<(ModelFile, Vec<TensorPlace>, Digest)>,
    pub(crate) about: UpdateMetadata,
    /// The client id, from the metadata or the file name.
    pub(crate) client: String,
}

impl Inputs {
    /// Opens an update and its base.
    pub(crate) fn open(path: &Path, base: Option<&Path>, pool: &ThreadPool) -> Result<Self, CompressError> {
        let files = OpenFiles::raise_limit();
        let update = open_unencoded(path, &files, &Limits::TO_COMPRESS)?;
        let (about, faults) = UpdateMetadata::parse(&update.metadata);
        if !faults.is_empty() {
            return Err(CompressError::Metadata { path: path.to_owned(), faults: faults.into() });
        }
        if let Some(fault) = OtherPurpose::of(&update.metadata) {
            return Err(CompressError::OtherPurpose { path: path.to_owned(), fault });
        }
        let client = about.client_id.clone().unwrap_or_else(|| stem(path));
        let Some(base) = base else { return Ok(Self { update, base: None, about, client }) };
        if about.kind == UpdateKind::Delta {
            return Err(CompressError::IsDelta { path: path.to_owned() });
        }
        let model = open_unencoded(base, &files, &Limits::TRUSTED)?;
        let places = places(&update, &model)?;
        let digest = pool
            .install(|| Digest::of(&model.files))
            .map_err(|source| CompressError::Read { path: base.to_owned(), source })?;
        Ok(Self { update, base: Some((model, places, digest)), about, client })
    }

    /// The tensors of the update, in the order of their data.
    pub(crate) fn tensors(&self) -> Vec<TensorSpec> {
        self.update.table.iter().map(|place| place.spec.clone()).collect()
    }

    /// All files of the update and the base.
    pub(crate) fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.update.files.iter().chain(self.base.iter().flat_map(|(base, ..)| &base.files))
    }

    /// Checks that no output is an input, or another output.
    pub(crate) fn check_outputs(&self, outputs: &[PathBuf]) -> Result<(), CompressError> {
        let models = std::iter::once(&self.update).chain(self.base.iter().map(|(base, ..)| base));
        let named = models.filter_map(|model| identity_of(&model.path));
        let read: Vec<(u64, u64)> = self.files().map(SourceFile::identity).chain(named).collect();
        Ok(collision::check(outputs, &read)?)
    }

    /// Checks that no file changed since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), CompressError> {
        let check = |file: &SourceFile| {
            file.check_unchanged()
                .map_err(|source| CompressError::Read { path: file.path().to_owned(), source })
        };
        self.files().try_for_each(check)
    }

    /// The values to send.
    pub(crate) fn values<'a>(
        &'a self,
        isa: Isa,
        non_finite: NonFinite,
        carried: Option<&'a CarryOver>,
    ) -> Values<'a> {
        let base = self.base.as_ref().map(|(model, places, _)| (model, &places[..]));
        Values { isa, update: &self.update, base, non_finite, carried }
    }

    /// The seeds of a part. Each client has its own, so that the errors of clients average out.
    pub(crate) fn seeds(&self, seed: u64, part: usize) -> Seeds {
        let client = &self.client;
        let draw = |what: &str| {
            let hash = blake3::hash(format!("fedmill.seed {seed} {part} {what}").as_bytes());
            hash.as_bytes().iter().take(8).fold(0u64, |seed, byte| seed << 8 | u64::from(*byte))
        };
        let own = draw(&format!("own {client} {:?}", self.about.round));
        // Metadata with a round makes another choice every round; without it some values would never be sent.
        Seeds { own, shared: draw(&format!("shared {:?}", self.about.round)) }
    }

    /// Up to `most` values of the largest tensor that a codec would encode: its first rows. `None` without such a
    /// tensor.
    pub(crate) fn sample(
        &self,
        most: usize,
        isa: Isa,
        non_finite: NonFinite,
    ) -> Result<Option<(Vector, Vec<f32>)>, CompressError> {
        let tensors = self.tensors();
        let encoded = tensors.iter().enumerate().filter(|(_, spec)| parts::is_encoded(spec));
        let Some((number, spec)) = encoded.max_by_key(|(_, spec)| spec.len) else { return Ok(None) };
        let rows = spec.shape[0];
        let rows = (most / (spec.len / rows)).clamp(1, rows);
        let mut shape = spec.shape.clone();
        shape[0] = rows;
        let len = (spec.len / spec.shape[0] * rows).min(most);
        let mut values = vec![0.0; len];
        let part = PartPlan::new(vec![number], &tensors, None);
        self.values(isa, non_finite, None)
            .read(&part, 0, &mut values)
            .map_err(|why| CompressError::Encode { path: self.update.path.clone(), source: why.into() })?;
        let shape = if shape.iter().product::<usize>() == len { shape } else { vec![len] };
        Ok(Some((Vector { len, shape }, values)))
    }
}

/// Opens a model of the user that must not be encoded: a file, an index, or a folder with one model.
fn open_unencoded(path: &Path, files: &OpenFiles, limits: &Limits) -> Result<ModelFile, CompressError> {
    let open = || {
        let path = model_at(path).map_err(OpenFault::from)?;
        check_is_whole(&path)?;
        ModelFile::open(&path, files, &TablePool::default(), limits)
    };
    let model = open().map_err(|faults| CompressError::Open { path: path.to_owned(), faults })?;
    match model.metadata.contains_key(FORMAT_KEY) {
        true => Err(CompressError::Encoded { path: path.to_owned() }),
        false => Ok(model),
    }
}

/// The place of each tensor of the update in the base.
fn places(update: &ModelFile, base: &ModelFile) -> Result<Vec<TensorPlace>, CompressError> {
    let by_name: HashMap<&str, &TensorPlace> =
        base.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
    let place = |ours: &TensorPlace| {
        let spec = &ours.spec;
        let theirs = by_name.get(spec.name.as_str());
        let fits = |theirs: &&&TensorPlace| {
            theirs.spec.shape == spec.shape && spec.dtype.converts_to(theirs.spec.dtype)
        };
        theirs.filter(fits).map(|place| (*place).clone()).ok_or_else(|| CompressError::OtherTensor {
            path: update.path.clone(),
            tensor: spec.name.clone(),
            found: format!("{} {:?}", spec.dtype, spec.shape),
            expected: theirs
                .map_or("none".to_owned(), |theirs| format!("{} {:?}", theirs.spec.dtype, theirs.spec.shape)),
        })
    };
    update.table.iter().map(place).collect()
}
