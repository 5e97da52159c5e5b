//! Lays streams out in a file, which is a valid safetensors file whatever the layout.
//!
//! Plain: every stream is a tensor, those of known extent first and by alignment, then the others; the directory is
//! JSON in the metadata. Bundle: one tensor that holds all streams and then the directory, as postcard; for small files,
//! where a header would weigh. Where each stream of known extent goes is settled before a chunk is encoded, so chunks
//! are written in place from any thread; the others are appended in order. The header goes last: what is small enough
//! is held back in memory until its length is known, before what is not room is left.

use crate::codecs::directory::{BUNDLE, CODEC_KEY, Directory, FORMAT, FORMAT_KEY, Key, Part, Tensors};
use crate::codecs::{Extent, Invalid};
use crate::compress::encode::{Outcome, Running};
use crate::io::digest::Digest;
use crate::io::model_writer::header_bytes;
use crate::io::publish::Staged;
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Files of up to so many bytes are put together in memory.
const HELD_BYTES: u64 = 4 << 20;

/// The most that the header of a plain file may be, of its data.
const MOST_HEADER: f64 = 0.02;

/// Which layout a file has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum FileLayout {
    /// Every stream is a tensor.
    Plain,
    /// All streams are one tensor.
    Bundle,
}

/// Where bytes go.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    /// First byte of each stream of known extent, part by part, behind the header.
    places: Vec<Vec<u64>>,
    /// Bytes behind the header so far.
    end: u64,
}

#[derive(Debug)]
enum Target {
    /// In memory, without the header.
    Held(Mutex<Vec<u8>>),
    /// In a file, behind so many bytes that are left for the header.
    Staged(Staged, u64),
    /// Nowhere: bytes are only counted, behind so many for the header if those would be left.
    Nowhere(Option<u64>),
}

impl Sink {
    /// Writes bytes of a stream of known extent.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&self, part: usize, stream: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.put(self.places[part][stream] + offset as u64, bytes)
    }

    /// Appends bytes behind all others.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(self.end, bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.target {
            Target::Staged(staged, start) => staged.write_at(bytes, start + offset),
            Target::Nowhere(_) => Ok(()),
            Target::Held(held) => {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                let (start, end) = (offset as usize, offset as usize + bytes.len());
                if held.len() < end {
                    held.resize(end, 0);
                }
                held[start..end].copy_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// How a file is to be laid out.
#[derive(Clone, Debug)]
pub struct Design<'a> {
    /// The layout.
    pub layout: FileLayout,
    /// The tensors of the update.
    pub tensors: &'a [TensorSpec],
    /// How the file names them.
    pub naming: Tensors,
    /// What the update says of itself.
    pub metadata: BTreeMap<String, String>,
    /// The digest of the base, if it was made with one.
    pub base: Option<Digest>,
}

/// A finished file that is not yet seen.
#[derive(Debug)]
pub struct Finished {
    /// The file, if there is to be one.
    pub staged: Option<Staged>,
    /// Its bytes.
    pub bytes: u64,
    /// Those of its header, length included, and of its directory.
    pub header_bytes: u64,
}

impl Design<'_> {
    /// Whether a plain file suits these parts: its header would be little beside its data, and no two tensors of it
    /// would have one name.
    ///
    /// # Errors
    ///
    /// When they cannot be laid out at all.
    pub fn is_plain_fit(&self, parts: &[Running]) -> Result<bool, Invalid> {
        let chunks: Vec<Vec<u32>> = parts.iter().map(|part| vec![0; part.chunk_count()]).collect();
        let specs = self.stream_specs(parts, &chunks)?;
        let mut names = HashSet::new();
        let data = specs.iter().map(|spec| spec.bytes() as u64).sum::<u64>();
        let data = data + parts.iter().map(Running::expected_bytes).sum::<u64>();
        let header = self.header(parts, &chunks, data)?.len() as f64;
        Ok(specs.iter().all(|spec| names.insert(spec.name.as_str())) && header < MOST_HEADER * data as f64)
    }

    /// Makes room for parts in a file beside `target`; none makes no file, only its length.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn begin(&self, target: Option<&Path>, parts: &[Running]) -> Result<Sink, LayoutError> {
        let mut places: Vec<Vec<u64>> = parts.iter().map(|part| vec![0; part.streams.len()]).collect();
        let mut order: Vec<(usize, usize, TensorSpec)> = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            for (stream, found) in part.streams.iter().enumerate() {
                order.push((number, stream, found.spec(self.name_of(part), 0)?));
            }
        }
        let is_known = |part: usize, stream: usize| parts[part].streams[stream].extent != Extent::Chunks;
        order.retain(|(part, stream, _)| is_known(*part, *stream));
        if self.layout == FileLayout::Plain {
            order.sort_by_key(|(.., spec)| std::cmp::Reverse(spec.dtype.bytes()));
        }
        let mut end = 0;
        for (part, stream, spec) in &order {
            places[*part][*stream] = end;
            end += spec.bytes() as u64;
        }
        let expected = end + parts.iter().map(Running::expected_bytes).sum::<u64>();
        let start = (expected > HELD_BYTES).then(|| self.room_for_header(parts)).transpose()?;
        let target = match (target, start) {
            (None, start) => Target::Nowhere(start),
            (Some(_), None) => Target::Held(Mutex::default()),
            (Some(target), Some(start)) => Target::Staged(Staged::create(target, start + expected)?, start),
        };
        Ok(Sink { target, places, end })
    }

    fn name_of(&self, part: &Running) -> &str {
        part.plan.tensors.first().map_or("", |first| &self.tensors[*first].name)
    }

    /// More bytes than the header can come to: with the largest numbers in all places.
    fn room_for_header(&self, parts: &[Running]) -> Result<u64, LayoutError> {
        let chunks: Vec<Vec<u32>> = parts.iter().map(|part| vec![u32::MAX; part.chunk_count()]).collect();
        let header = self.header(parts, &chunks, u64::from(u32::MAX) << 20)?;
        Ok(header.len() as u64 + 24 * parts.len() as u64)
    }

    /// The directory of these parts.
    pub fn directory(&self, parts: &[Running], chunks: &[Vec<u32>]) -> Directory {
        let number = |tensor: &usize| u32::try_from(*tensor).unwrap_or(u32::MAX);
        let part = |(part, chunks): (&Running, &Vec<u32>)| Part {
            coding: part.coding.clone(),
            tensors: part.plan.tensors.iter().map(number).collect(),
            chunks: chunks.clone(),
        };
        let mut directory = Directory {
            tensors: self.naming.clone(),
            parts: parts.iter().zip(chunks).map(part).collect(),
            metadata: Vec::new(),
            base: None,
        };
        if self.layout == FileLayout::Bundle {
            directory.metadata = self.said().map(|(key, value)| (Key::of(&key), value)).collect();
            // Enough to name it by, where bytes are counted.
            directory.base = match self.naming {
                Tensors::OfBase(_) => self.base.as_ref().map(Digest::blake3_start),
                Tensors::Here(_) => None,
            };
            // One part need not say what it is made of: what no other is.
            let longest = directory.parts.iter_mut().max_by_key(|part| part.tensors.len());
            longest.into_iter().for_each(|part| part.tensors.clear());
        }
        directory
    }

    /// What the update says of itself, its base by its whole digest, unless that is named in fewer bytes.
    fn said(&self) -> impl Iterator<Item = (String, String)> {
        let named = self.base.as_ref().filter(|_| matches!(self.naming, Tensors::Here(_)));
        let base = named.map(|base| ("base".to_owned(), format!("sha256:{}", base.sha256)));
        self.metadata.clone().into_iter().chain(base)
    }

    /// The header of a file whose data is so long.
    fn header(&self, parts: &[Running], chunks: &[Vec<u32>], data_bytes: u64) -> Result<Vec<u8>, Invalid> {
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), "pt".to_owned()),
            (FORMAT_KEY.to_owned(), FORMAT.to_owned()),
        ]);
        if self.layout == FileLayout::Bundle {
            let len = usize::try_from(data_bytes).unwrap_or(usize::MAX);
            let bundle = TensorSpec { name: BUNDLE.to_owned(), dtype: Dtype::U8, shape: vec![len], len };
            return Ok(header_bytes(&[bundle], &metadata));
        }
        metadata.extend(self.said());
        metadata.insert(CODEC_KEY.to_owned(), self.directory(parts, chunks).to_json()?);
        Ok(header_bytes(&self.stream_specs(parts, chunks)?, &metadata))
    }

    /// The tensors of a plain file, in the order of their data.
    fn stream_specs(&self, parts: &[Running], chunks: &[Vec<u32>]) -> Result<Vec<TensorSpec>, Invalid> {
        let (mut known, mut appended) = (Vec::new(), Vec::new());
        for (part, chunks) in parts.iter().zip(chunks) {
            let bytes = chunks.iter().map(|bytes| u64::from(*bytes)).sum();
            for stream in &part.streams {
                let specs = if stream.extent == Extent::Chunks { &mut appended } else { &mut known };
                specs.push(stream.spec(self.name_of(part), bytes)?);
            }
        }
        known.sort_by_key(|spec: &TensorSpec| std::cmp::Reverse(spec.dtype.bytes()));
        known.extend(appended);
        Ok(known)
    }

    /// Puts directory and header to what was encoded.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn finish(
        &self,
        mut sink: Sink,
        target: Option<&Path>,
        parts: &[Running],
        outcome: &Outcome,
    ) -> Result<Finished, LayoutError> {
        let streams_end = sink.end;
        if self.layout == FileLayout::Bundle {
            let directory = self.directory(parts, &outcome.chunks).to_bytes()?;
            sink.append(&directory)?;
        }
        let end = sink.end;
        let mut header = self.header(parts, &outcome.chunks, end)?;
        let staged = match (sink.target, target) {
            (Target::Nowhere(start), _) => {
                header = start.map_or(Ok(header.clone()), |start| padded(header, start))?;
                None
            }
            (Target::Held(_), None) => None,
            (Target::Held(held), Some(target)) => {
                let held = held.into_inner().unwrap_or_else(PoisonError::into_inner);
                let staged = Staged::create(target, header.len() as u64 + end)?;
                staged.write_at(&header, 0)?;
                staged.write_at(&held, header.len() as u64)?;
                Some(staged)
            }
            (Target::Staged(staged, start), _) => {
                header = padded(header, start)?;
                staged.write_at(&header, 0)?;
                staged.set_len(start + end)?;
                Some(staged)
            }
        };
        let overhead = end - streams_end;
        let header = header.len() as u64;
        Ok(Finished { staged, bytes: header + end, header_bytes: header + overhead })
    }
}

/// A header with spaces behind it, so that it has so many bytes.
fn padded(mut header: Vec<u8>, bytes: u64) -> Result<Vec<u8>, Invalid> {
    let len = bytes.checked_sub(8).filter(|_| header.len() as u64 <= bytes);
    let len = len.ok_or_else(|| Invalid::new("header is longer than the room that was left for it"))?;
    header[..8].copy_from_slice(&len.to_le_bytes());
    header.resize(bytes as usize, b' ');
    Ok(header)
}

/// Why a file cannot be laid out.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum LayoutError {
    #[error("cannot be written: {0}")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}
