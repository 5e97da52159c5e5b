//! What is told of a compressed update, measured on its file and on what that is decoded to; and how it misses what was
//! wanted.

use crate::codecs::Coding;
use crate::compress::auto::{Found, Made};
use crate::compress::encode::Running;
use crate::compress::inputs::Inputs;
use crate::compress::quality::{Measures, Quality, white_bound};
use crate::compress::run::{Attempt, Compression, How};
use crate::model::dtype::Kind;
use crate::model::layout::TensorSpec;
use serde::Serialize;
use std::collections::BTreeMap;

/// What came of compressing: measured on the file and on what it is decoded to.
#[derive(Clone, Serialize, Debug)]
pub struct Compressed {
    /// The file that was compressed.
    pub input: String,
    /// Its bytes.
    pub input_bytes: u64,
    /// Where the compressed file is.
    pub output: Option<String>,
    /// Its bytes, header included.
    pub output_bytes: u64,
    /// Input bytes over output bytes.
    pub ratio: f64,
    /// Bytes of header and directory.
    pub header_bytes: u64,
    /// Float values in the update.
    pub parameters: u64,
    /// Bits of the file for each of them.
    pub bits_per_parameter: f64,
    /// How near it is.
    #[serde(flatten)]
    pub measures: Measures,
    /// The least NMSE that any code of so many bits has on white Gaussian data.
    pub white_nmse_bound: f64,
    /// Values by codec.
    pub codecs: BTreeMap<String, u64>,
    /// Why it does not meet what was wanted, if it does not.
    pub missed: Option<String>,
}

impl Compressed {
    /// Of an update that was encoded so.
    pub(crate) fn of(
        compression: &Compression,
        inputs: &Inputs,
        attempt: &Attempt,
        tensors: &[TensorSpec],
    ) -> Self {
        let (input_bytes, output_bytes) = (inputs.update.bytes(), attempt.finished.bytes);
        let mut quality = Quality::default();
        let mut codecs = BTreeMap::new();
        for (part, found) in attempt.parts.iter().zip(&attempt.outcome.quality) {
            quality.add(found);
            *codecs.entry(name(part)).or_insert(0) += part.plan.vector.len as u64;
        }
        let floats = tensors.iter().filter(|spec| spec.dtype.kind() == Kind::Float);
        let parameters: u64 = floats.map(|spec| spec.len as u64).sum();
        let bits = 8.0 * output_bytes as f64 / parameters.max(1) as f64;
        Self {
            input: compression.update.display().to_string(),
            input_bytes,
            output: compression.output.as_ref().map(|path| path.display().to_string()),
            output_bytes,
            ratio: input_bytes as f64 / output_bytes as f64,
            header_bytes: attempt.finished.header_bytes,
            parameters,
            bits_per_parameter: bits,
            measures: quality.measures(),
            white_nmse_bound: white_bound(bits),
            codecs,
            missed: missed(&compression.how, input_bytes, &attempt.found()),
        }
    }
}

/// What a part was encoded by.
fn name(part: &Running) -> String {
    match (&part.plan.codec, &part.coding) {
        (_, Coding::Constant(_)) => "const".to_owned(),
        // Also where another codec was asked for that is not worth it there.
        (_, Coding::Half(half)) => half.to_string(),
        (Some(codec), _) => codec.to_string(),
        (None, _) => "raw".to_owned(),
    }
}

/// How a file misses what was wanted, if it does.
fn missed(how: &How, input_bytes: u64, found: &Found) -> Option<String> {
    let How::Wanted(wanted) = how else { return None };
    let goal = wanted.goal(input_bytes);
    let bytes = goal.bytes.filter(|most| found.bytes > *most);
    let nmse = goal.nmse.filter(|most| found.nmse > *most);
    let bytes = bytes.map(|most| format!("{} bytes, expected at most {most}", found.bytes));
    let nmse = nmse.map(|most| format!("NMSE {:.4e}, expected at most {most:e}", found.nmse));
    let missed: Vec<String> = bytes.into_iter().chain(nmse).collect();
    (!missed.is_empty()).then(|| format!("the best file found has {}", missed.join("; ")))
}
