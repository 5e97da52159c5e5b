//! Writes the residual that an update leaves.

use crate::compress::parts::PartPlan;
use crate::compress::residual::error::ResidualError;
use crate::compress::residual::stored::{NO_DIGEST, key, norms_as_text};
use crate::compress::residual::{CarryOver, Feedback, GROWTH_ROUNDS, ResidualDtype};
use crate::io::digest::seal;
use crate::io::model_writer::{WriteError, header_bytes};
use crate::io::publish::{self, Staged};
use crate::kernels::convert::encode;
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::TensorSpec;
use crate::model::tile::TileBuffer;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The file of a new residual. Values that are never written are zero.
#[derive(Debug)]
pub(crate) struct ResidualWriter {
    next: PathBuf,
    staged: Staged,
    bytes: u64,
    /// The float tensors of the update.
    specs: Vec<TensorSpec>,
    /// First byte of each tensor of the update; `None` for tensors that are not float.
    places: Vec<Option<u64>>,
    metadata: BTreeMap<String, String>,
    /// The norms of the last residuals. The last place is for that of this one.
    norms: Vec<f64>,
}

impl ResidualWriter {
    /// Starts the residual of an update that is encoded by `codec` into `output`.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub(crate) fn create(
        feedback: &Feedback,
        carried: &CarryOver,
        tensors: &[TensorSpec],
        codec: &str,
        output: &Path,
    ) -> Result<Self, ResidualError> {
        let CarryOver { subject, from, .. } = carried;
        let kept = from.as_ref().map(|(kept, _)| kept);
        // The last place is for the norm of this residual.
        let norms = carried.norms().iter().copied().chain([0.0]).collect::<Vec<f64>>();
        let norms = norms[norms.len().saturating_sub(GROWTH_ROUNDS)..].to_vec();
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut metadata = BTreeMap::from([
            (key::CLIENT, subject.client.clone()),
            (key::STEPS, (kept.map_or(0, |kept| kept.steps) + 1).to_string()),
            (key::CODEC, codec.to_owned()),
            (key::DECAY, feedback.decay.to_string()),
            (key::INPUT, subject.input_sha256.clone()),
            (key::OUTPUT, name),
            (key::UPDATE, NO_DIGEST.to_owned()),
            (key::NORMS, norms_as_text(&norms)),
            (key::FOLLOWS, kept.map_or(NO_DIGEST, |kept| &kept.update).to_owned()),
        ]);
        metadata.extend(subject.round.map(|round| (key::ROUND, round.to_string())));
        metadata.extend(subject.local_lr.map(|lr| (key::LOCAL_LR, lr.to_string())));
        metadata.extend(subject.base_sha256.clone().map(|base| (key::BASE, base)));
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        let metadata = seal::with_room(metadata.collect());
        let dtype = match feedback.dtype {
            ResidualDtype::F32 => Dtype::F32,
            ResidualDtype::Bf16 => Dtype::BF16,
        };
        let is_float = |spec: &&TensorSpec| spec.dtype.kind() == Kind::Float;
        let specs: Vec<TensorSpec> =
            tensors.iter().filter(is_float).map(|spec| TensorSpec { dtype, ..spec.clone() }).collect();
        let mut end = header_bytes(&specs, &metadata).len() as u64;
        let mut place = |spec: &TensorSpec| {
            let start = end;
            end += (spec.len * dtype.bytes()) as u64;
            start
        };
        let places = tensors.iter().map(|spec| is_float(&spec).then(|| place(spec))).collect();
        let next = feedback.next();
        let staged = Staged::create_private(&next, end).map_err(WriteError::at(&next))?;
        Ok(Self { next, staged, bytes: end, specs, places, metadata, norms })
    }

    /// Writes the residual of a part's values from `start` on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn write(
        &self,
        isa: Isa,
        tensors: &[TensorSpec],
        part: &PartPlan,
        start: usize,
        left: &[f32],
    ) -> io::Result<()> {
        let Some(dtype) = self.specs.first().map(|spec| spec.dtype) else { return Ok(()) };
        let size = dtype.bytes();
        let mut stored = TileBuffer::new(1, left.len() * size);
        let mut bytes = &mut stored.row_mut(0)[..left.len() * size];
        encode(isa, dtype, left, bytes);
        for piece in part.pieces(start, left.len(), |tensor| tensors[tensor].len) {
            let (of, behind) = bytes.split_at_mut(piece.len * size);
            if let Some(place) = self.places[piece.tensor] {
                self.staged.write_at(of, place + (piece.start * size) as u64)?;
            }
            bytes = behind;
        }
        Ok(())
    }

    /// Syncs the residual of the update with this digest and this norm as `FILE.next`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn publish(mut self, update_sha256: &str, norm: f64) -> Result<(), ResidualError> {
        if let Some(last) = self.norms.last_mut() {
            *last = norm;
        }
        self.metadata.insert(key::NORMS.to_owned(), norms_as_text(&self.norms));
        self.metadata.insert(key::UPDATE.to_owned(), update_sha256.to_owned());
        let header = header_bytes(&self.specs, &self.metadata);
        let publish = || {
            self.staged.write_at(&header, 0)?;
            seal::fill(&[(&self.staged, self.bytes)])?;
            self.staged.sync()?;
            self.staged.publish(&self.next)?;
            publish::sync_directory_of(&self.next)
        };
        Ok(publish().map_err(WriteError::at(&self.next))?)
    }
}
