//! Decompresses one update to the plain file that `aggregate` would see, on the CPU or with a GPU.

use crate::codecs::Device;
use crate::codecs::device::AT_ONCE;
use crate::codecs::directory::{CODEC_KEY, FORMAT_KEY};
use crate::compress::offload::Offload;
use crate::gpu::job::GpuError;
use crate::io::collision::{self, Collision};
use crate::io::interrupt;
use crate::io::limits::Decoded;
use crate::io::model_file::{ENCODED, ModelFile, OpenFault, TablePool, TensorPlace};
use crate::io::model_files;
use crate::io::model_writer::{self, ModelWriter, WriteError};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::convert::encode;
use crate::kernels::lanes::Isa;
use crate::model::faults::Faults;
use crate::model::layout::{Layout, Piece};
use crate::model::tile::TileBuffer;
use crate::telemetry::explain::Explain;
use crate::updates::encoded::{KIND_SKETCH, limits, open_plain, open_within};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Values that the CPU decodes at a time.
const CHUNK: usize = crate::codecs::CHUNK;

/// A request to decompress one update.
#[derive(Debug)]
pub struct Decompression {
    /// The encoded update.
    pub update: PathBuf,
    /// The base, for an update that leaves the names of its tensors to it.
    pub base: Option<PathBuf>,
    /// The most bytes to write; `None` for what the base allows, or without one a multiple of the update's bytes.
    pub max_bytes: Option<u64>,
    /// Where to publish the plain update.
    pub output: PathBuf,
    /// The instruction set to compute with.
    pub isa: Isa,
    /// A GPU that decodes. It changes no byte of the file.
    pub device: Option<Arc<Offload>>,
}

/// Why an update was not decompressed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DecompressError {
    #[error("{}: {}", .path.display(), .faults)]
    Open { path: PathBuf, faults: Faults<OpenFault> },
    #[error("{}: is not encoded, expected an update from `fedmill compress`", .path.display())]
    NotEncoded { path: PathBuf },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error(transparent)]
    Device(#[from] GpuError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Explain for DecompressError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Open { faults, .. } => faults.iter().find_map(OpenFault::hint).map(str::to_owned),
            Self::Device(why) => why.hint().map(str::to_owned),
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Write(WriteError::Interrupted(interrupted)) => Some(interrupted.signal),
            _ => None,
        }
    }
}

impl Decompression {
    /// Publishes the plain update. Returns its path.
    ///
    /// # Errors
    ///
    /// When files cannot be read or written, the update is not encoded, or the GPU fails or has no shaders for the
    /// update. Then nothing is published.
    pub fn run(&self, pool: &ThreadPool) -> Result<PathBuf, DecompressError> {
        model_writer::check_target(&self.output)?;
        let files = OpenFiles::raise_limit();
        let tables = TablePool::default();
        let cannot = |path: &Path| {
            let path = path.to_owned();
            |faults| DecompressError::Open { path, faults }
        };
        let base = self.base.as_ref().map(|path| open_plain(path, &files, &tables).map_err(cannot(path)));
        let base = base.transpose()?;
        let base_table = base.as_ref().map(|base| &*base.table);
        let mut limits = limits(base_table);
        if let Some(most) = self.max_bytes {
            limits.decoded = Decoded::Bytes(most);
        }
        let device = self.device.clone().map(|device| device as Arc<dyn Device>);
        let update = open_within(&self.update, &files, &tables, base_table, &limits, device);
        let update = update.map_err(cannot(&self.update))?;
        if update.decoder.is_none() {
            return Err(DecompressError::NotEncoded { path: self.update.clone() });
        }
        self.check_output(&update, base.as_ref())?;
        let layout = Layout::new(update.table.iter().map(|place| place.spec.clone()).collect());
        let mut metadata = update.metadata.clone();
        metadata.retain(|key, _| ![FORMAT_KEY, CODEC_KEY, KIND_SKETCH.0].contains(&key.as_str()));
        let writer = ModelWriter::create(&self.output, &layout, &metadata, None)?;
        let at_once = if self.device.is_some() { AT_ONCE } else { CHUNK };
        let pieces: Vec<Piece> = pieces(&layout, at_once).collect();
        pool.install(|| pieces.par_iter().try_for_each(|piece| self.write(&update, &writer, *piece)))?;
        if let Some(device) = &self.device {
            device.check()?;
        }
        for file in &update.files {
            file.check_unchanged().map_err(unreadable(file))?;
        }
        writer.sync()?;
        let path = writer.path().to_owned();
        writer.publish()?;
        Ok(path)
    }

    fn check_output(&self, update: &ModelFile, base: Option<&ModelFile>) -> Result<(), DecompressError> {
        let models = || std::iter::once(update).chain(base);
        let named = models().filter_map(|model| identity_of(&model.path));
        let files = models().flat_map(|model| &model.files).map(SourceFile::identity);
        let read: Vec<(u64, u64)> = files.chain(named).collect();
        let family = model_files::family(&self.output).map_err(WriteError::at(&self.output))?;
        Ok(collision::check(&family, &read)?)
    }

    fn write(&self, update: &ModelFile, writer: &ModelWriter, piece: Piece) -> Result<(), DecompressError> {
        interrupt::check().map_err(WriteError::from)?;
        let TensorPlace { spec, file, offset } = &update.table[piece.tensor];
        let size = spec.dtype.bytes();
        let mut stored = TileBuffer::new(1, piece.len * size);
        let bytes = &mut stored.row_mut(0)[..piece.len * size];
        match &update.decoder {
            Some(decoder) if *file == ENCODED => {
                let mut values = vec![0.0f32; piece.len];
                decoder
                    .decode(&update.files, piece.tensor, piece.start, &mut values)
                    .map_err(|source| DecompressError::Read { path: self.update.clone(), source })?;
                encode(self.isa, spec.dtype, &values, bytes);
            }
            _ => {
                let source = &update.files[*file];
                source
                    .read_values_at(bytes, offset + (piece.start * size) as u64)
                    .map_err(unreadable(source))?;
            }
        }
        Ok(writer.write(std::iter::once(piece), bytes)?)
    }
}

fn unreadable(file: &SourceFile) -> impl FnOnce(io::Error) -> DecompressError {
    let path = file.path().to_owned();
    move |source| DecompressError::Read { path, source }
}

fn pieces(layout: &Layout, at_once: usize) -> impl Iterator<Item = Piece> {
    layout.tensors().iter().enumerate().flat_map(move |(tensor, spec)| {
        let len = spec.len;
        (0..len).step_by(at_once).map(move |start| Piece { tensor, start, len: at_once.min(len - start) })
    })
}
