//! Lays streams out in a safetensors file.
//!
//! In the plain layout every stream is a tensor: streams of known extent first, by alignment, then the others. The
//! directory is JSON in the metadata. In a bundle one tensor holds all streams and then the directory as postcard. A
//! bundle is for small files, where the header would be large beside the data. The places of streams of known extent
//! are known before a chunk is encoded, so any thread writes its chunks in place. The other streams are appended in
//! order.

use crate::codecs::directory::{BUNDLE, CODEC_KEY, Directory, FORMAT, FORMAT_KEY, Key, Part, Tensors};
use crate::codecs::{Extent, Invalid};
use crate::compress::encode::{Outcome, PartEncoder};
use crate::compress::sink::{LayoutError, Sink};
use crate::io::digest::Digest;
use crate::io::model_writer::header_bytes;
use crate::io::publish::Staged;
use crate::model::dtype::Dtype;
use crate::model::layout::TensorSpec;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The longest header of a plain file, as a part of its data.
const MOST_HEADER: f64 = 0.02;

/// The layout of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum FileLayout {
    /// A tensor for each stream of bytes.
    Plain,
    /// One tensor for all streams, with a short header.
    Bundle,
}

/// The design of a file: its layout, and what it says of the update.
#[derive(Clone, Debug)]
pub(crate) struct Design<'a> {
    /// The layout.
    pub(crate) layout: FileLayout,
    /// The tensors of the update.
    pub(crate) tensors: &'a [TensorSpec],
    /// The tensors as the file names them.
    pub(crate) naming: Tensors,
    /// The metadata of the update.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The digest of the base; `None` for an update without one.
    pub(crate) base: Option<Digest>,
}

/// A finished file that is not published yet.
#[derive(Debug)]
pub(crate) struct FinishedFile {
    /// The file; `None` in a dry run.
    pub(crate) staged: Option<Staged>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Bytes of the header with its length, and of the directory.
    pub(crate) header_bytes: u64,
}

impl Design<'_> {
    /// Whether a plain file suits these parts: its header is short beside its data, and no two streams share a name.
    ///
    /// # Errors
    ///
    /// When no layout can hold the parts.
    pub(crate) fn is_plain_fit(&self, parts: &[PartEncoder]) -> Result<bool, Invalid> {
        let chunks: Vec<Vec<u32>> = parts.iter().map(|part| vec![0; part.chunk_count()]).collect();
        let specs = self.stream_specs(parts, &chunks)?;
        let data = specs.iter().map(|spec| spec.bytes() as u64).sum::<u64>();
        let data = data + parts.iter().map(PartEncoder::expected_bytes).sum::<u64>();
        let mut names = HashSet::new();
        let has_twice = specs.iter().any(|spec| !names.insert(spec.name.as_str()));
        drop(names);
        drop(specs);
        let header = self.header(parts, &chunks, data)?.len() as f64;
        Ok(!has_twice && header < MOST_HEADER * data as f64)
    }

    /// Makes room for parts in a file that will get the name `path`. Without a `path` bytes are only counted.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub(crate) fn begin(&self, path: Option<&Path>, parts: &[PartEncoder]) -> Result<Sink, LayoutError> {
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
        let appended = parts.iter().map(PartEncoder::expected_bytes).sum();
        Sink::new(path, places, end, appended, || self.room_for_header(parts))
    }

    fn name_of(&self, part: &PartEncoder) -> &str {
        part.plan.tensors.first().map_or("", |first| &self.tensors[*first].name)
    }

    /// A bound on the bytes of the header: with the largest number in each place.
    fn room_for_header(&self, parts: &[PartEncoder]) -> Result<u64, LayoutError> {
        let chunks: Vec<Vec<u32>> = parts.iter().map(|part| vec![u32::MAX; part.chunk_count()]).collect();
        let header = self.header(parts, &chunks, u64::from(u32::MAX) << 20)?;
        Ok(header.len() as u64 + 24 * parts.len() as u64)
    }

    /// The directory of these parts.
    pub(crate) fn directory(&self, parts: &[PartEncoder], chunks: &[Vec<u32>]) -> Directory {
        let number = |tensor: &usize| u32::try_from(*tensor).unwrap_or(u32::MAX);
        let part = |(part, chunks): (&PartEncoder, &Vec<u32>)| Part {
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
            directory.metadata = self.metadata().map(|(key, value)| (Key::of(&key), value)).collect();
            // The start of the digest is enough to name the base.
            directory.base = match self.naming {
                Tensors::OfBase(_) => self.base.as_ref().map(Digest::blake3_start),
                Tensors::Here(_) => None,
            };
            // One part may list no tensors: it has those that no other part lists.
            let longest = directory.parts.iter_mut().max_by_key(|part| part.tensors.len());
            longest.into_iter().for_each(|part| part.tensors.clear());
        }
        directory
    }

    /// The metadata of the update, with the whole digest of its base unless the directory has the start of it.
    fn metadata(&self) -> impl Iterator<Item = (String, String)> {
        let named = self.base.as_ref().filter(|_| matches!(self.naming, Tensors::Here(_)));
        let base = named.map(|base| ("base".to_owned(), format!("sha256:{}", base.sha256)));
        self.metadata.clone().into_iter().chain(base)
    }

    /// The header of a file with `data_bytes` of data.
    fn header(
        &self,
        parts: &[PartEncoder],
        chunks: &[Vec<u32>],
        data_bytes: u64,
    ) -> Result<Vec<u8>, Invalid> {
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), "pt".to_owned()),
            (FORMAT_KEY.to_owned(), FORMAT.to_owned()),
        ]);
        if self.layout == FileLayout::Bundle {
            let len = usize::try_from(data_bytes).unwrap_or(usize::MAX);
            let bundle = TensorSpec { name: BUNDLE.to_owned(), dtype: Dtype::U8, shape: vec![len], len };
            return Ok(header_bytes(&[bundle], &metadata));
        }
        metadata.extend(self.metadata());
        metadata.insert(CODEC_KEY.to_owned(), self.directory(parts, chunks).to_json()?);
        Ok(header_bytes(&self.stream_specs(parts, chunks)?, &metadata))
    }

    /// The tensors of a plain file, in the order of their data.
    fn stream_specs(&self, parts: &[PartEncoder], chunks: &[Vec<u32>]) -> Result<Vec<TensorSpec>, Invalid> {
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

    /// Appends the directory and writes the header.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(crate) fn finish(
        &self,
        mut sink: Sink,
        path: Option<&Path>,
        parts: &[PartEncoder],
        outcome: &Outcome,
    ) -> Result<FinishedFile, LayoutError> {
        let streams_end = sink.end();
        if self.layout == FileLayout::Bundle {
            sink.append(&self.directory(parts, &outcome.chunks).to_bytes()?)?;
        }
        let end = sink.end();
        let (staged, header) = sink.finish(path, self.header(parts, &outcome.chunks, end)?)?;
        Ok(FinishedFile { staged, bytes: header + end, header_bytes: header + end - streams_end })
    }
}
