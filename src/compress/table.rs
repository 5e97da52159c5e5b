//! Compares all codecs on one update: bytes and errors of the file, speeds of one thread.

use crate::codecs::{self, CHUNK, Codec, Coding, Invalid, Seeds, Vector};
use crate::compress::error::CompressError;
use crate::compress::method::{CompressionMethod, Targets};
use crate::compress::quality::Measures;
use crate::compress::run::Compression;
use crate::compress::summary::Summary;
use crate::kernels::lanes::Isa;
use crate::settings::SpecError;
use crate::telemetry::cells::{Listing, or_dash};
use crate::telemetry::explain::Explain;
use rayon::ThreadPool;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// The ratios of the rows whose codecs follow from a target.
const TARGETS: [f64; 4] = [8.0, 16.0, 32.0, 100.0];

/// The most values on which speeds are measured, from the largest encoded tensor.
const MOST_TIMED: usize = 1 << 22;

/// Runs for each speed; the fastest counts.
const RUNS: usize = 3;

/// An update by one codec, or by the codecs that meet a target.
#[derive(Clone, Serialize, Debug)]
pub struct Row {
    /// The codec, or the target.
    pub codec: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the update over bytes of the file.
    pub ratio: f64,
    /// Bits of the file for each float of the update.
    pub bits_per_parameter: f64,
    /// The error.
    #[serde(flatten)]
    pub measures: Measures,
    /// The least NMSE of any code with this number of bits, on white Gaussian data.
    pub white_nmse_bound: f64,
    /// Megabytes of f32 that one thread encodes in a second; `None` for targets, and if nothing is encoded.
    pub encode_mb_per_s: Option<f64>,
    /// Megabytes of f32 that one thread decodes in a second.
    pub decode_mb_per_s: Option<f64>,
}

/// Why codecs cannot be compared.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum TableError {
    #[error(transparent)]
    Codec(#[from] SpecError),
    #[error(transparent)]
    Compress(#[from] CompressError),
    #[error("{codec}: its encoding cannot be decoded: {why}")]
    Invalid { codec: String, why: Invalid },
}

impl Explain for TableError {
    fn hint(&self) -> Option<String> {
        if let Self::Compress(error) = self { error.hint() } else { None }
    }

    fn signal(&self) -> Option<i32> {
        if let Self::Compress(error) = self { error.signal() } else { None }
    }
}

/// Compresses an update by one codec after another and publishes nothing. Rows are in descending order of bytes.
///
/// # Errors
///
/// When a codec cannot compress the update.
pub fn measure(compression: &Compression, pool: &ThreadPool) -> Result<Vec<Row>, TableError> {
    let with = |method| Compression { method, output: None, ..compression.clone() };
    let sample = compression.sample(MOST_TIMED, pool)?;
    let mut rows = Vec::new();
    for text in codecs::tried() {
        let codec: Arc<dyn Codec> = Arc::from(codecs::parse(&text)?);
        let summary = with(CompressionMethod::Codec(Arc::clone(&codec))).run(pool)?;
        let speed = sample.as_ref().map(|(vector, values)| speed(&*codec, compression.isa, vector, values));
        rows.push(Row::of(codec.to_string(), summary, speed.transpose()?));
    }
    for target in TARGETS {
        let targets = Targets { ratio: Some(target), best_effort: true, ..Targets::default() };
        let summary = with(CompressionMethod::Targets(targets)).run(pool)?;
        if summary.missed.is_none() {
            rows.push(Row::of(format!("--target {target}"), summary, None));
        }
    }
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.codec.cmp(&b.codec)));
    Ok(rows)
}

impl Row {
    fn of(codec: String, summary: Summary, speed: Option<Speed>) -> Self {
        Self {
            codec,
            bytes: summary.output_bytes,
            ratio: summary.ratio,
            bits_per_parameter: summary.bits_per_parameter,
            measures: summary.measures,
            white_nmse_bound: summary.white_nmse_bound,
            encode_mb_per_s: speed.map(|speed| speed.encode),
            decode_mb_per_s: speed.map(|speed| speed.decode),
        }
    }
}

/// Megabytes of f32 in a second.
#[derive(Clone, Copy)]
struct Speed {
    encode: f64,
    decode: f64,
}

/// The speed at which one thread encodes and decodes a vector.
fn speed(codec: &dyn Codec, isa: Isa, vector: &Vector, values: &[f32]) -> Result<Speed, TableError> {
    let mut best = Speed { encode: 0.0, decode: 0.0 };
    let rate = |started: Instant| 4e-6 * values.len() as f64 / started.elapsed().as_secs_f64().max(1e-9);
    for _ in 0..RUNS {
        let started = Instant::now();
        let (coding, chunks) = encode(codec, isa, vector, values);
        best.encode = best.encode.max(rate(started));
        let started = Instant::now();
        decode(&coding, isa, vector, &chunks)
            .map_err(|why| TableError::Invalid { codec: codec.to_string(), why })?;
        best.decode = best.decode.max(rate(started));
    }
    Ok(best)
}

/// The streams of each chunk.
type Chunks = Vec<Vec<Vec<u8>>>;

fn encode(codec: &dyn Codec, isa: Isa, vector: &Vector, values: &[f32]) -> (Coding, Chunks) {
    let mut encoder = codec.encoder(isa, vector, Seeds { own: 1, shared: 2 });
    codecs::settle(encoder.as_mut(), values);
    (encoder.coding(), codecs::chunks(values).map(|(start, chunk)| encoder.encode(start, chunk)).collect())
}

fn decode(coding: &Coding, isa: Isa, vector: &Vector, chunks: &Chunks) -> Result<(), Invalid> {
    let Some(scheme) = coding.scheme() else { return Ok(()) };
    let mut out = vec![0.0; CHUNK.min(vector.len)];
    for (start, streams) in (0..vector.len).step_by(CHUNK).zip(chunks) {
        let bytes: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        let len = CHUNK.min(vector.len - start);
        scheme.decode(isa, vector, start, &bytes, &mut out[..len])?;
    }
    std::hint::black_box(&out);
    Ok(())
}

/// Rows for people.
pub fn text(rows: &[Row]) -> String {
    let header =
        ["codec", "bytes", "ratio", "bits", "NMSE", "white", "cosine", "norm", "encode MB/s", "decode MB/s"];
    let mut table = Listing::with_header(header).right(1..header.len());
    let speed = |speed: Option<f64>| or_dash(speed.map(|speed| format!("{speed:.0}")));
    for row in rows {
        table.add([
            row.codec.clone(),
            row.bytes.to_string(),
            format!("{:.2}", row.ratio),
            format!("{:.3}", row.bits_per_parameter),
            format!("{:.3e}", row.measures.nmse),
            format!("{:.3e}", row.white_nmse_bound),
            format!("{:.4}", row.measures.cosine),
            format!("{:.4}", row.measures.norm_ratio),
            speed(row.encode_mb_per_s),
            speed(row.decode_mb_per_s),
        ]);
    }
    table.text(&[])
}
