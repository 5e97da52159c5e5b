//! Opens updates whatever their encoding, and decodes tiles of them in place.

use crate::codecs::directory::{BUNDLE, CODEC_KEY, Directory, FORMAT, FORMAT_KEY, Most, PartStreams};
use crate::codecs::{self, Coding, Device, Extent, Invalid};
use crate::io::digest::hex;
use crate::io::discover::model_at;
use crate::io::limits::Limits;
use crate::io::model_file::{
    Decoder, ENCODED, ModelFile, OpenFault, TablePool, TensorPlace, TensorTable, check_is_whole,
};
use crate::io::source::{OpenFiles, SourceFile};
use crate::kernels::convert::{decode, encode};
use crate::kernels::lanes::Isa;
use crate::model::dtype::Dtype;
use crate::model::faults::Faults;
use crate::model::layout::TensorSpec;
use crate::model::sparsity::Sparsity;
use crate::model::tile::TileBuffer;
use crate::updates::part::{EncodedPart, PartError, StreamPlace};
use crate::updates::streams::{Bundle, Plain, StreamLayout, read_directory};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much an update may ask for: what its base allows, or without one a default.
pub fn limits(base: Option<&TensorTable>) -> Limits {
    base.map_or(Limits::UNKNOWN, |table| Limits::of_layout(table.iter().map(|place| &place.spec)))
}

/// Opens an update and checks its header and directory. Reads no values. An encoded update shows the tensors that it
/// decodes to; `base` has the tensors of an update that leaves their names to its base.
///
/// # Errors
///
/// Every fault found.
pub fn open(
    path: &Path,
    files: &OpenFiles,
    tables: &TablePool,
    base: Option<&TensorTable>,
) -> Result<ModelFile, Faults<OpenFault>> {
    open_within(path, files, tables, base, &limits(base), None)
}

/// Opens an update as [`open`], within other limits than its base allows. If there is a device, it decodes.
///
/// # Errors
///
/// Every fault found; one is an encoding of which the device decodes nothing.
pub fn open_within(
    path: &Path,
    files: &OpenFiles,
    tables: &TablePool,
    base: Option<&TensorTable>,
    limits: &Limits,
    device: Option<Arc<dyn Device>>,
) -> Result<ModelFile, Faults<OpenFault>> {
    let (model, encoded) = open_encoded(path, files, tables, base, limits)?;
    let Some(encoded) = encoded else { return Ok(model) };
    if device.is_some() {
        encoded.check_has_shaders()?;
    }
    Ok(decoded(model, Encoded { device, ..encoded }, tables))
}

/// Opens the files of an update. Also returns its directory if it is encoded; the model then has the client's metadata.
fn open_encoded(
    path: &Path,
    files: &OpenFiles,
    tables: &TablePool,
    base: Option<&TensorTable>,
    limits: &Limits,
) -> Result<(ModelFile, Option<Encoded>), Faults<OpenFault>> {
    check_is_whole(path)?;
    let mut model = ModelFile::open(path, files, tables, limits)?;
    let encoded = Encoded::of(&model, base, limits).map_err(bad)?;
    if let Some(encoded) = &encoded {
        model.metadata.append(&mut encoded.metadata.clone());
    }
    Ok((model, encoded))
}

/// The model that an encoded update decodes to.
fn decoded(mut model: ModelFile, mut encoded: Encoded, tables: &TablePool) -> ModelFile {
    encoded.table = tables.share(Arc::unwrap_or_clone(encoded.table));
    tables.forget(std::mem::replace(&mut model.table, Arc::clone(&encoded.table)));
    // The directory is read: its text would only take memory.
    model.metadata.remove(CODEC_KEY);
    model.decoder = Some(Arc::new(encoded));
    model
}

/// Opens an update for a merge. A sketch shows its tables, whose sum over clients is the sketch of the sum; any other
/// update is opened as by [`open`].
///
/// # Errors
///
/// Every fault found.
pub fn open_to_merge(
    path: &Path,
    files: &OpenFiles,
    tables: &TablePool,
    base: Option<&TensorTable>,
    limits: &Limits,
) -> Result<ModelFile, Faults<OpenFault>> {
    let (model, encoded) = open_encoded(path, files, tables, base, limits)?;
    let Some(encoded) = encoded else { return Ok(model) };
    if encoded.is_sketch().map_err(bad)? {
        // All other tensors of a sketch are raw, so a merge takes the tensors of the file.
        return if model.metadata.contains_key(CODEC_KEY) { Ok(model) } else { Err(bad(no_tables())) };
    }
    Ok(decoded(model, encoded, tables))
}

fn no_tables() -> Invalid {
    Invalid::new("it is a sketch in a bundle, expected a tensor for each table (--layout plain)")
}

/// The directory of a sketch that [`open_to_merge`] opened; `None` for any other update. Sketches can be added if they
/// have the same directory.
pub fn sketched(model: &ModelFile) -> Option<&str> {
    let is_sketch = model.decoder.is_none() && model.metadata.contains_key(FORMAT_KEY);
    model.metadata.get(CODEC_KEY).filter(|_| is_sketch).map(String::as_str)
}

/// The metadata of a merged sketch, which is a sketch again.
pub fn sketch_metadata(by: &str) -> [(String, String); 3] {
    [(FORMAT_KEY, FORMAT), (CODEC_KEY, by), KIND_SKETCH]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// The metadata that marks a sketch.
pub(crate) const KIND_SKETCH: (&str, &str) = ("fedmill.kind", "sketch");

/// Opens a model of the operator that must be plain, such as a base: a file, an index, or a folder with one model.
///
/// # Errors
///
/// Every fault found. An encoded model is one.
pub fn open_plain(
    path: &Path,
    files: &OpenFiles,
    tables: &TablePool,
) -> Result<ModelFile, Faults<OpenFault>> {
    let path = model_at(path).map_err(OpenFault::from)?;
    check_is_whole(&path)?;
    plain(ModelFile::open(&path, files, tables, &Limits::TRUSTED)?)
}

/// Opens a model of a client that must be plain, within limits.
///
/// # Errors
///
/// Every fault found. An encoded model is one.
pub fn open_plain_within(
    path: &Path,
    files: &OpenFiles,
    tables: &TablePool,
    limits: &Limits,
) -> Result<ModelFile, Faults<OpenFault>> {
    check_is_whole(path)?;
    plain(ModelFile::open(path, files, tables, limits)?)
}

fn plain(model: ModelFile) -> Result<ModelFile, Faults<OpenFault>> {
    match model.metadata.contains_key(FORMAT_KEY) {
        true => Err(OpenFault::Encoded.into()),
        false => Ok(model),
    }
}

fn bad(why: Invalid) -> Faults<OpenFault> {
    OpenFault::BadEncoding { why: why.0 }.into()
}

/// An encoded update whose directory fits its file.
#[derive(Debug)]
pub struct Encoded {
    isa: Isa,
    /// A device that decodes.
    device: Option<Arc<dyn Device>>,
    /// The number of the update among all that the process opened.
    number: u64,
    /// The tensors that the update decodes to.
    table: Arc<TensorTable>,
    /// The part of each tensor, and the index of its first value there.
    places: Vec<(usize, usize)>,
    parts: Vec<EncodedPart>,
    metadata: BTreeMap<String, String>,
    /// The bytes of the streams of a bundle, before its directory; `None` for a plain file.
    content: Option<Range<u64>>,
}

/// What an encoded update is held against when it is opened.
struct Opening<'a> {
    base: Option<&'a [TensorSpec]>,
    file_bytes: u64,
    limits: &'a Limits,
}

impl Encoded {
    /// The encoded update in an open file; `None` for a plain model.
    fn of(model: &ModelFile, base: Option<&TensorTable>, limits: &Limits) -> Result<Option<Self>, Invalid> {
        match model.metadata.get(FORMAT_KEY).map(String::as_str) {
            None => return Ok(None),
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Invalid(format!("its `{FORMAT_KEY}` is `{other}`, expected `{FORMAT}`")));
            }
        }
        let base: Option<Vec<TensorSpec>> =
            base.map(|table| table.iter().map(|place| place.spec.clone()).collect());
        let most = Most { tensors: limits.tensors, of_base: base.as_deref().map(<[TensorSpec]>::len) };
        let opening = Opening { base: base.as_deref(), file_bytes: model.bytes(), limits };
        if let Some(json) = model.metadata.get(CODEC_KEY) {
            let stored = model.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
            return Self::new(Directory::from_json(json, most)?, &opening, Plain { stored }).map(Some);
        }
        let [bundle] = &model.table[..] else {
            return Err(Invalid(format!("it has neither `{CODEC_KEY}` nor the tensor `{BUNDLE}` alone")));
        };
        let (directory, end) = read_directory(bundle, &model.files, limits.header_bytes, most)?;
        let encoded = Self::new(directory, &opening, Bundle { next: bundle.offset, end })?;
        Ok(Some(Self { content: Some(bundle.offset..end), ..encoded }))
    }

    fn new(
        mut directory: Directory,
        opening: &Opening<'_>,
        mut layout: impl StreamLayout,
    ) -> Result<Self, Invalid> {
        let tensors = directory.tensors.resolve(opening.base)?;
        directory.name_the_rest(tensors.len())?;
        let metadata = metadata(&directory)?;
        let bytes = tensors.iter().try_fold(0usize, |bytes, spec| bytes.checked_add(spec.bytes()));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(Invalid::new("its tensors have too many values together"));
        }
        let decoded = opening.limits.decoded.check(&tensors, opening.file_bytes);
        decoded.map_err(|why| Invalid(why.to_string()))?;
        let mut places = vec![(0, 0); tensors.len()];
        let mut parts: Vec<EncodedPart> = Vec::with_capacity(directory.parts.len());
        let mut appended = Vec::new();
        for (number, part) in directory.parts.into_iter().enumerate() {
            let mut start = 0;
            for tensor in &part.tensors {
                let spec = &tensors[*tensor as usize];
                places[*tensor as usize] = (number, start);
                start += spec.len;
                if !part.coding.takes(spec.dtype) {
                    let (name, dtype) = (&spec.name, spec.dtype);
                    return Err(Invalid(format!("tensor `{name}` is {dtype}, which is not encoded so")));
                }
            }
            let PartStreams { vector, streams } = part.streams(&tensors)?;
            let name = part.tensors.first().map_or("", |first| &tensors[*first as usize].name);
            let mut placed = Vec::with_capacity(streams.len());
            for stream in &streams {
                let spec = stream.spec(name, part.chunk_bytes())?;
                let is_chunks = stream.extent == Extent::Chunks;
                // Streams of unknown extent come after all others.
                let (file, offset) = if is_chunks { (0, 0) } else { layout.place(&spec)? };
                if is_chunks {
                    appended.push((number, placed.len(), spec));
                }
                placed.push(StreamPlace { file, offset, is_chunks });
            }
            let ends = part.chunks.iter().scan(0, |end, bytes| {
                *end += u64::from(*bytes);
                Some(*end)
            });
            let first = if part.chunks.is_empty() { None } else { Some(0) };
            let chunks = first.into_iter().chain(ends).collect();
            parts.push(EncodedPart { coding: part.coding, vector, streams: placed, chunks });
        }
        for (part, stream, spec) in appended {
            let place = &mut parts[part].streams[stream];
            (place.file, place.offset) = layout.place(&spec)?;
        }
        layout.finish()?;
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let table = Arc::new(table(tensors, &places, &parts));
        let isa = Isa::detect();
        Ok(Self { isa, device: None, number, table, places, parts, metadata, content: None })
    }

    /// Checks that a device decodes the tensors that a codec was named for.
    fn check_has_shaders(&self) -> Result<(), OpenFault> {
        for (place, (part, _)) in self.table.iter().zip(&self.places) {
            let coding = &self.parts[*part].coding;
            if !coding.decodes_on_device() {
                let (tensor, found) = (place.spec.name.clone(), coding.to_string());
                return Err(OpenFault::NoShaders { tensor, found, expected: codecs::decoded_on_device() });
            }
        }
        Ok(())
    }

    /// Whether the update is a sketch. All other tensors of a sketch must be raw.
    fn is_sketch(&self) -> Result<bool, Invalid> {
        let of =
            |found: fn(&Coding) -> bool| self.parts.iter().filter(move |part| found(&part.coding)).count();
        let (sketches, raw) =
            (of(|coding| matches!(coding, Coding::Sketch(_))), of(|coding| *coding == Coding::Raw));
        match sketches {
            0 => Ok(false),
            _ if sketches + raw == self.parts.len() => Ok(true),
            _ => Err(Invalid::new("it is a sketch, and some of its tensors are encoded otherwise")),
        }
    }
}

/// The tensors that an update decodes to, with the part of each in `places`.
fn table(tensors: Vec<TensorSpec>, places: &[(usize, usize)], parts: &[EncodedPart]) -> TensorTable {
    let place = |(number, spec): (usize, TensorSpec)| {
        let part = &parts[places[number].0];
        let (file, offset) = match part.coding {
            Coding::Raw => (part.streams[0].file, part.streams[0].offset),
            _ => (ENCODED, number as u64),
        };
        TensorPlace { spec, file, offset }
    };
    tensors.into_iter().enumerate().map(place).collect()
}

/// The metadata that the directory has in place of the header.
fn metadata(directory: &Directory) -> Result<BTreeMap<String, String>, Invalid> {
    let mut metadata = BTreeMap::new();
    for (key, value) in &directory.metadata {
        metadata.insert(key.name()?.to_owned(), value.clone());
    }
    if let Some(base) = &directory.base {
        metadata.insert("base".to_owned(), format!("blake3:{}", hex(base)));
    }
    Ok(metadata)
}

impl Decoder for Encoded {
    fn decode(&self, files: &[SourceFile], tensor: usize, start: usize, out: &mut [f32]) -> io::Result<()> {
        let spec = &self.table[tensor].spec;
        let (part, first) = self.places[tensor];
        let key = (self.number, part);
        let decoded =
            self.parts[part].decode(self.isa, self.device.as_deref(), files, key, first + start, out);
        decoded.map_err(|why| match why {
            PartError::Read(why) => why,
            PartError::Invalid(why) => {
                io::Error::new(io::ErrorKind::InvalidData, format!("tensor `{}`: {why}", spec.name))
            }
        })?;
        round_to(self.isa, spec.dtype, out);
        Ok(())
    }

    fn content(&self) -> Option<Range<u64>> {
        self.content.clone()
    }

    fn memory(&self) -> usize {
        let parts: usize = self.parts.iter().map(EncodedPart::memory).sum();
        parts + size_of_val(&self.places[..])
    }

    fn sparsity(&self) -> Sparsity {
        let of = |part: &EncodedPart| match part.coding.scheme() {
            Some(scheme) => scheme.sparsity(&part.vector),
            None => Sparsity::Dense,
        };
        Sparsity::of_vectors(self.parts.iter().map(of))
    }
}

/// Rounds values to a dtype, so that decoded values are those that a file of the dtype would hold.
pub(crate) fn round_to(isa: Isa, dtype: Dtype, values: &mut [f32]) {
    if matches!(dtype, Dtype::F32 | Dtype::F64) {
        return;
    }
    let largest = dtype.limits().end().min(f64::from(f32::MAX)) as f32;
    let mut stored = TileBuffer::new(1, values.len() * dtype.bytes());
    values.iter_mut().for_each(|x| *x = x.clamp(-largest, largest));
    let bytes = &mut stored.row_mut(0)[..values.len() * dtype.bytes()];
    encode(isa, dtype, values, bytes);
    decode(isa, dtype, bytes, values);
}
